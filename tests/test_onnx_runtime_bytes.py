"""Single operators of bytes in ONNX Runtime, beside our definitions for its bytes: every pair of bytes, every tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimobile.quantized.definitions import apply
from minimobile.quantized.network import Operation, Tensor

pytestmark = pytest.mark.crosscheck
TYPES = pytest.mark.parametrize("dtype", [np.uint8, np.int8])
ROUNDING = {np.uint8: "onnxruntime-uint8", np.int8: "onnxruntime"}


def compute(op: str, feed: dict[str, Any], constants: dict[str, Any], inputs: list[str], **attributes: Any) -> Any:
    """Return what ONNX Runtime's kernel computes, with nothing optimised."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, domain = onnx.helper, "com.microsoft" if op.startswith("QLinear") else ""
    node = helper.make_node(op, inputs, ["out"], domain=domain, **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feed.items()
    ]
    kept = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph([node], "one", values, [helper.make_empty_tensor_value_info("out")], kept)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    model = helper.make_model(graph, opset_imports=sets, ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["out"], feed)[0]


def held(values: Any) -> Any:
    """Return bytes as a network that was read has them: less 128 where the file has uint8."""
    return (values.astype(np.int16) - (128 if values.dtype == np.uint8 else 0)).astype(np.int8)


def grid(dtype: Any, scale: Any, zero: int, shape: tuple[int, ...] = (), name: str = "x") -> Tensor:
    """Return the tensor of int8 that stands for one of the file's type."""
    zeros = np.array([zero - (128 if dtype == np.uint8 else 0)])
    return Tensor(name, shape, np.dtype(np.int8), np.array([scale], np.float32), zeros)


def list_grids(dtype: Any, scales: Any, zeros: list[int]) -> dict[str, Tensor]:
    """Return the tensors x, y, z."""
    return {name: grid(dtype, *pair, name=name) for name, *pair in zip("xyz", scales, zeros, strict=True)}


def draw(rng: Any, dtype: Any, count: int, kind: int) -> tuple[Any, list[int]]:
    """Return scales and zero points: of every size, of one size, powers of two (many ties), or of ReLU6's bytes."""
    scales = np.exp(rng.uniform(*((-11, 3) if kind % 8 == 7 else (-4, 0.5)), count))
    if kind % 4 == 1:
        scales[1:] = scales[0]
    if kind % 4 == 2:
        scales = 2.0 ** rng.integers(-6, 0, count)
    low = np.iinfo(dtype).min
    zeros = [int(zero) for zero in rng.integers(low, low + 256, count)]
    if kind % 4 == 3:
        scales[:-1], zeros = 6 / 255, [int(low)] * count
    return scales.astype(np.float32), zeros


