"""Timing: our engine beside other runtimes on one network, interleaved in one run, and ourselves step by step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.comparison.rivals import IN_INTEGERS, PACKAGES, Run, open_tflite, prepare, prepare_integers
from minimobile.comparison.sized_network import Shape, compared_outputs
from minimobile.errors import InputError
from minimobile.execution.arena import aligned_floats
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.packing import pack_weights
from minimobile.execution.program import compile_program, multiply_adds
from minimobile.execution.runner import RunOptions
from minimobile.execution.timing import SteppedProgram, run_steps
from minimobile.imaging.charts import Bar, draw_bars
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.operation import Weights
from minimobile_kernels.host import LANES
from minimobile_kernels.step import KINDS

RIVALS = (*PACKAGES, "openvino-bf16")
TURN = 15e-3  # seconds of calls in a row: what a turn finds cold is warm soon
APART = 8  # calls of a turn, at most, where there is a pause before each
LONGEST_PAUSE = 10_000  # milliseconds
LOOK, LOOKS = 12e-3, 20  # seconds of sleep in which this process shall take no time, and how often that is tried
CALLS = 3  # of a step in each round
TOGETHER = 1e-3  # seconds of one step again and again in one call, so that the call itself does not count
QUANTIZED_RIVALS = ("litert", *IN_INTEGERS)
INTEGER_AGREEMENT = 0.5  # relative to the largest output: other ranges and roundings, and the same network
AGREEMENT = 1e-3  # relative to the largest output: another float32 order of sums, and nothing worse
NameT = TypeVar("NameT", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one contestant at one number of threads, and its largest difference from our output.

    `pause` is how many milliseconds lie between two calls.
    """

    name: str
    num_threads: int
    minimum: float
    median: float
    difference: float
    pause: float = 0.0

    @property
    def time(self) -> float:
        """The milliseconds that count: the minimum of calls in a row; the median of calls apart, for caches are cold.

        How cold is chance, and no fault of a measurement.
        """
        return self.median if self.pause else self.minimum


def compare(
    graph: Graph,
    weights: Weights,
    shape: Shape,
    against: Sequence[str],
    num_threads: int,
    seconds: float = 4.0,
    pause: float = 0.0,
) -> list[Timing]:
    """Time one inference of `shape` (N, C, H, W) in turn by our engine and each rival, for about `seconds`.

    With a `pause` of up to 10,000 milliseconds the process sleeps before each call, as between a camera's pictures.
    Our time covers the whole call from NumPy array to NumPy array, as theirs does. A rival whose output differs from
    ours by more than rounding is refused: it would not be the same network (bf16 is there for the record).
    """
    _check_pause(pause)
    unknown = [name for name in against if name not in RIVALS]
    if unknown:
        raise InputError(f"against: expected some of {', '.join(RIVALS)}, got {unknown[0]!r}")
    runner = CompiledRunner(graph, weights, RunOptions(num_threads=num_threads))
    outputs = compared_outputs(graph)
    contestants: dict[str, Run] = {"minimobile": lambda x: list(runner.run(x, outputs).values())}
    contestants.update({name: prepare(name, graph, weights, shape, num_threads) for name in against})
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    differences: dict[str, float] = {}
    ours = contestants["minimobile"](x)
    for name, run in contestants.items():
        differences[name] = _difference(run(x), ours)
        if not differences[name] <= AGREEMENT and not name.endswith("bf16"):  # NaN, too
            raise InputError(
                f"{name}: expected our output within {AGREEMENT}, got a difference of {differences[name]:.2g}"
            )
    return _time({name: partial(run, x) for name, run in contestants.items()}, differences, num_threads, seconds, pause)


