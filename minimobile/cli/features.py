"""`minimobile features`: the values of chosen layers, for every picture, in one file."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from minimobile.cli import console, pictures, targets
from minimobile.cli.options import Force, Format, Model, OutputFormat, Pictures, path_option
from minimobile.cli.rows import write_json_list
from minimobile.errors import FormatError, InputError, MissingError

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
        path_option(
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
    of the layers is computed. An .npz file takes no memory for the pictures that it holds, an .h5 file does.
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

    def compute(path: Path) -> Any:
        return network.features(process.prepare(path), layers=list(layers.values()))

    tally = pictures.Tally()
    used: list[str] = []
    with ExitStack() as stack, _naming(out):
        spools = {name: _Spool(name, stack.enter_context(tempfile.TemporaryFile(dir=out.parent))) for name in layers}

        def collect(path: Path, found: Any) -> pictures.Row:
            for name, key in layers.items():
                require_finite(found[key], path, f"values of {name}")
                spools[name].require_shape(path, found[key][0])
            for name, key in layers.items():
                spools[name].add(found[key][0])
            used.append(str(path))
            shapes = {name: list(spool.shape) for name, spool in spools.items()}
            return {"shapes": shapes, "out": str(out)}

        is_json = output_format is Format.JSON
        rows = tally.watch(pictures.work_through(paths, "computing features", compute, collect, are_shown=is_json))
        if is_json:
            write_json_list(rows)
        else:
            deque(rows, maxlen=0)
        if used:
            _write(out, {name: spool.read() for name, spool in spools.items()}, used, force)
    if used and not is_json:
        shapes = [(name, "x".join(map(str, (len(used), *spool.shape)))) for name, spool in spools.items()]
        console.write_table(("layer", "shape NxCxHxW#"), shapes, f"{out}: {len(used)} of {len(paths)} pictures")
    raise typer.Exit(tally.settle())


class _Spool:
    """The values of one layer on the disk until all pictures are through, so that memory does not grow with them."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._file = file
        self._count = 0
        self.shape: tuple[int, ...] = ()

    def require_shape(self, path: Path, values: NDArray[Any]) -> None:
        """Raise InputError for a picture whose values have not the shape of the first one's."""
        if self._count and values.shape != self.shape:
            raise InputError(
                f"{path}: expected {self._name} to have the first picture's shape {self.shape}, got {values.shape}; "
                "this model's processor does not crop, so pictures of different sizes go into files of their own"
            )

    def add(self, values: NDArray[Any]) -> None:
        """Add one picture's values, (C, H, W) or (C,) float32."""
        self.shape = values.shape
        self._file.write(values.tobytes())
        self._count += 1

    def read(self) -> NDArray[Any]:
        """Return all of them, (N, C, H, W) or (N, C), as they lie on the disk."""
        import numpy as np

        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(self._count, *self.shape))


@contextmanager
def _naming(out: Path) -> Iterator[None]:
    """Have a failure to write what will go into `out` say so."""
    try:
        yield
    except (MissingError, BrokenPipeError):  # of another file; the reader of stdout has gone
        raise
    except OSError as error:
        if error.filename == console.STDOUT:
            raise
        raise FormatError(f"{out}: cannot be written ({error.strerror or error}); nothing was changed") from error


def _write(out: Path, arrays: dict[str, NDArray[Any]], names: list[str], force: bool) -> None:
    import numpy as np

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
