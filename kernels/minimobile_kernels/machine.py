"""Runs a program: what `entries.run` is in compiled code."""

from __future__ import annotations

from typing import Any

from minimobile_kernels.conv2d import conv2d
from minimobile_kernels.crew import begin, end
from minimobile_kernels.depthwise import depthwise_conv2d
from minimobile_kernels.inverted_residual import Kept, inverted_residual
from minimobile_kernels.maps import activation, add, concatenate, fake_quantize, pack_pixels
from minimobile_kernels.pointwise import pointwise_conv2d
from minimobile_kernels.pooling import average_pool2d
from minimobile_kernels.resize import resize_bilinear
from minimobile_kernels.separable import separable_conv2d
from minimobile_kernels.step import KINDS, Arrays
from minimobile_kernels.sync import claim, finish, wait

(CONV2D, DEPTHWISE_CONV2D, POINTWISE_CONV2D, AVERAGE_POOL2D, RESIZE_BILINEAR, ADD, CONCATENATE, ACTIVATION,
 FAKE_QUANTIZE, PACK_PIXELS) = range(len(KINDS))  # fmt: skip


def run(
    steps: Any, pixels: Any, weights: Any, arena: Any, taps: Any, control: Any, mailbox: Any, threads: int, thread: int
) -> None:  # fmt: skip
    """Run a program, alone or together with other threads that make the same call.

    A step is cut into parts; each thread takes the next part that nobody has taken, and goes on to the next step when
    all are done. So a thread that comes late, or never, costs nothing but its help.

    Shapes: steps (S) of `step.STEP`; pixels, weights, arena: one-dimensional float32; taps: one-dimensional int64;
    control: S * threads * `step.ENTRIES` int64 zeros, shared by the threads of one call (any one where there is one
    thread); mailbox: that of the helpers (`mailbox.make_mailbox`), or any where there is one thread.
    """
    # `quantized.machine.run` has this loop too. One loop for both, given what does a part as an argument or in a
    # closure, was tried: Numba then compiles the kernels by themselves and again with the loop, 15 s instead of 7.4,
    # and cannot keep the machine code on disk.
    arrays = Arrays(pixels, weights, arena, taps)
    begin(mailbox, thread, threads)
    for index in range(steps.shape[0]):
        step = steps[index]
        if index > 0 and steps[index - 1].is_fused:
            continue  # done together with the step before
        last = index
        while steps[last].is_fused:
            last += 1
        kind = step.kind
        kept = Kept(-1, 0, 0)
        parts = steps[last].parts if threads > 1 else 1
        part = claim(control, index, parts, thread, threads) if threads > 1 else 0
        while part < parts:
            if last == index + 2:
                kept = inverted_residual(step, steps[index + 1], steps[last], arrays, part, parts, thread, kept)
            elif last == index + 1:
                separable_conv2d(step, steps[last], arrays, part, parts, thread)
            elif kind == POINTWISE_CONV2D:
                pointwise_conv2d(step, arrays, part, parts)
            elif kind == DEPTHWISE_CONV2D:
                depthwise_conv2d(step, arrays, part, parts)
            elif kind == CONV2D:
                conv2d(step, arrays, part, parts)
            elif kind == AVERAGE_POOL2D:
                average_pool2d(step, arrays, part, parts)
            elif kind == ADD:
                add(step, arrays, part, parts)
            elif kind == RESIZE_BILINEAR:
                resize_bilinear(step, arrays, part, parts)
            elif kind == CONCATENATE:
                concatenate(step, arrays, part, parts)
            elif kind == ACTIVATION:
                activation(step, arrays, part, parts)
            elif kind == FAKE_QUANTIZE:
                fake_quantize(step, arrays, part, parts)
            elif kind == PACK_PIXELS:
                pack_pixels(step, arrays, part, parts)
            if threads == 1:
                break
            finish(control, index, thread, threads)
            part = claim(control, index, parts, thread, threads)
        if threads > 1:
            wait(control, index, parts, threads)
    end(mailbox, thread, threads)