def compare_quantized(
    path: str | Path, against: Sequence[str], num_threads: int, seconds: float = 4.0, pause: float = 0.0
) -> list[Timing]:
    """Time a quantised file in turn: our integers, our floats of the same network, and rivals; `pause` as in `compare`.

    LiteRT runs the file with its default kernels, from the file's input tensor to its output tensor as we do, on the
    same random input; its difference is in steps of the output. ONNX Runtime and OpenVINO run the same network as ONNX
    Runtime's static quantiser has it, from pixel values to logits; they are left out where the file ends in classes or
    detections. Our floats go from pixel values to logits, or to classes where the file's output are classes. The
    differences of both are relative to the floats' largest output, and beyond `INTEGER_AGREEMENT` a rival is refused.
    """
    from minimobile.models.auto import load

    _check_pause(pause)
    unknown = [name for name in against if name not in QUANTIZED_RIVALS]
    if unknown:
        raise InputError(
            f"against: expected some of {', '.join(QUANTIZED_RIVALS)} for a quantised file, got {unknown[0]!r}"
        )
    ours: Any = load(path, num_threads=num_threads)
    if not ours.is_quantized:
        raise InputError(f"{path}: expected a quantised file, got a network of floats")
    floats: Any = load(path, dequantize=True, num_threads=num_threads)
    rng = np.random.default_rng(0)
    _, height, width, channels = shape = ours.quantized_input.shape
    pixels = rng.uniform(-1, 1, (1, channels, height, width)).astype(np.float32)
    x = rng.integers(0, 256, shape, np.uint8).view(np.int8 if ours.quantized_input.dtype == np.int8 else np.uint8)
    if ours.quantized_input.dtype == np.float32:
        x = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    found = ours.run_quantized(x)
    result = _choose_result(found)
    are_classes = result.dtype.kind == "i" and result.dtype.itemsize > 1

    def run_floats() -> Any:
        outputs = floats(pixels)
        if are_classes:
            floats.processor.post_process_semantic_segmentation(outputs, target_sizes=[(height, width)])
        return outputs

    contestants: dict[str, Callable[[], Any]] = {"minimobile": lambda: ours.run_quantized(x)}
    if not ours.own_outputs:  # the floats are those of the body alone
        contestants["minimobile float32"] = run_floats
    differences = dict.fromkeys(contestants, 0.0)
    if "litert" in against:
        run_litert = open_tflite(path, num_threads)
        contestants["litert"] = lambda: run_litert(x)
        differences["litert"] = float(np.abs(_choose_result(tuple(run_litert(x))).astype(np.float64) - result).max())
    if not are_classes and isinstance(found, np.ndarray):
        names = [name for name in against if name in IN_INTEGERS]
        runs = prepare_integers(names, floats.graph, floats.state_dict(), pixels.shape, num_threads)
        for name, run in runs.items():
            differences[name] = _difference(run(pixels), [run_floats().logits])
            if not differences[name] <= INTEGER_AGREEMENT:
                raise InputError(
                    f"{name}: expected the floats' output within {INTEGER_AGREEMENT}, got a difference of "
                    f"{differences[name]:.2g}"
                )
            contestants[name] = partial(run, pixels)
    return _time(contestants, differences, num_threads, seconds, pause)


def _check_pause(pause: float) -> None:
    if not 0 <= pause <= LONGEST_PAUSE:  # NaN, too
        raise InputError(f"pause: expected 0 to {LONGEST_PAUSE} milliseconds, got {pause}")


def _time(
    contestants: Mapping[str, Callable[[], Any]],
    differences: Mapping[str, float],
    num_threads: int,
    seconds: float,
    pause: float,
) -> list[Timing]:
    times = take_turns(contestants, seconds, pause=pause)
    return [
        Timing(name, num_threads, min(taken), float(np.median(taken)), differences[name], pause)
        for name, taken in times.items()
    ]


def _choose_result(results: Any) -> NDArray[Any]:
    """Return the output by which two runs of a file are compared: of a detector's four the scores."""
    if isinstance(results, np.ndarray):
        return results
    each = list(results.values() if isinstance(results, Mapping) else results)
    found: NDArray[Any] = each[2 if len(each) == 4 else 0]
    return found


def take_turns(
    contestants: Mapping[NameT, Callable[[], Any]], seconds: float, rounds: int = 5, pause: float = 0.0
) -> dict[NameT, list[float]]:
    """Return the milliseconds of calls, in turn, for about `seconds` and so many rounds at least.

    A turn is a few calls, in a row or with a `pause` in milliseconds before each. It begins when the threads of those
    before have gone to sleep, which wait for more work on the processors for a while, and its first call does not
    count, for its own are asleep.
    """
    times: dict[NameT, list[float]] = {name: [] for name in contestants}
    end = time.perf_counter() + seconds
    while rounds > 0 or time.perf_counter() < end:
        rounds -= 1
        for name, run in contestants.items():
            _settle()
            run()
            turn = time.perf_counter() + (APART * pause / 1e3 if pause else TURN)
            while True:
                if pause:
                    time.sleep(pause / 1e3)
                start = time.perf_counter()
                run()
                stop = time.perf_counter()
                times[name].append((stop - start) * 1e3)
                if stop > turn:
                    break
    return times


def _settle() -> None:
    """Wait until no thread of this process computes or waits spinning, or until it seems that one always will.

    Linux counts the time of another thread at the ticks of its clock, 100 to 1000 in a second: a look that is shorter
    than a tick mostly sees nothing of a thread that spins.
    """
    for _ in range(LOOKS):
        before = time.process_time()
        time.sleep(LOOK)
        if time.process_time() - before < LOOK / 4:
            return


def _difference(found: Sequence[NDArray[Any]], ours: Sequence[NDArray[Any]]) -> float:
    """Return the largest difference, relative to its output's largest value; runtimes may order outputs otherwise."""
    return max(min(_relative(other, own) for other in found if other.size == own.size) for own in ours)


