"""The names by which the embedded models are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minimobile.errors import FormatError

DEMOS = {"demo:digits": "digits.h5", "demo:scenes": "scenes.h5", "demo:boxes": "boxes.h5"}


@contextmanager
def open_source(source: str | Path | None) -> Iterator[str | Path]:
    """Yield a path or a hub id: the file of an embedded model, or what is given. Raises FormatError for neither."""
    if not isinstance(source, str | Path) or str(source) == "":
        raise FormatError(f"source: expected a path, a hub id or one of {', '.join(DEMOS)}, got {source!r}")
    if isinstance(source, str) and source.startswith("demo:"):
        if source not in DEMOS:
            raise FormatError(f"{source}: expected one of {', '.join(DEMOS)}")
        from importlib import resources

        with resources.as_file(resources.files("minimobile.demo") / DEMOS[source]) as path:
            yield path
    else:
        yield source
