"""The largest of neighbouring numbers, a vector at a time."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from minimobile_kernels._jit import compiled
from minimobile_kernels.simd import element_pointer

WIDTH = 16  # numbers in a vector, of floats or of bytes: COCO has 90 classes, VOC has 20
_ELEMENTS = {types.float32: ir.FloatType(), types.uint8: ir.IntType(8)}


@compiled
def largest(values: Any, start: int, count: int) -> Any:
    """Return the largest of `count` values from `start` on, of 0 and -0 either one.

    Shapes: values, of one dimension, float32 without NaN or uint8.
    """
    if count >= WIDTH:
        return _largest_of_vectors(values, start, count)
    best = values[start]
    for place in range(start + 1, start + count):
        best = max(best, values[place])
    return best


@intrinsic
def _largest_of_vectors(typing_context, values, start, count):  # type: ignore[no-untyped-def]
    """_largest_of_vectors(values, start, count): the same of a vector or more; the last one begins where it must."""
    element = _ELEMENTS[values.dtype]
    vector = ir.VectorType(element, WIDTH)

    def larger(builder: Any, one: Any, other: Any) -> Any:
        if element == ir.FloatType():
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)
        return builder.select(builder.icmp_unsigned(">", one, other), one, other)

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, start, count = arguments
        index = start.type

        def load(offset: Any) -> Any:
            place = builder.add(start, offset)
            pointer = element_pointer(builder, context, signature.args[0], array, place)
            return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=1)

        last = builder.sub(count, index(WIDTH))
        entry, body, done = builder.block, *(builder.append_basic_block(name) for name in ("vectors", "rest"))
        first = load(last)
        builder.branch(body)
        builder.position_at_end(body)
        offset, best = builder.phi(index), builder.phi(vector)
        found = larger(builder, best, load(offset))
        following = builder.add(offset, index(WIDTH))
        for phi, before, after in ((offset, index(0), following), (best, first, found)):
            phi.add_incoming(before, entry)
            phi.add_incoming(after, body)
        builder.cbranch(builder.icmp_signed("<", following, last), body, done)
        builder.position_at_end(done)
        span = WIDTH
        while span > 1:
            span //= 2
            order = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [(lane + span) % WIDTH for lane in range(WIDTH)])
            found = larger(builder, found, builder.shuffle_vector(found, ir.Constant(vector, ir.Undefined), order))
        return builder.extract_element(found, ir.IntType(32)(0))

    return values.dtype(values, types.int64, types.int64), emit