def _relative(found: NDArray[Any], ours: NDArray[Any]) -> float:
    return float(np.abs(found.reshape(ours.shape) - ours).max() / (np.abs(ours).max() or 1))


def time_steps(
    graph: Graph, weights: Weights, shape: Shape, rounds: int = 20, num_threads: int = 1
) -> list[dict[str, Any]]:
    """Return a row per step of the program for one thread, run by itself a few times in each round: the minimum.

    Keys: name, kernel, output (N, H, W, C), microseconds, gflops (GFLOP/s), share (of `measure_peak`). Steps that are
    done together are one row. With `num_threads` above one also parts, into which the steps are cut for so many, and
    speedup, how many times faster they do them together, meeting at the end of each. One row are then the steps that
    are done together by the program for one thread or by that for so many.
    """
    alone = SteppedProgram(graph, weights, shape)
    program = SteppedProgram(graph, weights, shape, num_threads=num_threads) if num_threads > 1 else alone
    pixels = np.random.default_rng(0).uniform(-1, 1, int(np.prod(shape))).astype(np.float32)
    parts = _common_parts(alone, program)
    for part in parts:
        alone.run(part, pixels)
        program.run(part, pixels)
    peaks, taken = [], []
    for _ in range(rounds):  # each thing once in a while: a machine is slower in some seconds than in others
        peaks.append(measure_peak())
        taken.append([_time_part(alone, program, part, pixels, num_threads) for part in parts])
    fastest = np.min(taken, axis=0)
    rows = []
    for part, (seconds, one, several) in zip(parts, fastest, strict=True):
        steps = alone.steps(part)
        gflops = sum(multiply_adds(step) for step in steps) * 2e-9 / seconds
        rows.append(
            {
                "name": " + ".join(alone.names(part)),
                "kernel": " + ".join(KINDS[step["kind"]] for step in steps),
                "output": alone.output(part),
                "microseconds": seconds * 1e6,
                "gflops": gflops,
                "share": gflops / max(peaks),
            }
        )
        if num_threads > 1:
            cut = [int(step["parts"]) for step in program.steps(part) if not step["is_fused"]]
            rows[-1] |= {"parts": cut, "speedup": one / several}
    return rows


def _time_part(
    alone: SteppedProgram, program: SteppedProgram, part: slice, pixels: NDArray[np.float32], num_threads: int
) -> tuple[float, float, float]:
    """Return the seconds of a part alone, and again and again in one call on one thread and on all: minima of a few."""
    seconds = min(alone.run(part, pixels) for _ in range(CALLS))
    if num_threads == 1:
        return seconds, seconds, seconds
    times = max(1, round(TOGETHER / seconds))
    both = [(alone.run_together(part, pixels, times), program.run_together(part, pixels, times)) for _ in range(CALLS)]
    one, several = map(min, zip(*both, strict=True))
    return seconds, one, several


def _common_parts(*programs: SteppedProgram) -> list[slice]:
    """Return the parts at whose ends all programs of one graph have all maps so far: they do other steps together."""
    ends = sorted(set.intersection(*({part.stop for part in program.parts()} for program in programs)))
    return [slice(*pair) for pair in itertools.pairwise([0, *ends])]


def draw_steps(steps: Sequence[Mapping[str, Any]], title: str) -> Image.Image:
    """Return the rows of `time_steps` as bars: dark what the sums take at the core's peak, light the rest."""
    bars = [
        Bar(
            str(step["name"]),
            step["microseconds"],
            step["microseconds"] * step["share"],
            f"{step['microseconds']:.1f} us, {step['share']:.0%}",
        )
        for step in steps
    ]
    total = sum(bar.value for bar in bars)
    note = f"{total:.0f} us in all; dark: the limit, at the peak of a core in a register tile; %: its share of the time"
    return draw_bars(bars, title, note)


def measure_peak() -> float:
    """Return the GFLOP/s of one core in a register tile whose operands stay in the first-level cache."""
    channels, pixels, count = 128, 14 * 8, 64
    node = Node("peak", "pointwise_conv2d", ("map",), {}, {"weight": "w"})
    source = Node("map", "activation", (INPUT,), {"function": "linear"})
    graph = Graph((source, node), channels, ("peak",), {"w": (2 * LANES, channels, 1, 1)})
    packed = pack_weights(graph.nodes, {"w": np.ones((2 * LANES, channels, 1, 1), np.float32)})
    program = compile_program(graph, packed, (1, channels, 8, pixels // 8), is_channels_last=False)
    arena = aligned_floats(program.arena_size)
    image = np.ones(channels * pixels, np.float32)
    run_steps(program, program.steps, image, packed, arena)
    steps = np.repeat(program.steps[-1:], count)
    seconds = min(run_steps(program, steps, image, packed, arena) for _ in range(50))
    return 2e-9 * channels * pixels * 2 * LANES * count / seconds
