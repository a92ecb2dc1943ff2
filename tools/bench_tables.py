"""What the benchmarks measured, as Markdown tables and lines for people."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from minimobile.comparison.bench import QUANTIZED_RIVALS, Timing
from minimobile.comparison.photograph import PhotographTimes


def float_table(results: Mapping[tuple[str, int], list[Timing]]) -> str:
    """Return a Markdown table: milliseconds (`Timing.time`) of everyone, and our ratio to the fastest float32 rival."""
    names = [timing.name for timing in next(iter(results.values()))]
    lines = ["| network | threads | " + " | ".join(names) + " | ratio |", "|---" * (len(names) + 3) + "|"]
    ratios = []
    for (case, threads), timings in results.items():
        ratios.append(timings[0].time / best_rival(timings))
        times = " | ".join(f"{timing.time:.2f}" for timing in timings)
        lines.append(f"| {case} | {threads} | {times} | {ratios[-1]:.2f} |")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return "\n".join(lines) + f"\n\nGeometric mean of the ratios: {mean:.2f}"


def best_rival(timings: list[Timing]) -> float:
    """Return the time of the fastest of the float32 rivals."""
    return min(timing.time for timing in timings[1:] if not timing.name.endswith("bf16"))


def quantized_table(results: Mapping[tuple[str, int], list[Timing]]) -> str:
    """Return a Markdown table of quantised files: milliseconds (`Timing.time`), ratios to LiteRT and the fastest."""
    names = ("minimobile", *QUANTIZED_RIVALS, "minimobile float32")
    heads = ["file", "threads", *names, "of LiteRT", "of the fastest"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    ratios = []
    for (case, threads), timings in results.items():
        times = {timing.name: timing.time for timing in timings}
        ours, litert = times["minimobile"], times["litert"]
        ratios.append(ours / litert)
        fastest = min(times[name] for name in QUANTIZED_RIVALS if name in times)
        cells = " | ".join(f"{times[name]:.3f}" if name in times else "" for name in names)
        lines.append(f"| {case} | {threads} | {cells} | {ratios[-1]:.2f} | {ours / fastest:.2f} |")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return "\n".join(lines) + f"\n\nGeometric mean of the ratios to LiteRT: {mean:.2f}"


def pipeline_table(rates: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table: pictures a second, and ours over the fastest of the others."""
    names = list(next(iter(rates.values())))
    lines = ["| model | " + " | ".join(names) + " | ratio |", "|---" * (len(names) + 2) + "|"]
    for model, (ours, *others) in ((model, row.values()) for model, row in rates.items()):
        found = " | ".join(f"{rate:.0f}" for rate in (ours, *others))
        ratio = f"{ours / max(others):.2f}" if others else ""
        lines.append(f"| {model} | {found} | {ratio} |")
    return "\n".join(lines)


def photograph_table(results: Mapping[tuple[str, int], PhotographTimes]) -> str:
    """Return a Markdown table: means over photographs of milliseconds, our ratios to the fastest, what ours are of."""
    names = list(dict.fromkeys(name for found in results.values() for name in found.whole))
    heads = ["model", "threads", *names, "ratio", "median", "decoding", "network", "rest"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (model, threads), found in results.items():
        means = found.means
        times = " | ".join(f"{means[name]:.2f}" if name in means else "" for name in names)
        parts = (found.ratio, found.median_ratio, *map(statistics.fmean, (found.decoding, found.network)), found.rest)
        lines.append(f"| {model} | {threads} | {times} | " + " | ".join(f"{part:.2f}" for part in parts) + " |")
    return "\n".join(lines)


def starts_table(seconds: dict[str, list[float]]) -> str:
    """Return a Markdown table: seconds of whole processes, minimum and median."""
    rows = [f"| {title} | {min(found):.2f} | {statistics.median(found):.2f} |" for title, found in seconds.items()]
    return "\n".join(["| process | minimum | median |", "|---|---|---|", *rows])


def lines_of(found: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Return a line for each row of figures, of which `unit` says how one is written."""
    return "\n".join(
        f"{title}: " + ", ".join(f"{name} {unit.format(figure)}" for name, figure in row.items())
        for title, row in found.items()
    )


def layer_lines(found: Mapping[str, Sequence[Mapping[str, Any]]], threads: int) -> str:
    """Return the steps of networks, a line for each: its kernel, output, time, rate and share of the machine's."""
    lines = []
    for case, steps in found.items():
        lines.append(f"{case}: {sum(step['microseconds'] for step in steps) / 1e3:.2f} ms")
        for step in steps:
            shared = ""
            if threads > 1:
                parts = " + ".join(map(str, step["parts"]))
                shared = f"  {threads} threads x {step['speedup']:.2f}, {parts} parts"
            lines.append(
                f"  {step['name']:34} {step['kernel']:34} {step['output']!s:22} {step['microseconds']:8.1f} us "
                f"{step['gflops']:6.1f} GFLOP/s {step['share']:4.0%}{shared}"
            )
    return "\n".join(lines)
