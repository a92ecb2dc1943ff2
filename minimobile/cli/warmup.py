"""`minimobile warmup`: compile the kernels now rather than at the first picture."""

from __future__ import annotations

import time

from minimobile.cli import console


def warmup() -> None:
    """Compile the kernels now rather than at the first picture.

    The machine code is kept on disk, for this processor and this version.
    """
    from minimobile import engine

    start = time.perf_counter()
    was_ready = engine.is_compiled()
    if not was_ready:
        console.note("note: compiling the kernels for this processor")
    engine.warm_up()
    state = "were ready" if was_ready else "are compiled"
    console.write_text(f"The kernels {state}, after {time.perf_counter() - start:.1f} s, in {engine.cache_directory()}")
