"""`minimobile warmup`: compile the kernels now rather than at the first picture."""

from __future__ import annotations

import time

from minimobile.cli import console


def warmup() -> None:
    """Compile the kernels now rather than at the first picture.

    Those for floats, for quantised networks, for detections, for masks and for pictures; the machine code is kept on
    disk, for this processor and version.
    """
    from minimobile.execution import detection, engine
    from minimobile.imaging import resampling
    from minimobile.quantized import engine as quantized_engine
    from minimobile_kernels import preparation
    from minimobile_kernels.kernel_cache import cache_directory

    start = time.perf_counter()
    was_ready = all([engine.is_compiled(), quantized_engine.is_ready(), detection.is_ready(), resampling.is_ready()])
    if not was_ready:
        console.note("note: compiling the kernels for this processor")
        preparation.prepare_all()
    engine.warm_up()
    quantized_engine.warm_up()
    detection.warm_up()
    resampling.warm_up()
    state = "were ready" if was_ready else "are compiled"
    place = "no process after this one has them"
    if engine.is_kept() and quantized_engine.is_kept():
        place = f"in {cache_directory()}"
    console.write_text(f"The kernels {state}, after {time.perf_counter() - start:.1f} s, {place}")
