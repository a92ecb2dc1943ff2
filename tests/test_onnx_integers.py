"""ONNX files of bytes and scales: both forms of ONNX Runtime's quantiser are networks of integers, and its bits."""

from __future__ import annotations

import itertools
import logging
import platform
import warnings
from typing import Any

import numpy as np
import pytest
from graph_writer import field
from onnx_exports import Export, run_with_values, write
from onnx_models import initializer, model, node, tiny_layers
from quantizable import DEEPLAB, V1, make
from quantized_models import FORMS, build, save

import minimobile as mm
from minimobile import formats
from minimobile.errors import MinimobileError
from minimobile.formats.matching.network import PICTURE
from minimobile.formats.onnx.expose import expose
from minimobile.formats.onnx.model import read_model
from minimobile.formats.onnx.onnx_file import read
from minimobile.models.conversion_report import list_facts
from minimobile.quantized.definitions import apply

CONTRIB = "com.microsoft"
UNSIGNED, SIGNED = np.uint8, np.int8


def write_integers(
    form: str, dtype: Any, per_channel: bool = False, pool: Any = None, is_moved: bool = False, **options: Any
) -> bytes:
    """Return a V1 of bytes as ONNX Runtime's quantiser writes it, clamps left to the bytes; scales from no data.

    QDQ: `pool` are the attributes of an AveragePool in the place of the mean; `is_moved` brings the picture to another
    zero point, which holds nothing below -1.
    """
    layers, _ = tiny_layers(folded=True, pads="strided")
    zero = dtype(np.iinfo(dtype).min)
    parts = [initializer("six", np.float32(6 / 255)), initializer("low", zero), initializer("none", np.int8(0))]
    parts += [initializer("wide", np.float32(0.05)), initializer("middle", dtype(int(zero) + 128))]
    parts.append(node("QuantizeLinear", ["pixels", "wide", "middle"], "picture"))
    names, grids, pads = {PICTURE: "picture"}, {"picture": ("wide", "middle")}, {}
    if is_moved:
        parts += [
            initializer("near", dtype(int(zero) + 20)),
            node("DequantizeLinear", ["picture", *grids["picture"]], "x"),
        ]
        parts.append(node("QuantizeLinear", ["x", "wide", "near"], "moved"))
        names, grids = {PICTURE: "moved"}, {"moved": ("wide", "near")}
    for layer in layers:
        source = names[layer.inputs[0]]
        if layer.op in ("activation", "pad"):  # the bytes clamp; zeros go to the convolution
            names[layer.name] = source
            pads[layer.name] = layer.attributes.get("padding")
            continue
        out, x, y = layer.name, grids[source], ("wide", "middle") if layer.op == "dense" else ("six", "low")
        names[out], grids[out] = out, y
        if layer.op == "reshape":
            parts.append(node("Flatten", [source], out, axis=1))
            continue
        attributes: dict[str, Any] = {}
        inputs = [source, *x]
        if layer.op == "average_pool2d":
            op, quantized, after = "GlobalAveragePool", "QLinearGlobalAveragePool", [*y]
        else:
            weight = layer.arrays["weight"]
            axes = tuple(range(1, weight.ndim)) if per_channel else None
            scale = (np.abs(weight).max(axes) / 127).astype(np.float32)
            shaped = scale.reshape(-1, *(1,) * (weight.ndim - 1)) if per_channel else scale
            steps = np.rint(weight / shaped).astype(np.int8)
            by_x = {"wide": np.float32(0.05), "six": np.float32(6 / 255)}[x[0]]
            bias = np.rint(layer.arrays["bias"] / (by_x * scale)).astype(np.int32)
            parts += [initializer(f"{out}.w", steps), initializer(f"{out}.b", bias)]
            parts += [initializer(f"{out}.s", scale), initializer(f"{out}.bs", np.float32(by_x * scale))]
            parts.append(initializer(f"{out}.z", np.zeros(scale.shape, np.int8)))
            parts.append(initializer(f"{out}.bz", np.zeros(scale.shape, np.int32)))
            inputs += [f"{out}.w", f"{out}.s", f"{out}.z"]
            if layer.op == "dense":
                op, quantized, after, attributes = "Gemm", "QGemm", [f"{out}.b", *y], {"transB": 1}
            else:
                op, quantized, after = "Conv", "QLinearConv", [*y, f"{out}.b"]
                padding = pads.get(layer.inputs[0]) or layer.attributes["padding"]
                attributes = {"strides": [layer.attributes["stride"]] * 2}
                attributes["group"] = len(weight) if layer.op == "depthwise_conv2d" else 1
                if padding in ("SAME", "VALID"):
                    attributes["auto_pad"] = "SAME_UPPER" if padding == "SAME" else "VALID"
                else:
                    attributes["pads"] = [*(pair[0] for pair in padding), *(pair[1] for pair in padding)]
        if form == "QOperator":
            domain = "" if op == "Conv" else CONTRIB
            parts.append(node(quantized, [*inputs, *after], out, domain=domain, label=f"{out}_quant", **attributes))
            continue
        parts.append(node("DequantizeLinear", [source, *x], f"{out}/x"))
        plain = [f"{out}/x"]
        for role, grid in (("w", ("s", "z")), ("b", ("bs", "bz"))) if op != "GlobalAveragePool" else ():
            scales = [f"{out}.{name}" for name in grid]
            parts.append(node("DequantizeLinear", [f"{out}.{role}", *scales], f"{out}/{role}", axis=0))
            plain.append(f"{out}/{role}")
        if pool and op == "GlobalAveragePool":
            op, attributes = "AveragePool", pool
        parts += [node(op, plain, f"{out}/y", **attributes), node("QuantizeLinear", [f"{out}/y", *y], out)]
    last = layers[-1].name
    parts.append(node("DequantizeLinear", [last, *grids[last]], "logits"))
    return model(*parts, more=field(8, field(1, CONTRIB) + field(2, 1)), **options)


