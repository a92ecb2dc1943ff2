"""Operator sets: every one from 7 to the newest that the package `onnx` has says the same of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judgement import assert_agrees
from onnx_exports import Export, run_with_values, write
from test_onnx_integers import write_integers

import minimobile as mm
from minimobile import formats
from minimobile.formats.onnx.model import OPERATOR_SETS
from minimobile.formats.onnx.operators import TRANSLATORS

pytestmark = pytest.mark.crosscheck
NEWEST_RUN = 26  # the newest operator set that ONNX Runtime 1.31 runs
EXPORTS = {
    # what is written, and the sets to which onnx's converter brings it: it has no way down for some operators
    "torchscript 7": (Export("v1", 0.25, 96, "torchscript", 7, "training"), 7),
    "torchscript 17": (Export("v2", 0.35, 96, "torchscript", 17), 14),
    "torchscript 11": (Export("deeplab", 0.35, 96, "torchscript", 11), 11),
    "dynamo 18": (Export("deeplab", 0.25, 96, "dynamo", 18), 14),
    "tf2onnx 13": (Export("v2", 0.35, 96, "tf2onnx", 13), 13),
    "demo:digits": ("demo:digits", 15),
    "demo:scenes": ("demo:scenes", 15),
    "demo:boxes": ("demo:boxes", 15),
    "QDQ": ("QDQ", 13),
    "QOperator": ("QOperator", 13),
}


def newest() -> int:
    """Return the newest operator set of the package that is installed, or of ours, whichever is older."""
    return min(int(pytest.importorskip("onnx").defs.onnx_opset_version()), OPERATOR_SETS[-1])


def test_no_operator_has_changed_since_the_newest_set_that_is_known() -> None:
    onnx = pytest.importorskip("onnx")
    newer = {
        schema.name for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.since_version > OPERATOR_SETS[-1]
    }  # fmt: skip
    assert not newer & set(TRANSLATORS), f"read what they say now, then make OPERATOR_SETS longer: {sorted(newer)}"


@pytest.mark.parametrize("name", EXPORTS)
def test_every_operator_set_is_read_to_the_same_bits(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    source, first = EXPORTS[name]
    path, changed = tmp_path / "net.onnx", tmp_path / "changed.onnx"
    if isinstance(source, Export):
        write(source, path)
    elif source.startswith("Q"):
        path.write_bytes(write_integers(source, np.uint8, per_channel=True))
    else:
        mm.load(source).save(path)
    expected, model = formats.read(path), onnx.load(path)
    for opset in range(first, newest() + 1):
        onnx.save(onnx.version_converter.convert_version(model, opset), changed)
        found = formats.read(changed)
        assert found.config == expected.config, opset
        assert found.weights.keys() == expected.weights.keys(), opset
        for weight, values in expected.weights.items():
            assert found.weights[weight].tobytes() == values.tobytes(), (opset, weight)
        assert (found.quantized is None, found.obstacle) == (expected.quantized is None, None), opset
        if expected.quantized is not None:
            assert found.quantized is not None
            operations = [[(step.op, step.attributes) for step in checkpoint.quantized.operations]  # type: ignore[union-attr]
                          for checkpoint in (found, expected)]  # fmt: skip
            assert operations[0] == operations[1], opset
    print(f"{name}: {newest() + 1 - first} operator sets, {first} to {newest()}, the same bits")


def test_pytorchs_exporter_at_the_newest_sets(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, 96, 96)).astype(np.float32)
    first: dict[str, Any] = {}
    for opset in range(22, newest() + 1):
        path = tmp_path / f"{opset}.onnx"
        write(Export("v2", 0.25, 96, "dynamo", opset), path)
        checkpoint = formats.read(path)
        assert checkpoint.provenance["operator_set"] == str(opset)
        first = first or dict(checkpoint.weights)
        assert all(values.tobytes() == first[name].tobytes() for name, values in checkpoint.weights.items()), opset
        if opset > NEWEST_RUN:
            continue
        tensors = list(dict.fromkeys(checkpoint.endpoints.values()))
        values: Any = run_with_values(path, {checkpoint.provenance["input"]: pixels}, tensors)
        theirs = {name: values[tensor] for name, tensor in checkpoint.endpoints.items()}
        assert len(theirs) >= 63
        assert_agrees(mm.load(path), pixels, theirs)
