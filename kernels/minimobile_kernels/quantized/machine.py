"""Runs a quantised program: what `entries.run_quantized` is in compiled code."""

from __future__ import annotations

from typing import Any

from minimobile_kernels.crew import begin, end
from minimobile_kernels.quantized.constants import SUM_BYTES
from minimobile_kernels.quantized.conv2d import conv2d
from minimobile_kernels.quantized.depthwise import depthwise_conv2d
from minimobile_kernels.quantized.layout import look_up, pack, pad, split, unpack
from minimobile_kernels.quantized.pooling import average_pool2d, mean
from minimobile_kernels.quantized.quantize import quantize
from minimobile_kernels.quantized.resize import resize_bilinear
from minimobile_kernels.quantized.scores import argmax, softmax
from minimobile_kernels.quantized.step import KINDS, Arrays
from minimobile_kernels.quantized.sums import add
from minimobile_kernels.sync import claim, finish, wait

(
    CONV2D, DEPTHWISE_CONV2D, AVERAGE_POOL2D, MEAN, ADD, RESIZE_BILINEAR, PAD, LOOK_UP, SOFTMAX, ARGMAX, QUANTIZE,
    PACK, SPLIT, UNPACK,
) = range(len(KINDS))  # fmt: skip


def run(
    steps: Any, image: Any, constants: Any, arena: Any, result: Any, control: Any, mailbox: Any, threads: int,
    thread: int,
) -> None:  # fmt: skip
    """Run a quantised program, alone or together with other threads, as `minimobile_kernels.machine.run` does.

    Shapes: steps (S) of `step.STEP`; image, constants, arena, result: bytes; control and mailbox as for that.
    """
    arrays = Arrays(image, constants, arena, result)
    begin(mailbox, thread, threads)
    for index in range(steps.shape[0]):
        step = steps[index]
        kind, sums = step.kind, step.sums + thread * SUM_BYTES
        parts = step.parts if threads > 1 else 1
        part = claim(control, index, parts, thread, threads) if threads > 1 else 0
        while part < parts:
            if kind == CONV2D:
                conv2d(step, arrays, part, parts, sums)
            elif kind == DEPTHWISE_CONV2D:
                depthwise_conv2d(step, arrays, part, parts, sums)
            elif kind == AVERAGE_POOL2D:
                average_pool2d(step, arrays, part, parts)
            elif kind == MEAN:
                mean(step, arrays, part, parts, sums)
            elif kind == ADD:
                add(step, arrays, part, parts)
            elif kind == PACK:
                pack(step, arrays, part, parts)
            elif kind == QUANTIZE:
                quantize(step, arrays, part, parts)
            elif kind == SPLIT:
                split(step, arrays, part, parts)
            elif kind == UNPACK:
                unpack(step, arrays, part, parts)
            elif kind == RESIZE_BILINEAR:
                resize_bilinear(step, arrays, part, parts)
            elif kind == PAD:
                pad(step, arrays, part, parts)
            elif kind == LOOK_UP:
                look_up(step, arrays, part, parts)
            elif kind == SOFTMAX:
                softmax(step, arrays, part, parts)
            elif kind == ARGMAX:
                argmax(step, arrays, part, parts)
            if threads == 1:
                break
            finish(control, index, thread, threads)
            part = claim(control, index, parts, thread, threads)
        if threads > 1:
            wait(control, index, parts, threads)
    end(mailbox, thread, threads)
