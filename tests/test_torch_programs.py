"""Archives of torch.jit.save and torch.export.save: weights by name, no code looked at, and hostile ones refused."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import assert_refused, truncations
from hypothesis import given, settings
from hypothesis import strategies as st
from test_torch_models import foreign_weights
from torch_files import DATA, MARK, PLAIN, PROTO, REDUCE, STOP, VALUES, number, storage, tensor, text
from twins import import_torch, randomise

import minimobile
from minimobile import formats
from minimobile.errors import MinimobileError
from minimobile.formats.pytorch import pytorch
from minimobile.formats.pytorch.torchscript import DEPTH_LIMIT
from minimobile.formats.signatures import is_pytorch

NEW = b")\x81"


def of_class(name: str) -> bytes:
    return b"c__torch__." + name.encode() + b"\nModule\n" + NEW


def attributes(**values: bytes) -> bytes:
    return b"}" + MARK + b"".join(text(name.removeprefix("_")) + value for name, value in values.items()) + b"ub"


def module(**values: bytes) -> bytes:
    return of_class("torch.nn.modules.conv") + attributes(**values)


def script(body: bytes, data: dict[str, bytes], code: bytes = b"def f(): pass\n" * 50) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for key, content in data.items():
            archive.writestr(f"net/data/{key}", content)
        archive.writestr("net/data.pkl", PROTO + body + STOP)
        archive.writestr("net/code/__torch__.py", code, zipfile.ZIP_DEFLATED)
        archive.writestr("net/constants.pkl", PROTO + b")" + STOP)
        archive.writestr("net/byteorder", "little")
    return file.getvalue()


INTS = b"ctorch.jit._pickle\nbuild_intlist\n" + MARK + b"]" + MARK + number(1) + number(2) + b"et" + REDUCE
SETTINGS = {"training": b"\x89", "bias": b"N", "padding": INTS, "device": b"ctorch\ndevice\n" + text("cpu") + b"\x85R"}
NET = module(**SETTINGS, stem=module(weight=PLAIN, **SETTINGS), layer=module(_0=module(weight=PLAIN)))


def test_attributes_of_scripted_modules_are_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(script(module(training=b"\x89", head=PLAIN, net=NET), {"0": DATA}))
    assert is_pytorch(path)
    read = pytorch.read_tensors(path)
    assert list(read) == ["head", "net.stem.weight", "net.layer.0.weight"]
    assert all(np.array_equal(values, VALUES.reshape(2, 3)) for values in read.values())


def test_a_wrapper_around_the_network_gives_no_name(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(script(module(net=module(model=NET)), {"0": DATA}))
    assert list(pytorch.read_tensors(path)) == ["stem.weight", "layer.0.weight"]


def meta(dtype: Any, sizes: list[int], strides: list[int], offset: Any = 0, layout: int = 7) -> dict[str, Any]:
    numbers = {"sizes": [{"as_int": n} for n in sizes], "strides": [{"as_int": n} for n in strides]}
    return {"dtype": dtype, **numbers, "storage_offset": {"as_int": offset}, "layout": layout}


def entry(path: Any = "weight_0", tensor_meta: Any = None, **more: Any) -> dict[str, Any]:
    given = meta(7, [2, 3], [3, 1]) if tensor_meta is None else tensor_meta
    return {"path_name": path, "is_param": True, "use_pickle": False, "tensor_meta": given, **more}


def norm(epsilon: Any) -> dict[str, Any]:
    given = [{"name": "eps", "arg": {"as_float": epsilon}}]
    return {"target": "torch.ops.aten.batch_norm.default", "inputs": given}


def exported(table: Any, data: dict[str, bytes], nodes: Any = (), order: str = "little", name: str = "model") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for key, content in data.items():
            archive.writestr(f"net/data/weights/{key}", content)
        written = table if isinstance(table, str) else json.dumps({"config": table})
        archive.writestr(f"net/data/weights/{name}_weights_config.json", written)
        archive.writestr("net/models/model.json", json.dumps({"graph_module": {"graph": {"nodes": list(nodes)}}}))
        archive.writestr("net/archive_format", "pt2")
        archive.writestr("net/byteorder", order)
    return file.getvalue()


ONE = {"weight_0": DATA}


@pytest.mark.parametrize("order", ["little", "big"])
def test_the_table_of_an_exported_program_is_a_state_dict(tmp_path: Path, order: str) -> None:
    path = tmp_path / "net.pt2"
    table = {"a.weight": entry(), "b.turned": entry(tensor_meta=meta(7, [3, 2], [1, 3])),
             "b.end": entry(tensor_meta=meta(7, [], [], 5)), "b.half": entry("w1", meta(6, [6], [1]))}  # fmt: skip
    mark = "<" if order == "little" else ">"
    data = {"weight_0": VALUES.astype(f"{mark}f4").tobytes(), "w1": VALUES.astype(f"{mark}f2").tobytes()}
    path.write_bytes(exported(table, data, order=order))
    assert is_pytorch(path)
    read = pytorch.read_tensors(path)
    square = VALUES.reshape(2, 3)
    for name, expected in {"a.weight": square, "b.turned": square.T, "b.end": VALUES[5], "b.half": VALUES}.items():
        assert np.array_equal(read[name], expected), name
        assert read[name].shape == np.shape(expected)


def test_an_exported_program_tells_its_epsilon(tmp_path: Path) -> None:
    weights = foreign_weights("torchvision's mobilenet_v2", "net.")
    table = {name: entry(str(index), meta(7, list(values.shape), [step // 4 for step in values.strides]))
             for index, (name, values) in enumerate(weights.items())}  # fmt: skip
    data = {str(index): values.astype("<f4").tobytes() for index, values in enumerate(weights.values())}
    (tmp_path / "x.pt2").write_bytes(exported(table, data, [norm(0.25), norm(0.25), {"target": "other"}]))
    checkpoint = formats.read(tmp_path / "x.pt2")
    assert (checkpoint.dialect, checkpoint.config.layer_norm_eps) == ("torchvision", 0.25)
    stored = {name.removeprefix("net."): values for name, values in weights.items()}
    assert all(np.array_equal(checkpoint.weights[here], stored[name]) for name, here in checkpoint.mapped.items())
    assert formats.describe(tmp_path / "x.pt2").facts["network"] == "torchvision's mobilenet_v2"


def nested(depth: int) -> bytes:
    return of_class("a") + b"}" + text("b") + (nested(depth - 1) if depth else PLAIN) + b"sb"


def doubling(count: int) -> bytes:
    """Return a module in which each attribute holds the one before it twice."""
    twice = module(left=b"h\x01", right=b"h\x01") + b"q\x01"
    return module(_0=module(weight=PLAIN) + b"q\x01", **{f"_{index}": twice for index in range(1, count)})


def of_six(tensor_meta: Any = None, **more: Any) -> bytes:
    return exported({"a": entry(tensor_meta=tensor_meta, **more)}, ONE)


def with_code(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "script-global": (script(module(a=b"cposix\nsystem\n(" + text("x") + b"tR"), ONE), "asks for 'posix.system'"),
    "script-quantized": (script(module(a=b"ctorch._utils\n_rebuild_qtensor\n"), ONE), "TorchScript module of plain"),
    "script-near-class": (script(b"c__torch__x\nNet\n", ONE), "asks for '__torch__x.Net'"),
    "script-class-called": (script(b"c__torch__\nNet\n)R", ONE), "a call of a known function"),
    "script-new-of-function": (script(b"ctorch._utils\n_rebuild_tensor_v2\n)\x81", ONE), "new object of a class"),
    "script-new-of-values": (script(b"c__torch__\nNet\n(Nt\x81", ONE), "new object of a class"),
    "script-state-twice": (script(NET + attributes(a=PLAIN), {"0": DATA}), "attributes by name, once"),
    "script-state-a-list": (script(of_class("a") + b"]b", ONE), "found them in type list"),
    "script-state-of-tensor": (script(PLAIN + b"}b", {"0": DATA}), "the state of an object of type Tensor"),
    "script-list-of-nothing": (script(b"ctorch.jit._pickle\nbuild_intlist\n)R", ONE), "made of one, found nothing"),
    "script-a-tensor": (script(PLAIN, {"0": DATA}), "a TorchScript module, found type Tensor"),
    "script-frozen": (script(module(**SETTINGS), ONE), "torch.jit.freeze made them constants"),
    "script-cycle": (script(of_class("a") + b"q\x01}" + text("me") + b"h\x01sb", ONE), "a module may hold itself"),
    "script-deep": (script(nested(DEPTH_LIMIT + 1), {"0": DATA}), "at most 32 modules in one another"),
    "script-doubling": (script(doubling(30), {"0": DATA}), "50000 attributes, found more"),
    "script-names-multiply": (
        script(module(**{"a" * 2**19: module(**{f"b{i}": PLAIN for i in range(300)})}), {"0": DATA}),
        "names of at most 500 characters",
    ),
    "script-integers": (
        script(module(a=tensor(storage("0", 3, "LongStorage"), 0, (3,), (1,))), {"0": DATA}),
        "expected floats",
    ),
    "script-beyond-storage": (script(module(a=tensor(storage("0", 6), 1, (6,), (1,))), {"0": DATA}), "does not fit"),
    "script-storage-missing": (script(NET, {}), "expected 24 bytes in net/data/0, found none"),
    "script-storage-compressed": (
        with_code({"n/data.pkl": PROTO + NET + STOP, "n/constants.pkl": b"", "n/data/0": DATA}, zipfile.ZIP_DEFLATED),
        "found a compressed one",
    ),
    "script-pickle-within-code": (
        with_code({"n/code/data.pkl": b"x" * 100, "n/constants.pkl": b""}),
        "expected one data.pkl",
    ),
    "export-no-table": (with_code({"n/archive_format": b"pt2"}), "with 0 tables of weights.*save the module's state"),
    "export-older": (
        with_code({"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": b""}),
        "with 0 tables of weights",
    ),
    "export-compressed": (
        with_code({"n/archive_format": b"pt2 pt2 pt2 pt2 pt2 pt2"}, zipfile.ZIP_DEFLATED),
        "found a compressed one",
    ),
    "export-table-a-list": (exported([], ONE), "by name under 'config', found type list"),
    "export-no-json": (exported("{", ONE), "valid JSON"),
    "export-twice": (exported('{"config": {"a": 1, "a": 2}}', ONE), "there twice"),
    "export-nested": (exported('{"config": ' + "[" * 10**5, ONE), "nested too deeply|valid JSON"),
    "export-entry-a-text": (exported({"a": "x"}, ONE), "tensor_meta"),
    "export-pickled": (of_six(use_pickle=True), "another layout or class"),
    "export-sparse": (of_six(meta(7, [6], [1], layout=1)), "another layout or class"),
    "export-integers": (of_six(meta(4, [6], [1])), "found type 4"),
    "export-bool-type": (of_six(meta(True, [6], [1])), "found type True"),
    "export-int64": (of_six(meta(5, [3], [1])), "expected floats"),
    "export-list-type": (of_six(meta([7], [6], [1])), "found type"),
    "export-path": (of_six(path="../../x"), "no member of the name"),
    "export-path-absent": (of_six(path="weight_1"), "no member of the name"),
    "export-path-a-list": (of_six(path=["weight_0"]), "no member of the name"),
    "export-odd-bytes": (exported({"a": entry()}, {"weight_0": DATA + b"x"}), "elements of 4 bytes"),
    "export-two-types": (exported({"a": entry(), "b": entry(tensor_meta=meta(6, [6], [1]))}, ONE), "one type"),
    "export-beyond": (of_six(meta(7, [7], [1])), "does not fit its storage"),
    "export-offset": (of_six(meta(7, [6], [1], 1)), "does not fit its storage"),
    "export-negative": (of_six(meta(7, [6], [-1])), "whole numbers"),
    "export-fraction": (of_six(meta(7, [6], [1], 0.5)), "whole numbers"),
    "export-open-size": (of_six({**meta(7, [6], [1]), "sizes": [{"as_expr": {}}]}), "whole numbers"),
    "export-no-strides": (of_six({**meta(7, [6], [1]), "strides": None}), "whole numbers"),
    "export-overlap": (of_six(meta(7, [2**40], [0])), "overlaps itself"),
    "export-no-elements": (of_six(meta(7, [0], [1])), "does not fit"),
    "export-views-amplify": (
        exported({f"a{i}": entry(tensor_meta=meta(7, [2**9] * 2, [1, 2**9])) for i in range(80)},
                 {"weight_0": bytes(2**20)}),
        "no more data than the file can hold",
    ),
    "export-byte-order": (exported({"a": entry()}, ONE, order="middle"), "the byte order little or big"),
    "export-folder-elsewhere": (exported({"a": entry()}, ONE, name="x/model"), "at the top of this archive"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, case: str) -> None:
    content, match = HOSTILE[case]
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    assert_refused(pytorch.read_tensors, path, match)
    assert_refused(formats.read, path, match)


@pytest.mark.parametrize("epsilon", ["x", None, -1.0, 2.0, 1, []])
def test_an_epsilon_that_is_none_is_refused(tmp_path: Path, epsilon: Any) -> None:
    (tmp_path / "x.pt2").write_bytes(exported({"a": entry()}, ONE, [norm(epsilon)]))
    assert_refused(pytorch.read_epsilon, tmp_path / "x.pt2", "a batch norm with its epsilon")


def test_two_epsilons_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(exported({"a": entry()}, ONE, [norm(1e-5), norm(1e-3)]))
    assert_refused(pytorch.read_epsilon, tmp_path / "x.pt2", "one epsilon in all batch norms")


@pytest.mark.parametrize("content", [script(NET, {"0": DATA}), exported({"a": entry()}, ONE)], ids=["script", "export"])
def test_every_truncation_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    for cut in truncations(content, 11):
        path.write_bytes(cut)
        with pytest.raises(MinimobileError):
            pytorch.read_tensors(path)


# TorchScript's compiler does not take transformers' modules; they are traced.
PROGRAMS = [(kind, writer) for kind in ("torchvision", "timm v1", "timm v2", "transformers v1", "transformers v2")
            for writer in ("script", "trace", "export") if (kind[:5], writer) != ("trans", "script")]  # fmt: skip


@settings(max_examples=200)
@given(changes=st.lists(st.tuples(st.integers(0, len(NET) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_changed_pickle_gives_whole_tensors_or_an_error(changes: list[tuple[int, int]]) -> None:
    body = bytearray(NET)
    for place, byte in changes:
        body[place] = byte
    content = script(bytes(body), {"0": DATA})
    try:
        tensors, read, _ = pytorch._read_zip("x", io.BytesIO(content), len(content))
    except MinimobileError:
        return
    assert all(len(read(tensor.storage)) == tensor.storage.size for tensor in tensors.values())


class Answers:
    """What is traced: a module that wraps a network of transformers and gives its logits alone."""

    def __new__(cls, network: Any) -> Any:
        torch, _ = import_torch()

        class Wrapper(torch.nn.Module):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = network

            def forward(self, pixels: Any) -> Any:
                return self.net(pixels).logits

        return Wrapper().eval()


def make_network(kind: str) -> Any:
    """Return a small network of a school, with random weights."""
    _, transformers = import_torch()
    peers = pytest.importorskip("torch_peers")
    if not kind.startswith("transformers"):
        width = 0.25 if kind.endswith("1") else 0.35
        return peers.settled(peers.VisionV2(width, 5) if kind == "torchvision" else peers.Timm(int(kind[-1]), width, 5))
    version = kind[-2:].upper()
    config = getattr(transformers, f"MobileNet{version}Config")(depth_multiplier=0.25, num_labels=5)
    network = getattr(transformers, f"MobileNet{version}ForImageClassification")(config).eval()
    randomise(network, 3)
    return Answers(network)


def save(network: Any, pixels: Any, writer: str, path: Path) -> None:
    """Write a program as `writer` says; what torch warns of (TorchScript is deprecated) is not what is tested."""
    torch, _ = import_torch()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if writer == "export":
            torch.export.save(torch.export.export(network, (pixels,)), path)
        elif writer == "trace":
            torch.jit.save(torch.jit.trace(network, pixels), str(path))
        else:
            made = torch.jit.script(network)
            torch.jit.save(torch.jit.freeze(made) if writer == "freeze" else made, str(path))


@pytest.mark.crosscheck
@pytest.mark.parametrize(("kind", "writer"), PROGRAMS)
def test_what_torch_writes_gives_what_torch_computes(tmp_path: Path, kind: str, writer: str) -> None:
    torch, _ = import_torch()
    network = make_network(kind)
    pixels = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32))
    path = tmp_path / ("net.pt2" if writer == "export" else "net.pt")
    with torch.no_grad():
        expected = network(pixels).numpy()
    save(network, pixels, writer, path)
    counts = len("net.") if kind.startswith("transformers") else 0
    stored = {name[counts:]: values.numpy() for name, values in network.state_dict().items()}
    read = pytorch.read_tensors(path, with_counters=True)
    assert set(read) == set(stored)
    assert all(np.array_equal(read[name], values) for name, values in stored.items())
    model = minimobile.load(path)
    error = np.abs(model(pixels.numpy()).logits - expected).max() / np.abs(expected).max()
    print(f"{kind} {writer}: {error:.1e}")
    assert error < 2e-5


@pytest.mark.crosscheck
def test_what_torch_froze_is_named(tmp_path: Path) -> None:
    save(make_network("torchvision"), None, "freeze", tmp_path / "net.pt")
    assert_refused(formats.read, tmp_path / "net.pt", "torch.jit.freeze")
