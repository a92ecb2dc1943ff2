"""A page that shows a run of a model on a photo, down to one product: `explore`."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError, printable, within_memory
from minimobile.explorer.answers import describe_answer
from minimobile.explorer.float_network import describe_floats
from minimobile.explorer.integer_network import describe_integers
from minimobile.explorer.page import build_page
from minimobile.explorer.payload import Payload
from minimobile.explorer.photograph import process_photograph
from minimobile.models.auto import load
from minimobile.models.base_model import MobileNetModel
from minimobile.models.segmentation import open_photo
from minimobile.quantized.runner import QuantizedRunner
from minimobile.storage.files import user_path, write_whole_bytes
from minimobile.tracing.colour_scales import diverging_scale, sequential_scale

FRAME_HEIGHT = 720  # pixels, in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Exploration:
    """A page of HTML, which needs no other file and no network; in a notebook it shows itself."""

    html: str
    title: str

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page to a file, wholly or not at all, and return its path. Raises InputError where it may not."""
        place = user_path(path)
        write_whole_bytes(place, self.html.encode(), overwrite=overwrite)
        return place

    def _repr_html_(self) -> str:
        """Return a frame that holds the page, for notebooks."""
        return (
            f'<iframe title="{escape(self.title)}" sandbox="allow-scripts" width="100%" height="{FRAME_HEIGHT}" '
            f'style="border:0" srcdoc="{escape(self.html)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Exploration({self.title}: {len(self.html) / 1e6:.1f} MB of HTML; save(path) writes it)"


@within_memory("photo")
def explore(model: MobileNetModel | str | Path, photo: Any) -> Exploration:
    """Make a page on which a run can be looked at and changed: the photo, every layer, any value as its sum.

    The page holds the weights and computes the network itself, in the reader's browser, to the bits of this engine; it
    checks every layer against the engine's and says so. It works from disk and loads nothing.

    Args:
        model: a model, or what `load` takes.
        photo: a path, the bytes of a file, a PIL image, or an array (H, W, 3) or (H, W) of bytes.

    Raises:
        InputError: a photo or a model that cannot be shown.
        FormatError: a photo or a model that cannot be read.
    """
    network = model if isinstance(model, MobileNetModel) else load(model)
    if network.dtype != "float32":
        raise InputError(f"explore: expected a model in float32 or in integers, got one in {network.dtype}")
    picture = open_photo(photo)
    pictures, weights = Payload(), Payload()
    processed = process_photograph(network, picture, pictures)
    name = printable(Path(photo).name) if isinstance(photo, str | Path) else "a picture"
    title = f"{type(network).__name__} on {name}"
    document = {
        "title": title,
        "model": {"name": type(network).__name__, "parameters": network.num_parameters()},
        "photo": {"name": name, "stages": processed.stages},
        "answer": describe_answer(network, picture, processed.pixel_values, pictures),
        "scales": {"sequential": sequential_scale().tolist(), "diverging": diverging_scale().tolist()},
        **_describe_network(network, processed.pixel_values, weights),
    }
    return Exploration(build_page(document, pictures.encode(), weights.encode()), title)


def _describe_network(model: MobileNetModel, pixel_values: NDArray[np.float32], payload: Payload) -> dict[str, Any]:
    if isinstance(model.runner, QuantizedRunner):
        return describe_integers(model.runner, pixel_values, payload)
    return describe_floats(model, pixel_values, payload)
