"""PyTorch weights: what torch.save writes is read without torch."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import (
    DATA,
    GOOD,
    MARK,
    ORDERED,
    PLAIN,
    REDUCE,
    VALUES,
    legacy,
    number,
    state,
    storage,
    tensor,
    text,
    wrapped,
    zipped,
)

from minimobile.formats.pytorch import pytorch
from minimobile.formats.signatures import is_pytorch


def load(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return pytorch.read_tensors(path)


def test_both_formats_give_the_same_arrays(tmp_path: Path) -> None:
    older = legacy(state(**{"a.weight": tensor(storage("0", 6, more=b"N"), 0, (2, 3), (3, 1))}), ["0"],
                   struct.pack("<q", 6) + DATA)  # fmt: skip
    for name, content in (("zip é.bin", zipped(GOOD, {"0": DATA})), ("older.pt", older)):
        read = load(tmp_path / name, content)
        assert is_pytorch(tmp_path / name)
        assert list(read) == ["a.weight"]
        assert read["a.weight"].dtype == np.float32
        assert np.array_equal(read["a.weight"], VALUES.reshape(2, 3))


def test_offsets_strides_and_shared_storages(tmp_path: Path) -> None:
    view = storage("0", 6)
    entries = {"all": PLAIN, "turned": tensor(view, 0, (3, 2), (1, 3)), "end": tensor(view, 5, (), ()),
               "column": tensor(view, 1, (2,), (3,))}  # fmt: skip
    read = load(tmp_path / "x.bin", zipped(state(**entries), {"0": DATA}))
    square = VALUES.reshape(2, 3)
    for name, expected in {"all": square, "turned": square.T, "end": VALUES[5], "column": square[:, 1]}.items():
        assert np.array_equal(read[name], expected), name
        assert read[name].shape == np.shape(expected)


def test_a_parameter_is_its_tensor(tmp_path: Path) -> None:
    wrapped = b"ctorch._utils\n_rebuild_parameter\n" + MARK + PLAIN + b"\x88" + ORDERED + b"t" + REDUCE
    assert load(tmp_path / "x.bin", zipped(state(a=wrapped), {"0": DATA}))["a"].shape == (2, 3)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(("kind", "dtype"), [("FloatStorage", "f4"), ("HalfStorage", "f2"), ("DoubleStorage", "f8")])
def test_types_and_byte_orders(tmp_path: Path, kind: str, dtype: str, order: str) -> None:
    data = VALUES.astype(("<" if order == "little" else ">") + dtype).tobytes()
    body = state(a=tensor(storage("0", 6, kind), 0, (6,), (1,)))
    read = load(tmp_path / "x.bin", zipped(body, {"0": data}, add={"byteorder": order}))["a"]
    assert read.dtype == (np.float64 if dtype == "f8" else np.float32)
    assert np.array_equal(read, VALUES)


@pytest.mark.parametrize("order", ["little", "big"])
def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path, order: str) -> None:
    data = (VALUES.view("<u4") >> 16).astype("<u2" if order == "little" else ">u2").tobytes()
    body = state(a=tensor(storage("0", 6, "BFloat16Storage"), 0, (6,), (1,)))
    assert np.array_equal(load(tmp_path / "x.bin", zipped(body, {"0": data}, add={"byteorder": order}))["a"], VALUES)


def test_counters_are_left_out(tmp_path: Path) -> None:
    counter = tensor(storage("1", 1, "LongStorage"), 0, (), ())
    body = state(**{"n.num_batches_tracked": counter, "a": PLAIN})
    assert list(load(tmp_path / "x.bin", zipped(body, {"0": DATA, "1": bytes(8)}))) == ["a"]


EPOCH, LOSSES = number(7), b"]" + MARK + b"G" + struct.pack(">d", 0.5) + b"Ne"


@pytest.mark.parametrize("name", pytorch.WRAPPERS)
def test_a_training_run_s_file_gives_its_state_dict(tmp_path: Path, name: str) -> None:
    slots = state(step=tensor(storage("1", 1, more=b""), 0, (), ()))
    body = wrapped(epoch=EPOCH, optimizer=wrapped(state=slots), **{name: GOOD}, losses=LOSSES)
    assert list(load(tmp_path / "x.pth", zipped(body, {"0": DATA, "1": DATA[:4]}))) == ["a.weight"]
    assert list(pytorch.list_tensors(tmp_path / "x.pth")) == ["a.weight"]
    good = state(**{"a.weight": tensor(storage("0", 6, more=b"N"), 0, (2, 3), (3, 1))})
    slots = state(step=tensor(storage("1", 1, more=b"N"), 0, (), ()))
    content = legacy(wrapped(optimizer=slots, **{name: good}), ["1", "0"],
                     struct.pack("<q", 1) + DATA[:4] + struct.pack("<q", 6) + DATA)  # fmt: skip
    assert np.array_equal(load(tmp_path / "x.pth", content)["a.weight"], VALUES.reshape(2, 3))


def test_of_several_state_dicts_the_moving_average_is_taken(tmp_path: Path) -> None:
    other = state(b=PLAIN)
    body = wrapped(state_dict=other, state_dict_ema=GOOD, model=other)
    assert list(load(tmp_path / "x.pth", zipped(body, {"0": DATA}))) == ["a.weight"]


def test_metadata_of_a_state_dict_is_dropped(tmp_path: Path) -> None:
    body = GOOD + b"}" + text("_metadata") + ORDERED + b"s" + b"b"
    assert list(load(tmp_path / "x.bin", zipped(body, {"0": DATA}))) == ["a.weight"]


def test_reading_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(zipped(GOOD, {"0": DATA}))
    script = (
        "import sys, pathlib; from minimobile.formats.pytorch import pytorch; before = set(sys.modules)\n"
        "pytorch.read_tensors(pathlib.Path(sys.argv[1])); new = set(sys.modules) - before\n"
        "assert not {n for n in new if not n.startswith(('numpy', 'encodings'))}, new"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script, str(path)], env=environment, timeout=300, check=True)


@pytest.mark.crosscheck
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_saves_is_read_as_torch_loads_it(tmp_path: Path, is_zip: bool, protocol: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "x.bin"
    torch.manual_seed(0)
    base = torch.randn(4, 6, 5)
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    layer.update(
        half=base.half(), brain=base.bfloat16(), double=base.double(), parameter=torch.nn.Parameter(base[0]),
        view=base[1:, ::2].permute(2, 0, 1), scalar=torch.tensor(2.5),
    )  # fmt: skip
    torch.save(layer, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    read = pytorch.read_tensors(path)
    assert set(read) == {name for name in layer if not name.endswith("num_batches_tracked")}
    for name, values in read.items():
        expected = layer[name].detach()
        expected = expected if name == "double" else expected.float()
        assert values.dtype == expected.numpy().dtype
        assert values.shape == tuple(expected.shape)
        assert np.array_equal(values, expected.numpy()), name


@pytest.mark.crosscheck
def test_the_hand_written_files_are_what_torch_reads(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "x.bin"
    older = state(**{"a.weight": tensor(storage("0", 6, more=b"N"), 0, (2, 3), (3, 1))})
    for content in (
        zipped(GOOD, {"0": DATA}, add={"version": "3\n", "byteorder": "little"}),
        legacy(older, ["0"], struct.pack("<q", 6) + DATA),
    ):
        path.write_bytes(content)
        assert torch.equal(torch.load(path, weights_only=True)["a.weight"], torch.arange(6.0).reshape(2, 3))
