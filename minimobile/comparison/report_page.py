"""A report of differences as one HTML page that can be attached to a bug report: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minimobile.comparison.worst_value import WorstValue
from minimobile.tables import Table, escape
from minimobile.tracing.explanation import Explanation, bits

EDGE = 16  # so many first and last terms of a long sum are shown
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; }
:root { color-scheme: light dark; }
h1, p { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6em 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: .15em .7em; font-weight: normal; vertical-align: top; }
th { border-bottom: 2px solid #888; }
th, td[style*="right"] { white-space: nowrap; }
td:last-child:not([style*="right"]) { min-width: 12em; }
.verdict { border-left: .4em solid #888; padding: .3em 1em; background: #8882; }
.sides { display: flex; flex-wrap: wrap; gap: 3em; }
@media (max-width: 40em) { body { font-size: 13px; margin: 1em auto; } th, td { padding: .15em .4em; } }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e8e8e8; } }
"""


def write_page(
    title: str,
    verdict: Sequence[str],
    sections: Mapping[str, Sequence[str]],
    compared: Mapping[str, object] | None = None,
) -> str:
    """Return the page: what was compared, the verdict in words, and sections of HTML under their headings."""
    of = "".join(f"<p>{escape(name)}: {escape(value)}</p>" for name, value in (compared or {}).items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{of}{write_verdict(verdict)}{write_sections(sections)}</body></html>\n"
    )


def write_verdict(verdict: Sequence[str]) -> str:
    """Return the verdict in words."""
    return f'<div class="verdict">{"".join(f"<p>{escape(line)}</p>" for line in verdict)}</div>'


def write_sections(sections: Mapping[str, Sequence[str]], level: int = 2) -> str:
    """Return sections of HTML under their headings; those without content are left out. Wide tables scroll."""
    parts = []
    for heading, content in sections.items():
        if content:
            parts.append(f"<h{level}>{escape(heading)}</h{level}>")
            parts += (f'<div class="wide">{part}</div>' for part in content)
    return "".join(parts)


def write_worst(worst: WorstValue) -> list[str]:
    """Return a value's two sums, side by side."""
    sums = [_write_sum("ours", worst.ours)]
    if worst.theirs is not None:
        weights = "weights" if worst.has_their_weights else "inputs, with our weights"
        sums.append(_write_sum(f"theirs: what their {weights} make of it", worst.theirs))
    return [f"<p>{escape(worst)}</p>", f'<div class="sides">{"".join(sums)}</div>']


def _write_sum(title: str, explanation: Explanation) -> str:
    rows: list[Sequence[object]] = []
    terms = explanation.terms
    for index, term in enumerate(terms):
        if EDGE <= index < len(terms) - EDGE:
            if index == EDGE:
                rows.append(("...", "", f"{len(terms) - 2 * EDGE} more", "", "", ""))
            continue
        (ky, kx), (y, x, channel) = term.tap, term.position
        pixel = "outside" if term.pixel is None else _number(term.pixel)
        numbers = ("" if number is None else _number(number) for number in (term.weight, term.product))
        rows.append((f"{ky},{kx},{channel}", f"{y},{x}", pixel, *numbers, _number(term.running)))
    sums = Table(("ky,kx,c#", "y,x#", "pixel#", "weight#", "product#", "sum so far#"), rows, title)
    stages: list[Sequence[object]] = [
        (stage.name, "" if stage.operand is None else _number(stage.operand), _number(stage.value), bits(stage.value))
        for stage in explanation.stages
    ]
    computed = explanation.computed
    stages.append(("found there", "", _number(computed), bits(computed)))
    after = Table(("then", "number#", "value#", "bits#"), stages)
    return f"<div>{sums.to_html()}{after.to_html()}</div>"


def _number(value: np.floating[Any] | float) -> str:
    return f"{value:.9g}"