@pytest.mark.parametrize("dtype", [UNSIGNED, SIGNED])
@pytest.mark.parametrize("per_channel", [False, True])
def test_both_forms_are_one_network_of_integers(tmp_path, dtype, per_channel):
    path = tmp_path / "net.onnx"
    results = []
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)
    for form in ("QOperator", "QDQ"):
        path.write_bytes(write_integers(form, dtype, per_channel))
        checkpoint = read(path)
        assert checkpoint.obstacle is None
        assert checkpoint.quantized is not None
        assert checkpoint.quantized.bytes_of == {UNSIGNED: "onnxruntime-uint8", SIGNED: "onnxruntime"}[dtype]
        assert checkpoint.endpoints["layer.3"] in checkpoint.quantized.tensors
        results.append(mm.load(path)(pixels).logits)
        weight = checkpoint.weights["classifier.weight"]
        found = checkpoint.quantized.tensors[next(op for op in checkpoint.quantized.operations
                                                  if op.op == "fully_connected").inputs[1]]  # fmt: skip
        scales = found.scales.astype(np.float64).reshape(-1, 1)
        np.testing.assert_array_equal(weight, (found.values * scales).astype(np.float32))
    assert results[0].tobytes() == results[1].tobytes()
    floats = mm.load(path, dequantize=True)(pixels).logits
    assert 0 < np.abs(floats - results[0]).max() < 0.5
    mm.load(path).save(tmp_path / "copy.h5")
    assert mm.load(tmp_path / "copy.h5")(pixels).logits.tobytes() == results[0].tobytes()


def test_bytes_of_another_zero_point_hold_other_numbers(tmp_path):
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)
    results = []
    for is_moved, x in ((False, np.maximum(pixels, -1)), (True, pixels)):
        (tmp_path / "net.onnx").write_bytes(write_integers("QDQ", SIGNED, is_moved=is_moved))
        results.append(mm.load(tmp_path / "net.onnx")(x).logits)
    assert results[0].tobytes() == results[1].tobytes()


def test_a_pool_is_a_mean_if_its_window_is_the_whole_map(tmp_path):
    path = tmp_path / "net.onnx"
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)
    results = []
    for pool in (None, {"kernel_shape": [2, 2]}):
        path.write_bytes(write_integers("QDQ", SIGNED, shape=(1, 3, 64, 64), pool=pool))
        results.append(mm.load(path)(pixels).logits)
    assert results[0].tobytes() == results[1].tobytes()
    smaller = {"kernel_shape": [1, 1], "strides": [2, 2]}
    path.write_bytes(write_integers("QDQ", SIGNED, shape=(1, 3, 64, 64), pool=smaller))
    with pytest.raises(MinimobileError, match=r"expected a window over the whole map \(2 x 2\), found a smaller one"):
        mm.load(path)


def test_of_bytes_the_numbers_that_they_stand_for_are_compared(tmp_path):
    (tmp_path / "net.onnx").write_bytes(write_integers("QDQ", UNSIGNED))
    endpoint = read(tmp_path / "net.onnx").endpoints["layer.3"]
    exposed = expose(tmp_path / "net.onnx", [endpoint])
    makers = {name: node for node in read_model(tmp_path / "net.onnx").nodes for name in node.outputs}
    (output,) = exposed.outputs
    assert exposed.tensors == (endpoint,)
    assert (makers[output].op, makers[output].inputs[0]) == ("DequantizeLinear", endpoint)