@TYPES
def test_every_pair_of_bytes_has_onnx_runtimes_sum(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    every = (np.arange(256) + np.iinfo(dtype).min).astype(dtype)
    x, y = np.repeat(every, 256), np.tile(every, 256)
    differing = {"xnnpack": 0, ROUNDING[dtype]: 0}
    for kind in range(120):
        scales, zeros = draw(rng, dtype, 3, kind)
        constants = {f"{name}{what}": value for name, scale, zero in zip("xyz", scales, zeros, strict=True)
                     for what, value in (("s", scale), ("z", dtype(zero)))}  # fmt: skip
        inputs = ["x", "xs", "xz", "y", "ys", "yz", "zs", "zz"]
        theirs = held(compute("QLinearAdd", {"x": x, "y": y}, constants, inputs))
        operation = Operation("add", ("x", "y"), "z", {"activation": "linear"})
        tensors = list_grids(dtype, scales, zeros)
        for bytes_of in differing:
            ours = apply(operation, tensors, {"x": held(x), "y": held(y)}, bytes_of)
            differing[bytes_of] += np.count_nonzero(ours != theirs)
    print(f"{dtype.__name__}: of {120 * len(x)} sums differ {differing}")
    assert differing.pop(ROUNDING[dtype]) == 0
    assert differing["xnnpack"] > 0


def test_how_a_file_writes_its_bytes_can_tip_a_sum() -> None:
    rng = np.random.default_rng(1)
    every = np.arange(-128, 128).astype(np.int8)
    x, y = np.repeat(every, 256), np.tile(every, 256)
    found = 0
    for kind in range(24):
        scales, zeros = draw(rng, np.int8, 3, kind)
        operation = Operation("add", ("x", "y"), "z", {"activation": "linear"})
        tensors = list_grids(np.int8, scales, zeros)
        results = [apply(operation, tensors, {"x": x, "y": y}, bytes_of) for bytes_of in ROUNDING.values()]
        found += np.count_nonzero(results[0] != results[1])
        assert np.abs(results[0].astype(int) - results[1]).max() <= 1
    assert found > 0


@TYPES
def test_numbers_between_two_bytes_go_to_the_even_one(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    for kind in range(8):
        scales, zeros = draw(rng, dtype, 2, kind)
        halves = (np.arange(-600, 600) + 0.5) * scales[0]
        x = np.concatenate([halves, rng.normal(0, 50 * scales[0], 4000)]).astype(np.float32)
        theirs = compute("QuantizeLinear", {"x": x}, {"s": scales[0], "z": dtype(zeros[0])}, ["x", "s", "z"])
        tensors = {"x": Tensor("x", x.shape, x.dtype), "out": grid(dtype, scales[0], zeros[0])}
        ours = apply(Operation("quantize", ("x",), "out"), tensors, {"x": x}, ROUNDING[dtype])
        assert ours.tobytes() == held(theirs).tobytes()


@TYPES
def test_a_softmax_has_onnx_runtimes_bytes(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    low = int(np.iinfo(dtype).min)
    for kind, channels in enumerate([2, 3, 5, 10, 91, 257, 1001, 5000] * 3):
        scale = np.float32(np.exp(rng.uniform(-12 if kind % 5 == 4 else -5, 1)))
        centre, spread = rng.uniform(low, low + 255), [2, 20, 90][kind % 3]
        x = np.clip(rng.normal(centre, spread, (40, channels)), low, low + 255).astype(dtype)
        constants = {"xs": scale, "xz": dtype(0), "ys": np.float32(1 / 256), "yz": dtype(low)}
        inputs = ["x", "xs", "xz", "ys", "yz"]
        theirs = compute("QLinearSoftmax", {"x": x}, constants, inputs, axis=-1, opset=13)
        tensors = {"x": grid(dtype, scale, 0, x.shape), "out": grid(dtype, 1 / 256, low, x.shape)}
        operation = Operation("softmax", ("x",), "out", {"beta": 1.0})
        ours = apply(operation, tensors, {"x": held(x)}, ROUNDING[dtype])
        assert ours.tobytes() == held(theirs).tobytes(), (channels, scale)


@TYPES
def test_means_are_onnx_runtimes(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    for kind, side in enumerate([(7, 7), (3, 4), (1, 1), (65, 65), (2, 2), (14, 13), (33, 1), (7, 7)]):
        scales, zeros = draw(rng, dtype, 2, kind % 7)
        low = np.iinfo(dtype).min
        x = rng.integers(low, low + 256, (1, 64, *side)).astype(dtype)
        x[:, ::2] = np.clip(x[:, ::2].astype(int), zeros[0] - 3, zeros[0] + 3).astype(dtype)
        constants = {"xs": scales[0], "xz": dtype(zeros[0]), "ys": scales[1], "yz": dtype(zeros[1])}
        theirs = compute("QLinearGlobalAveragePool", {"x": x}, constants, ["x", "xs", "xz", "ys", "yz"])
        out = grid(dtype, scales[1], zeros[1], (1, 1, 1, 64))
        tensors = {"x": grid(dtype, scales[0], zeros[0], (1, *side, 64)), "out": out}
        operation = Operation("mean", ("x",), "out", {"axes": (1, 2), "keep_dims": True})
        ours = apply(operation, tensors, {"x": held(x).transpose(0, 2, 3, 1)}, ROUNDING[dtype])
        assert ours.tobytes() == held(theirs).tobytes()


@TYPES
@pytest.mark.parametrize("rule", ["half_pixel", "align_corners", "asymmetric"])
def test_maps_are_resized_as_by_onnx_runtime(dtype: Any, rule: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(12):
        sides, out_sides = rng.integers(1, 40, 2), rng.integers(1, 80, 2)
        low = np.iinfo(dtype).min
        x = rng.integers(low, low + 256, (1, 3, *sides)).astype(dtype)
        sizes = np.array([1, 3, *out_sides])
        attributes = {"mode": "linear", "coordinate_transformation_mode": rule}
        theirs = compute("Resize", {"x": x}, {"sizes": sizes}, ["x", "", "", "sizes"], **attributes)
        tensors = {"x": grid(dtype, 1.0, 0), "out": grid(dtype, 1.0, 0, (1, *map(int, out_sides), 3))}
        attributes = {"align_corners": rule == "align_corners", "half_pixel_centers": rule == "half_pixel"}
        operation = Operation("resize_bilinear", ("x",), "out", attributes)
        ours = apply(operation, tensors, {"x": held(x).transpose(0, 2, 3, 1)}, ROUNDING[dtype])
        assert ours.tobytes() == np.ascontiguousarray(held(theirs).transpose(0, 2, 3, 1)).tobytes()
