"""A value written out as its sum, as `minimobile trace --at` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minimobile.cli import console

if TYPE_CHECKING:
    from minimobile.operations.written_out import Scalar, Term
    from minimobile.tracing.explanation import Explanation, Unfolded

SHORT_BLOCK, EDGE = 12, 3  # longer blocks are shown by this many of their first and last terms


def write_explanation(explanation: Explanation, every_term: bool) -> None:
    """Write terms, stages and the value before folding to stdout; of long blocks the ends, or `every_term`."""
    row, column, channel = explanation.position
    count = len(explanation.terms)
    console.write_text(
        f"{explanation.layer} ({_sizes(explanation.shape)}) at row {row}, column {column}, channel {channel}"
    )
    blocks = f", in blocks of {explanation.block}" if count > explanation.block else ""
    console.write_text(
        f"{explanation.operation} of {explanation.source} ({_sizes(explanation.source_shape)}): "
        f"{count} term{'s' * (count > 1)}{blocks}"
    )
    _write_terms(explanation.terms, explanation.block, every_term)
    console.write_text("")
    rows = [
        (stage.name, "" if stage.operand is None else stage.operand, stage.value, _bits(stage.value))
        for stage in explanation.stages
    ]
    console.write_table(("then", "number#", "value#", "bits#"), rows)
    if explanation.unfolded is not None:
        console.write_text("")
        _write_unfolded(explanation.unfolded)
    console.write_text("")
    value, computed = explanation.value, explanation.computed
    console.write_text(f"written out: {value!s} ({_bits(value)}); the engine: {computed!s} ({_bits(computed)})")


def _write_terms(terms: Sequence[Term], size: int, every_term: bool) -> None:
    has_weights = terms[0].weight is not None
    rows: list[tuple[object, ...]] = []
    for first in range(0, len(terms), size):
        block = terms[first : first + size]
        left_out = 0 if every_term or len(block) <= SHORT_BLOCK else len(block) - 2 * EDGE
        rows += [_describe_term(term, has_weights) for term in block[: EDGE if left_out else None]]
        if left_out:
            rows.append(("...", "", f"{left_out} more", *[""] * (4 if has_weights else 2)))
            rows += [_describe_term(term, has_weights) for term in block[-EDGE:]]
    products = ("weight#", "product#") if has_weights else ()
    console.write_table(("ky,kx,c#", "y,x#", "pixel#", *products, "sum so far#", "bits#"), rows)


def _describe_term(term: Term, has_weights: bool) -> tuple[object, ...]:
    (ky, kx), (y, x, channel) = term.tap, term.position
    numbers: list[str] = ["outside" if term.pixel is None else f"{term.pixel:.5g}"]
    if has_weights:
        numbers += ["" if number is None else f"{number:.5g}" for number in (term.weight, term.product)]
    return f"{ky},{kx},{channel}", f"{y},{x}", *numbers, term.running, _bits(term.running)


def _write_unfolded(unfolded: Unfolded) -> None:
    rows: list[tuple[object, ...]] = [
        ("x: the convolution with the weights of the file", unfolded.convolved, _bits(unfolded.convolved)),
        ("mean", unfolded.mean, _bits(unfolded.mean)),
        ("scale", unfolded.scale, _bits(unfolded.scale)),
        ("variance", unfolded.variance, _bits(unfolded.variance)),
        ("epsilon", unfolded.epsilon, ""),
        ("shift", unfolded.shift, _bits(unfolded.shift)),
        ("(x - mean) * scale / sqrt(variance + epsilon) + shift", unfolded.normalized, _bits(unfolded.normalized)),
        (f"folded, as above: {unfolded.ulps} ulp away", unfolded.folded, _bits(unfolded.folded)),
    ]
    console.write_table(("before folding", "value#", "bits#"), rows)


def _bits(value: Scalar) -> str:
    from minimobile.tracing.explanation import bits

    return bits(value)


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
