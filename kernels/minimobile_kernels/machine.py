"""Runs a program: the one entry from Python into compiled code."""

from __future__ import annotations

from typing import Any

from minimobile_kernels._jit import cache_path, entry, is_cached
from minimobile_kernels.conv2d import conv2d
from minimobile_kernels.depthwise import depthwise_conv2d
from minimobile_kernels.expanded import expanded_depthwise_conv2d
from minimobile_kernels.maps import activation, add, concatenate, pack_pixels
from minimobile_kernels.pointwise import pointwise_conv2d
from minimobile_kernels.pooling import average_pool2d
from minimobile_kernels.resize import resize_bilinear
from minimobile_kernels.step import KINDS
from minimobile_kernels.sync import meet

(CONV2D, DEPTHWISE_CONV2D, POINTWISE_CONV2D, AVERAGE_POOL2D, RESIZE_BILINEAR, ADD, CONCATENATE, ACTIVATION,
 PACK_PIXELS) = range(len(KINDS))  # fmt: skip


@entry
def run(steps: Any, pixels: Any, weights: Any, arena: Any, taps: Any, control: Any, thread: int, threads: int) -> bool:
    """Run this thread's part of every step; threads meet after each. False when a partner gave up.

    Shapes: steps (S) of `step.STEP`; pixels, weights, arena: one-dimensional float32; taps: one-dimensional int64;
    control: `sync.CONTROL_SIZE` int64 zeros, shared by the threads of one call.
    """
    meetings = 0
    for index in range(steps.shape[0]):
        step = steps[index]
        x = pixels if step.is_from_pixels else arena
        kind = step.kind
        if step.is_fused:
            following = steps[index + 1]
            expanded_depthwise_conv2d(step, following, x, weights, arena, taps, thread, threads)
        elif index > 0 and steps[index - 1].is_fused:
            continue  # done together with the step before
        elif kind == POINTWISE_CONV2D:
            pointwise_conv2d(step, x, weights, arena, taps, thread, threads)
        elif kind == DEPTHWISE_CONV2D:
            depthwise_conv2d(step, x, weights, arena, taps, thread, threads)
        elif kind == CONV2D:
            conv2d(step, x, weights, arena, taps, thread, threads)
        elif kind == AVERAGE_POOL2D:
            average_pool2d(step, x, weights, arena, taps, thread, threads)
        elif kind == ADD:
            add(step, x, weights, arena, taps, thread, threads)
        elif kind == RESIZE_BILINEAR:
            resize_bilinear(step, x, weights, arena, taps, thread, threads)
        elif kind == CONCATENATE:
            concatenate(step, x, weights, arena, taps, thread, threads)
        elif kind == ACTIVATION:
            activation(step, x, weights, arena, taps, thread, threads)
        elif kind == PACK_PIXELS:
            pack_pixels(step, x, weights, arena, taps, thread, threads)
        meetings += 1
        if threads > 1 and not meet(control, meetings * threads):
            return False
    return True


def is_compiled() -> bool:
    """Tell whether `run` is ready: compiled in this process, or kept on disk by an earlier one."""
    return is_cached(run)


def cache_directory() -> str:
    """Return the directory in which the machine code is kept."""
    return cache_path(run)