def test_integers_go_from_tflite_to_onnx_and_back(tmp_path):
    """Pixels of uint8 become maps of int8, the same steps by another name; a pool over the whole map is a mean."""
    mm.quantize(make(V1, {})).save(tmp_path / "0.tflite")
    names = ("0.tflite", "1.onnx", "2.tflite")
    for source, destination in itertools.pairwise(names):
        report = mm.convert(tmp_path / source, tmp_path / destination)
        assert "integers" in repr(list_facts(report)[-1]), "and not float32"
    models = [mm.load(tmp_path / name) for name in names]
    assert all(model.is_quantized for model in models)
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, *models[0].quantized_input.shape[1:3])).astype(np.float32)
    logits = [model(pixels).logits for model in models]
    first, network = (formats.read(tmp_path / name).quantized for name in (names[0], names[-1]))
    assert [step.op for step in network.operations].count("reshape") == 1, "the row of the classifier, and no other"
    steps = np.array([found - logits[0] for found in logits]) / first.tensors[first.outputs[0]].scale
    assert np.abs(steps).max() <= 2  # whose bytes: TFLite's or ONNX's
    assert len({repr(model.id2label) for model in models}) == len({repr(model.processor) for model in models}) == 1


@pytest.mark.parametrize(
    ("architecture", "fields", "per_channel"), [(V1, {"tf_padding": False}, False), (DEEPLAB, {}, True)]
)
def test_every_layer_of_integers_comes_back_with_every_byte(architecture, fields, per_channel, tmp_path):
    """Means of 2 x 2 bytes, Pad, weights with zero points, and logits of which an output differs by its type alone."""
    integers = mm.quantize(make(architecture, fields), per_channel=per_channel)
    integers.save(tmp_path / "net.onnx")
    checkpoint, model = formats.read(tmp_path / "net.onnx"), mm.load(tmp_path / "net.onnx", bytes_of="litert")
    assert set(checkpoint.endpoints.values()) <= set(checkpoint.quantized.tensors)
    pixels = np.random.default_rng(0).normal(0, 1, (2, 3, 33, 33)).astype(np.float32)
    assert np.array_equal(model(pixels).logits, integers(pixels).logits)


