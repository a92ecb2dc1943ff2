"""What every pixel of a picture shows: the whole picture through a network, and the classes at the picture's size."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.arguments import read_flag
from minimobile.costs.profile import read_size
from minimobile.errors import InputError
from minimobile.imaging.drawing import OPACITY, draw_mask, draw_overlay
from minimobile.imaging.legend import lay_out, write_names
from minimobile.imaging.pictures import describe_source, open_image
from minimobile.imaging.summary import find_size
from minimobile.models.auto import SEGMENTATION, choose_model, require_processor
from minimobile.models.base_model import MobileNetModel
from minimobile.models.outputs import require_finite
from minimobile.tables import Table


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The class of every pixel of a picture.

    `class_map` (H, W) has the picture's own height and width, in the smallest unsigned type that holds its classes;
    `labels` is {class: name}, `photo` the picture, in RGB and upright.
    """

    class_map: NDArray[np.unsignedinteger[Any]]
    labels: Mapping[int, str]
    photo: Image.Image

    @functools.cached_property
    def classes(self) -> NDArray[np.int64]:
        """The class of every pixel, (H, W) int64, as `post_process_semantic_segmentation` gives it."""
        return self.class_map.astype(np.int64)

    @functools.cached_property
    def shares(self) -> list[dict[str, Any]]:
        """The classes that occur: [{"index": int, "label": str, "share": float}, ...], the largest share first."""
        counts = np.zeros(int(self.class_map.max()) + 1, np.int64)
        for row in self.class_map:  # of which NumPy makes int64: of all of them at once it would be eight photos
            counts += np.bincount(row, minlength=len(counts))
        return [
            {"index": int(index), "label": self.labels[int(index)], "share": float(counts[index] / counts.sum())}
            for index in np.argsort(-counts, kind="stable")
            if counts[index]
        ]

    def mask(self) -> Image.Image:
        """Return a palette picture whose pixel values are the classes. Raises InputError for more than 256 of them."""
        return draw_mask(self.class_map)

    def overlay(self, alpha: float = OPACITY, *, legend: bool = True) -> Image.Image:
        """Return the photo with each class but 0 tinted in its colour, and a white line around each region.

        Args:
            alpha: the share of the colours, from 0 to 1.
            legend: write the names of classes into the regions that have room for them, and add a legend below the
                picture, if it is wide enough for one: colours, names and shares.

        Raises:
            InputError: an alpha that is no share, or more classes than the palette has colours, 256.
        """
        if not read_flag(legend, "legend"):
            return draw_overlay(self.photo, self.class_map, alpha)
        below = lay_out(self.photo.size, self.shares)
        drawn = draw_overlay(self.photo, self.class_map, alpha, below.height)
        write_names(drawn, self.class_map, self.labels)
        below.draw(drawn, self.photo.height)
        return drawn

    def _repr_html_(self) -> str:
        """Return the table of the command `segment`, for notebooks."""
        rows = [(found["label"], f"{100 * found['share']:.2f} %", found["index"]) for found in self.shares]
        return Table(("label", "share#", "class#"), rows, f"{self.photo.height} x {self.photo.width} pixels").to_html()

    def __repr__(self) -> str:
        shown = ", ".join(f"{100 * found['share']:.2f} % {found['label'][:30]}" for found in self.shares[:5])
        more = ", ..." if len(self.shares) > 5 else ""
        return f"Segmentation({self.photo.height} x {self.photo.width}: {shown}{more})"


def segment(image: Any, model: MobileNetModel | str | Path | None = None) -> Segmentation:
    """Say what every pixel of one picture shows.

    The whole picture is looked at, as by the command `segment`: it is brought to the network by its processor's canvas,
    else resized to the size that the processor crops to, without the crop; the logits are brought back to the picture's
    size, and the largest wins.

    Args:
        image: a path, the bytes of a file, a PIL image (turned by its EXIF orientation, as files are), or an array
            (H, W, 3) or (H, W) of bytes.
        model: one for semantic segmentation, or what `load` takes (None: what MINIMOBILE_MODEL names).

    Raises:
        InputError: another kind of model, or logits that are NaN or infinite.
        FormatError: a picture or a model that cannot be read.
    """
    model = choose_model(model, SEGMENTATION)
    model.prepare()
    photo = open_photo(image)
    where = describe_source(image) if isinstance(image, str | Path) else "image"
    return Segmentation(find_classes(model, photo, where), model.id2label, photo)


def find_classes(
    model: Any,
    photo: Image.Image,
    where: object = "photo",
    processor: Any = None,
    size: tuple[int, int] | None = None,
) -> NDArray[Any]:
    """Return the class of every pixel of the photo, (H, W) in the smallest unsigned type.

    `processor` stands in for the model's own; `size` (height, width) is that of the result, None: the photo's. Raises
    InputError, beginning with `where`, for logits that are NaN or infinite.
    """
    process = require_processor(model) if processor is None else processor
    whole: dict[str, Any] = {"central_fraction": None, "do_center_crop": False}
    if process.canvas_size is None:
        height, width = find_size(process.to_dict()) or read_size(model.config.image_size)
        whole |= {"do_resize": True, "size": {"height": height, "width": width}}
    outputs: Any = model(process.prepare(photo, **whole), return_dict=True)
    require_finite(outputs.logits, where, "logits")
    (found,) = process.find_class_maps(outputs, target_sizes=[size or (photo.height, photo.width)])
    class_map: NDArray[Any] = found
    return class_map


def open_photo(image: Any) -> Image.Image:
    """Return a picture in RGB and upright, whatever it is given as; raise InputError for what is none."""
    if isinstance(image, str | Path | bytes | bytearray | Image.Image):
        return open_image(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise InputError(
            f"image: expected a path, bytes, a PIL image or an array (H, W, 3) of uint8, got a {type(image).__name__}"
            + (f" {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else "")
        )
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise InputError(f"image: expected an array (H, W, 3) of uint8, got shape {image.shape}")
    return open_image(Image.fromarray(image))
