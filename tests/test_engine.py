"""Whole networks: the compiled engine gives the bits of the definition, whatever the threads, batch and callers."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import assert_same_bits, open_runner, random_image, random_weights

import minimobile as mm
from minimobile.errors import InputError
from minimobile.execution.runner import RunOptions
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

V1_WINDOW = MobileNetV1Config(depth_multiplier=0.25, pool_size=2)
NETWORKS = {
    "v1": (mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.25), "classification"), (65, 50)),
    "v1 output stride 8": (mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.25, output_stride=8)), (48, 64)),
    "v1 window": (mobilenet_v1.build(V1_WINDOW, "classification"), (96, 97)),
    "v2": (mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35), "classification"), (64, 47)),
    "v2 silu": (mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35, hidden_act="silu")), (33, 32)),
    "v2 pytorch": (mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.75, tf_padding=False)), (40, 64)),
    "v2 other stem": (
        mobilenet_v2.build(MobileNetV2Config(first_layer_is_expansion=False, expand_ratio=3, num_channels=5)),
        (32, 35),
    ),
    "deeplab": (deeplab.build(MobileNetV2Config(depth_multiplier=0.5, output_stride=8, num_labels=21)), (65, 49)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_equals_definition_in_every_layer(name):
    graph, size = NETWORKS[name]
    weights = random_weights(graph)
    image = random_image((2, graph.input_channels, *size))
    layers = [*graph.outputs, *graph.hidden_states]
    found = open_runner(graph, weights).run(image, layers)
    defined = open_runner(graph, weights, engine="reference").run(image, layers)
    for layer in layers:
        assert_same_bits(found[layer], defined[layer], f"{name}, {layer}")


def test_a_program_of_one_step_runs():
    graph, size = NETWORKS["v1"]
    weights, image = random_weights(graph), random_image((1, graph.input_channels, *size))
    runners = [open_runner(graph, weights), open_runner(graph, weights, engine="reference")]
    found, expected = (runner.run(image, ("conv_stem",))["conv_stem"] for runner in runners)
    assert_same_bits(found, expected, "conv_stem")


@pytest.fixture(scope="module")
def network():
    graph, size = NETWORKS["v2"]
    weights = random_weights(graph)
    images = random_image((6, 3, *size), seed=5)
    return graph, weights, images, open_runner(graph, weights, num_threads=1).run(images, graph.outputs)["classifier"]


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_bits_do_not_depend_on_the_number_of_threads(network, threads):
    graph, weights, images, expected = network
    engine = open_runner(graph, weights, num_threads=threads)
    for _ in range(5):
        assert_same_bits(engine.run(images, graph.outputs)["classifier"], expected, f"{threads} threads")


def test_bits_do_not_depend_on_the_batch_or_the_place_in_it(network):
    graph, weights, images, expected = network
    engine = open_runner(graph, weights)
    for first, last in [(0, 1), (1, 2), (5, 6), (2, 5)]:
        found = engine.run(images[first:last], graph.outputs)["classifier"]
        assert_same_bits(found, expected[first:last], f"images {first} to {last}")
    backwards = engine.run(images[::-1], graph.outputs)["classifier"]
    assert_same_bits(backwards[::-1].copy(), expected, "reversed batch")


def test_many_callers_at_once(network):
    graph, weights, images, expected = network
    engine = open_runner(graph, weights, num_threads=2)

    def call(index):
        first = index % 6
        return first, engine.run(images[first : first + 1 + index % 2], graph.outputs)["classifier"]

    with ThreadPoolExecutor(8) as pool:
        for first, found in pool.map(call, range(200)):
            assert_same_bits(found, expected[first : first + len(found)], f"caller of image {first}")


def test_other_threads_run_while_the_engine_computes():
    graph, _ = NETWORKS["v1"]
    engine = open_runner(graph, random_weights(graph), num_threads=1)
    image = random_image((64, 3, 224, 224))
    engine.run(image, graph.outputs)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.wait(0.001):
            ticks.append(1)

    ticker = threading.Thread(target=tick)
    ticker.start()
    engine.run(image, graph.outputs)
    stop.set()
    ticker.join()
    assert len(ticks) >= 3  # a call that held the interpreter's lock would let none through


def test_channels_last_is_the_same_network(network):
    graph, weights, images, _ = network
    layers = [*graph.outputs, "layer.4"]
    first = open_runner(graph, weights).run(images, layers)
    last = open_runner(graph, weights).run(images.transpose(0, 2, 3, 1), layers, "channels_last")
    for layer in layers:
        assert_same_bits(last[layer].transpose(0, 3, 1, 2).copy(), first[layer], layer)


def test_weights_are_packed_twice_at_most(network):
    graph, weights, images, expected = network
    runner = open_runner(graph, weights)
    assert_same_bits(runner.run(images[:1], graph.outputs)["classifier"], expected[:1], "classifier")
    sums = [node.name for node in graph.nodes if node.name.endswith(".convolution")]
    for name in sums:
        runner.run(images[:1, :, :8, :8], (name,))
    size = sum(array.nbytes for name, array in weights.items() if array.ndim > 1)
    assert sum(packed.values.nbytes for packed in runner._packed) < 4 * size  # folded; then folded and plain


def test_nan_passes_through(network):
    graph, weights, images, expected = network
    spoilt = images.copy()
    spoilt[1, 0, 10, 10] = np.nan
    found = open_runner(graph, weights).run(spoilt, graph.outputs)["classifier"]
    assert np.isnan(found[1]).all()
    assert_same_bits(np.delete(found, 1, 0), np.delete(expected, 1, 0), "the other images")


def test_results_are_the_callers_own(network):
    graph, weights, images, expected = network
    engine = open_runner(graph, weights)
    first = engine.run(images, graph.outputs)["classifier"]
    first[:] = -1
    assert_same_bits(engine.run(images, graph.outputs)["classifier"], expected, "second call")


def test_float64_is_the_truth_of_float32(network):
    graph, weights, images, expected = network
    truth = open_runner(graph, weights, engine="reference", dtype="float64").run(images, graph.outputs)["classifier"]
    assert truth.dtype == np.float64
    assert np.abs(expected - truth).max() < 3e-6 * np.abs(truth).max()


def _run_in_child(engine, graph, image, expected):
    found = engine.run(image, graph.outputs)["classifier"]
    os._exit(0 if np.array_equal(found, expected) else 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")  # Python warns of forking beside threads: that is what is tested
def test_a_forked_child_computes_too(network):
    graph, weights, images, expected = network
    engine = open_runner(graph, weights, num_threads=2)
    engine.run(images, graph.outputs)
    child = multiprocessing.get_context("fork").Process(
        target=_run_in_child, args=(engine, graph, images[:1], expected[:1])
    )
    child.start()
    child.join(300)
    assert child.exitcode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "fast"}, "engine: expected one of compiled, reference, got 'fast'"),
        ({"dtype": "float16"}, "dtype: expected one of float32, float64, got 'float16'"),
        ({"dtype": "float64"}, "use engine='reference'"),
        ({"num_threads": 0}, "num_threads: expected a whole number from 1 to 1024, got 0"),
        ({"num_threads": "many"}, "num_threads: expected"),
        ({"num_threads": True}, "num_threads: expected"),
        ({"bytes_of": "up"}, "bytes_of: expected one of litert, .*, onnxruntime-uint8, got 'up'"),
        ({"quantized": True, "dequantize": True}, "expected one of quantized and dequantize, got both"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(InputError, match=message):
        RunOptions(**options)
    if options.get("dtype") != "float16":  # which a model computes in float32, and says so
        with pytest.raises(InputError, match=message):
            mm.load("demo:digits", **options)


_OTHER_CPU = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from cases import open_runner, random_image, random_weights
from minimobile_kernels.host import LANES
from test_engine import NETWORKS
for name in ("v1", "v2", "deeplab"):
    graph, size = NETWORKS[name]
    output = open_runner(graph, random_weights(graph)).run(random_image((1, 3, *size)), graph.outputs[-1:])
    np.save(sys.argv[2] + "/" + name, output[graph.outputs[-1]])
print(LANES)
"""


@pytest.mark.slow
def test_code_for_an_older_cpu_gives_the_same_bits(tmp_path):
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2"}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", _OTHER_CPU, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "8"
    for name in ("v1", "v2", "deeplab"):
        graph, size = NETWORKS[name]
        here = open_runner(graph, random_weights(graph)).run(random_image((1, 3, *size)), graph.outputs[-1:])
        assert_same_bits(np.load(tmp_path / f"{name}.npy"), here[graph.outputs[-1]], name)


def test_pixels_may_be_read_only_or_lie_at_an_odd_address():
    graph = mobilenet_v1.build(V1_WINDOW)
    engine = open_runner(graph, random_weights(graph))
    x = np.random.default_rng(0).standard_normal((1, 3, 33, 40)).astype(np.float32)
    expected = engine.run(x, ["pooler"])["pooler"]
    odd = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    x.flags.writeable = False
    assert not odd.flags.aligned and not odd.flags.writeable
    assert_same_bits(engine.run(x, ["pooler"])["pooler"], expected, "read-only pixels")
    assert_same_bits(engine.run(odd, ["pooler"])["pooler"], expected, "pixels at an odd address")