@pytest.mark.parametrize("form", ["V1", "V1 in int8", "V2 in int8, sigmoid"])
def test_scores_of_bytes_come_back_with_every_bit(form, tmp_path):
    architecture, dtype, tail, fields = FORMS[form]
    source = save(tmp_path, build(architecture, dtype, tail, **fields))
    mm.convert(source, tmp_path / "net.onnx")
    made, model = mm.load(source), mm.load(tmp_path / "net.onnx", bytes_of="litert")
    last = formats.read(tmp_path / "net.onnx").quantized.operations[-2]
    assert last.op == {"softmax": "softmax", "sigmoid": "logistic"}[tail[-1]]
    pixels = np.random.default_rng(0).normal(0, 1, (2, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(model(pixels).logits, made(pixels).logits)
    assert (
        np.abs(mm.load(tmp_path / "net.onnx")(pixels).logits - made(pixels).logits).max() < 1.5
    )  # the file's own rule


@pytest.mark.crosscheck
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the kernels of x86-64")
@pytest.mark.parametrize("form", ["V1", "V1 in int8", "V2"])
def test_a_whole_network_with_a_softmax_has_onnx_runtimes_bytes(form, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    architecture, dtype, tail, fields = FORMS[form]
    mm.convert(save(tmp_path, build(architecture, dtype, tail, **fields)), tmp_path / "net.onnx")
    model = mm.load(tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for pixels in np.random.default_rng(0).normal(0, 1, (4, 1, 3, 32, 32)).astype(np.float32):
        ours = model.run_quantized(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
        assert np.array_equal(ours, session.run(None, {"pixel_values": pixels})[0])


def test_a_softmax_over_anything_but_channels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("minimobile.formats.onnx.write_integers._axis", lambda *_: 0)
    mm.convert(save(tmp_path, build(*FORMS["V1"][:3])), tmp_path / "net.onnx")
    with pytest.raises(MinimobileError, match=r"expected a softmax over the channels, found axis 0 of 2"):
        mm.load(tmp_path / "net.onnx")


def test_what_has_no_form_in_integers_is_said_and_runs_in_floats(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(write_integers("QDQ", UNSIGNED, shape=("batch", 3, "height", "width")))
    with pytest.raises(MinimobileError, match="fixed size"):
        mm.load(path)
    assert mm.load(path, dequantize=True).config.num_labels == 5


NETWORKS = [Export("v1", 0.25, 96, "torchscript", 17), Export("v2", 0.35, 97, "torchscript", 17),
            Export("deeplab", 0.35, 96, "torchscript", 17)]  # fmt: skip
KINDS = ["uint8", "uint8, weights too", "int8 per channel"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Any:
    """Return the three networks as files of floats, as ONNX Runtime's quantiser wants them."""
    prepare = pytest.importorskip("onnxruntime.quantization.shape_inference").quant_pre_process
    paths = {}
    for export in NETWORKS:
        folder = tmp_path_factory.mktemp(export.network)
        write(export, folder / "float.onnx")
        paths[export.network] = folder / "prepared.onnx"
        prepare(folder / "float.onnx", paths[export.network], skip_symbolic_shape=True)
    return paths


def quantize(source: Any, path: Any, form: str, kind: str, pixels: list[Any]) -> None:
    """Quantise a file of floats by ONNX Runtime's tool, ranges from two pictures."""
    tools = pytest.importorskip("onnxruntime.quantization")

    class Reader(tools.CalibrationDataReader):
        rest = iter([{"x": values} for values in pixels[:2]])

        def get_next(self) -> Any:
            return next(self.rest, None)

    unsigned, signed = tools.QuantType.QUInt8, tools.QuantType.QInt8
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tools.quantize_static(
                source, path, Reader(), quant_format=getattr(tools.QuantFormat, form),
                activation_type=unsigned if "uint8" in kind else signed, per_channel="channel" in kind,
                weight_type=unsigned if "weights" in kind else signed,
                extra_options={"WeightSymmetric": "weights" not in kind},
            )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)


def draw_pixels(export: Export) -> list[Any]:
    """Return six pictures."""
    shape = (1, 3, export.size, export.size)
    return [np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32) for seed in range(6)]


@pytest.mark.crosscheck
@pytest.mark.parametrize("export", NETWORKS, ids=lambda export: export.network)
@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_is_that_of_onnx_runtimes_kernels_of_integers(export, kind, prepared, tmp_path):
    pixels, path = draw_pixels(export), tmp_path / "net.onnx"
    quantize(prepared[export.network], path, "QOperator", kind, pixels)
    network = formats.read(path).quantized
    assert network is not None
    assert (network.bytes_of, network.tensors[network.operations[0].output].dtype) == {
        "uint8": ("onnxruntime-uint8", np.int8),
        "uint8, weights too": ("onnxruntime-uint8", np.uint8),
        "int8 per channel": ("onnxruntime", np.int8),
    }[kind]
    tensors = {operation.output for operation in network.operations}
    theirs = run_with_values(path, {"x": pixels[2]}, [name for name in known(path) if name in tensors])
    values = {name: tensor.values for name, tensor in network.tensors.items() if tensor.values is not None}
    values[network.inputs[0]] = pixels[2].transpose(0, 2, 3, 1)
    compared = 0
    for operation in network.operations:
        values[operation.output] = apply(operation, network.tensors, values, network.bytes_of)
        if operation.output in theirs:
            found = theirs[operation.output]
            found = found.transpose(0, 2, 3, 1) if found.ndim == 4 else found
            ours = values[operation.output]
            if found.dtype == np.uint8 and ours.dtype == np.int8:
                found = (found.astype(np.int16) - 128).astype(np.int8)
            found = np.ascontiguousarray(found.reshape(ours.shape))
            assert found.tobytes() == ours.tobytes(), operation.output
            compared += 1
    assert compared > {"v1": 28, "v2": 62, "deeplab": 66}[export.network]
    model = mm.load(path)
    for picture in pixels[2:]:
        logits = run_with_values(path, {"x": picture}, ["logits"])["logits"]
        assert model(picture).logits.tobytes() == logits.tobytes()


@pytest.mark.crosscheck
@pytest.mark.parametrize("export", NETWORKS, ids=lambda export: export.network)
@pytest.mark.parametrize("kind", KINDS)
def test_qdq_has_the_bytes_of_the_integers_that_onnx_runtime_makes_of_it(export, kind, prepared, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pixels, path = draw_pixels(export), tmp_path / "net.onnx"
    quantize(prepared[export.network], path, "QDQ", kind, pixels)
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # ENABLE_ALL cannot be saved
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    left = {entry.op_type for entry in onnx.load(tmp_path / "optimised.onnx").graph.node}
    model = mm.load(path)
    pairs = [(model(picture).logits, session.run(["logits"], {"x": picture})[0]) for picture in pixels[2:]]
    differing = sum(np.count_nonzero(ours != found) for ours, found in pairs)
    print(f"{export.network} {kind}: {differing} of {sum(ours.size for ours, _ in pairs)} logits differ")
    if "Conv" in left:  # its optimiser leaves some in floats, where it changes maps of int8 to uint8
        assert "uint8" not in kind
    else:
        assert differing == 0


def known(path: Any) -> list[str]:
    """Return the tensors that nodes compute."""
    onnx = pytest.importorskip("onnx")
    return [name for entry in onnx.load(path).graph.node for name in entry.output]
