"""Runs a quantised program: the entry from Python into the compiled kernels of bytes."""

from __future__ import annotations

from typing import Any

from numba import from_dtype, int8, int32, int64, types, uint8

from minimobile_kernels._jit import entry
from minimobile_kernels.quantized.conv2d import CONV2D_SUMS, conv2d
from minimobile_kernels.quantized.depthwise import DEPTHWISE_SUMS, depthwise_conv2d
from minimobile_kernels.quantized.layout import look_up, pack, pad, split, unpack
from minimobile_kernels.quantized.pooling import average_pool2d, mean
from minimobile_kernels.quantized.quantize import quantize
from minimobile_kernels.quantized.resize import resize_bilinear
from minimobile_kernels.quantized.scores import argmax, softmax
from minimobile_kernels.quantized.step import KINDS, STEP
from minimobile_kernels.quantized.sums import add
from minimobile_kernels.sync import begin, claim, end, finish, wait

(
    CONV2D, DEPTHWISE_CONV2D, AVERAGE_POOL2D, MEAN, ADD, RESIZE_BILINEAR, PAD, LOOK_UP, SOFTMAX, ARGMAX, QUANTIZE,
    PACK, SPLIT, UNPACK,
) = range(len(KINDS))  # fmt: skip
TILE_SUMS = max(CONV2D_SUMS, DEPTHWISE_SUMS)  # int32 of one thread


def _read(element: Any, aligned: bool = True) -> Any:
    return types.Array(element, 1, "C", readonly=True, aligned=aligned)


@entry(
    _read(from_dtype(STEP), aligned=False), _read(uint8), _read(int8), _read(uint8), _read(int32),
    _read(int64), uint8[::1], uint8[::1], int32[::1], int64[::1], int64[::1], int64, int64,
)  # fmt: skip
def run(
    steps: Any, image: Any, weights: Any, tables: Any, scales: Any, taps: Any, arena: Any, result: Any,
    sums: Any, control: Any, bell: Any, thread: int, threads: int,
) -> None:  # fmt: skip
    """Run a quantised program, alone or together with other threads, as `minimobile_kernels.machine.run` does.

    Shapes: steps (S) of `step.STEP`; image, tables, arena, result: bytes; sums: threads * TILE_SUMS int32;
    control and bell as for that.
    """
    begin(bell, thread, threads)
    place = thread * TILE_SUMS
    for index in range(steps.shape[0]):
        step = steps[index]
        kind = step.kind
        parts = step.parts if threads > 1 else 1
        part = claim(control, index, parts, thread, threads) if threads > 1 else 0
        while part < parts:
            if kind == CONV2D:
                conv2d(step, arena, weights, scales, taps, arena, sums, part, parts, place)
            elif kind == DEPTHWISE_CONV2D:
                depthwise_conv2d(step, weights, tables, scales, taps, arena, sums, part, parts, place)
            elif kind == AVERAGE_POOL2D:
                average_pool2d(step, arena, part, parts)
            elif kind == MEAN:
                mean(step, scales, arena, sums, part, parts, place)
            elif kind == ADD:
                add(step, scales, arena, part, parts)
            elif kind == PACK:
                pack(step, image, arena, part, parts)
            elif kind == QUANTIZE:
                quantize(step, image, scales, arena, part, parts)
            elif kind == SPLIT:
                split(step, image, arena, part, parts)
            elif kind == UNPACK:
                unpack(step, arena, result, part, parts)
            elif kind == RESIZE_BILINEAR:
                resize_bilinear(step, scales, arena, part, parts)
            elif kind == PAD:
                pad(step, arena, part, parts)
            elif kind == LOOK_UP:
                look_up(step, tables, arena, part, parts)
            elif kind == SOFTMAX:
                softmax(step, scales, arena, part, parts)
            elif kind == ARGMAX:
                argmax(step, arena, result, part, parts)
            if threads == 1:
                break
            finish(control, index, thread, threads)
            part = claim(control, index, parts, thread, threads)
        if threads > 1:
            wait(control, index, parts, threads)
    end(bell, thread)
