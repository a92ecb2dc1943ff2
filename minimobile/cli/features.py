"""`minimobile features`: the values of chosen layers, for every picture, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minimobile.cli import console, pictures, targets
from minimobile.cli.options import Force, Format, Model, OutputFormat, Pictures
from minimobile.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURE_NAMES = "images"  # the key beside the layers' names


def features(
    images: Pictures,
    layer: Annotated[
        list[str],
        typer.Option(
            "--layer",
            metavar="NAME",
            show_default=False,
            help="A layer by transformers' name, TF-slim's endpoint name or hidden-state index; may be repeated.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="The file to write: .npz or .h5. Its folder must exist.", show_default=False
        ),
    ],
    model: Model = None,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Write what chosen layers compute.

    FILE holds one float32 array (pictures, channels, height, width) per layer under the layer's name, and the
    pictures' names under "images". In an .h5 file a slash in a layer's name makes a group. Nothing after the last
    of the layers is computed.
    """  # fmt: skip
    from minimobile.cli.models import open_model, processor_of
    from minimobile.models.outputs import require_finite

    targets.check_target("--out", out, targets.ARRAY_SUFFIXES, force)
    paths = pictures.expand_folders(images)
    network = open_model(model, None, len(paths))
    process = processor_of(network)
    layers = {name: int(name) if name.lstrip("-").isdecimal() else name for name in dict.fromkeys(layer)}
    for key in layers.values():
        network.resolve(key)  # an unknown layer is one error, not one per picture
    collected: dict[str, list[NDArray[Any]]] = {name: [] for name in layers}

    def compute(path: Path) -> Any:
        pixel_values = process(path, return_tensors="np")["pixel_values"]
        return network.features(pixel_values, layers=list(layers.values()))

    def collect(path: Path, found: Any) -> pictures.Row:
        for name, key in layers.items():
            require_finite(found[key], path, f"values of {name}")
            _require_same_shape(path, name, found[key], collected[name])
        for name, key in layers.items():
            collected[name].append(found[key])
        return {"shapes": {name: list(found[key].shape[1:]) for name, key in layers.items()}}

    rows = pictures.work_through(paths, "computing features", compute, collect)
    used = [row["image"] for row in rows if "error" not in row]
    if used:
        _write(out, collected, used, force)
    if output_format is Format.JSON:
        console.write_json([row if "error" in row else {**row, "out": str(out)} for row in rows])
    elif used:
        shapes = [(name, "x".join(map(str, (len(used), *found[0].shape[1:])))) for name, found in collected.items()]
        console.write_table(("layer", "shape NxCxHxW#"), shapes, f"{out}: {len(used)} of {len(rows)} pictures")
    raise typer.Exit(pictures.settle(rows))


def _require_same_shape(path: Path, name: str, values: NDArray[Any], others: list[NDArray[Any]]) -> None:
    if others and values.shape != others[0].shape:
        raise InputError(
            f"{path}: expected {name} to have the first picture's shape {others[0].shape[1:]}, got {values.shape[1:]}; "
            "this model's processor does not crop, so pictures of different sizes go into files of their own"
        )


def _write(out: Path, collected: dict[str, list[NDArray[Any]]], names: list[str], force: bool) -> None:
    import numpy as np

    arrays = {name: np.concatenate(found) for name, found in collected.items()}  # (N, C, H, W)
    if out.suffix.lower() == ".npz":
        targets.write_arrays(out, {**arrays, PICTURE_NAMES: np.array(names)}, {}, force)
        return
    for name in arrays:
        if any(other.startswith(f"{name}/") for other in arrays):
            raise InputError(
                f"{out}: HDF5 cannot hold the array {name!r} beside a group of that name; write an .npz file"
            )
    encoded = np.array([name.encode("utf-8", "surrogateescape") for name in names])
    targets.write_arrays(out, {**arrays, PICTURE_NAMES: encoded}, {}, force)
