"""Hostile and damaged PyTorch files (H12 to H18): refused in one sentence, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import FOREIGN, assert_refused, flip_bytes, truncations
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import (
    DATA,
    GOOD,
    MARK,
    ORDERED,
    PLAIN,
    PROTO,
    REDUCE,
    STOP,
    VALUES,
    legacy,
    number,
    small_files,
    state,
    storage,
    tensor,
    text,
    wrapped,
    zipped,
)

from minimobile.errors import MinimobileError
from minimobile.formats import stored_zip
from minimobile.formats.pytorch import pickle_machine, pytorch, tensors


def body_of(*operations: bytes) -> bytes:
    return zipped(b"".join(operations), {"0": DATA})


def with_entry(name: str, content: bytes = b"", **attributes: Any) -> bytes:
    """Return a good archive with one more member."""
    file = io.BytesIO(zipped(GOOD, {"0": DATA}))
    with zipfile.ZipFile(file, "a") as archive:
        info = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, content)
    return file.getvalue()


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new)


def with_flag(content: bytes, flag: int) -> bytes:
    changed = bytearray(content)
    place = changed.index(b"PK\x01\x02") + 8
    changed[place] |= flag
    return bytes(changed)


def overlapping() -> bytes:
    """Make the last member of the directory point to the first one's bytes."""
    content = bytearray(zipped(GOOD, {"0": DATA, "1": DATA}))
    first = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    return bytes(content)


def declared_large() -> bytes:
    """Let the directory claim 2.2 GB for a member of 24 bytes."""
    content = bytearray(zipped(GOOD, {"0": DATA}))
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[second + 20 : second + 28] = struct.pack("<2I", 2_200_000_000, 2_200_000_000)
    return bytes(content)


def many_members(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO + GOOD + STOP)
        for index in range(count):
            archive.writestr(f"archive/{index}", b"")
    return file.getvalue()


def deflated() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO + GOOD + STOP)
        archive.writestr("archive/data/0", bytes(10 * 2**20), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("pickle"), None)
    return file.getvalue()


class Caller:
    """What a hostile pickle looks like to the pickle module: a call on loading."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("ruined",)


VIEW = storage("0", 6)
SYSTEM = b"cposix\nsystem\n"
EVIL = MARK + text("touch ruined") + b"t" + REDUCE
HOSTILE: dict[str, tuple[bytes, str]] = {
    "H12-global": (body_of(SYSTEM, EVIL), "asks for 'posix.system'"),
    "H12-plain-pickle": (PROTO + SYSTEM + EVIL + STOP, "asks for 'posix.system'"),
    **{
        f"H12-pickle-module-{n}": (pickle.dumps(Caller(), protocol=n), "asks for '(posix|nt).mkdir'")
        for n in (2, 3, 4, 5)
    },
    "H12-stack-global-from-memo": (
        body_of(text("builtins"), b"q\x00", text("eval"), b"q\x01", b"h\x00h\x01\x93", EVIL),
        "asks for 'builtins.eval'",
    ),
    "H12-getattr": (body_of(b"cbuiltins\ngetattr\n"), "asks for 'builtins.getattr'"),
    "H12-numpy-chain": (body_of(b"\x8c\x05numpy\x8c\x11size.__builtins__\x93"), "asks for 'numpy.size.__builtins__'"),
    "H12-torch-load": (body_of(b"ctorch\nload\n"), "asks for 'torch.load'"),
    "H12-name-with-space": (body_of(b"ccollections OrderedDict\n\n"), "asks for"),
    "H12-stack-global-of-lists": (body_of(b"]]\x93"), "a nameless thing"),
    "H12-inst": (body_of(MARK, b"iposix\nsystem\n"), "the pickle opcode b'i'"),
    "H12-obj": (body_of(MARK, ORDERED, b"o"), "the pickle opcode b'o'"),
    "H12-newobj": (body_of(b"ccollections\nOrderedDict\n)\x81"), "the pickle opcode"),
    "H12-newobj-ex": (body_of(b"ccollections\nOrderedDict\n)}\x92"), "the pickle opcode"),
    **{
        f"H12-ext-{n}": (body_of(op), "the pickle opcode")
        for n, op in ((1, b"\x82\1"), (2, b"\x83\1\0"), (4, b"\x84\1\0\0\0"))
    },
    "H12-text-persistent-id": (body_of(b"Pevil\n"), "the pickle opcode b'P'"),
    "H12-ordered-dict-of-values": (body_of(b"ccollections\nOrderedDict\n(]tR"), "made empty"),
    "H12-global-beside-wrapped-weights": (body_of(wrapped(state_dict=GOOD, args=SYSTEM + EVIL)), "'posix.system'"),
    "H12-namespace": (body_of(wrapped(args=b"cargparse\nNamespace\n")), "asks for 'argparse.Namespace'"),
    "H13-wrapped-in-itself": (body_of(b"}q\x00", text("model"), b"h\x00s"), "found type dict under the name 'model'"),
    "H13-wrapped-twice": (
        body_of(wrapped(model=wrapped(state_dict=GOOD))),
        "found type OrderedDict under the name 'state_dict'",
    ),
    "H13-wrapped-text": (body_of(wrapped(state_dict=text("x"))), "found type str"),
    "H14-two-types-beside-wrapped": (
        zipped(wrapped(optimizer=state(b=tensor(storage("0", 5), 0, (5,), (1,))), model=GOOD), {"0": DATA}),
        "one type and length",
    ),
    "H13-build-on-tensor": (body_of(PLAIN, b"}b"), "the state of an object of type Tensor"),
    "H13-build-on-dict": (body_of(b"}}b"), "the state of an object of type dict"),
    "H13-build-other-state": (
        body_of(ORDERED, b"}", text("__class__"), b"Nsb"),
        "the state of an object of type OrderedDict",
    ),
    "H13-build-tuple-state": (body_of(ORDERED, b"N}", text("x"), b"Ns\x86b"), "sets the state"),
    "H13-setitem-on-tensor": (body_of(PLAIN, text("k"), b"Ns"), "for an object of type Tensor"),
    "H13-setitems-on-list": (body_of(b"]", MARK, text("k"), b"Nu"), "for an object of type list"),
    "H13-append-to-tensor": (body_of(PLAIN, b"Na"), "for an object of type Tensor"),
    "H13-appends-to-dict": (body_of(b"}", MARK, b"Ne"), "for an object of type dict"),
    "H13-odd-setitems": (body_of(b"}", MARK, text("k"), b"u"), "in pairs, found 1"),
    "H13-key-of-lists": (body_of(b"}", b"]Ns"), "dict keys"),
    "H13-reduce-a-text": (body_of(text("x"), b")R"), "a call of a known function"),
    "H13-reduce-a-storage-type": (body_of(b"ctorch\nFloatStorage\n)R"), "a call of a known function"),
    "H14-storage-larger": (zipped(GOOD, {"0": DATA + b"\0"}), "expected 24 bytes"),
    "H14-storage-smaller": (zipped(GOOD, {"0": DATA[:-1]}), "expected 24 bytes"),
    "H14-storage-missing": (zipped(GOOD, {"1": DATA}), "expected 24 bytes in archive/data/0, found none"),
    "H14-10-GB": (
        zipped(state(a=tensor(storage("0", 2_684_354_560), 0, (2_684_354_560,), (1,))), {"0": DATA}),
        "no more data",
    ),
    "H14-two-types": (
        zipped(state(a=PLAIN, b=tensor(storage("0", 12, "HalfStorage"), 0, (2,), (1,))), {"0": DATA}),
        "one type and length",
    ),
    "H14-key-a-path": (body_of(storage("../../x", 6)), "a storage's key"),
    "H14-negative-count": (body_of(storage("0", -1)), "number of elements"),
    "H15-offset": (body_of(tensor(VIEW, 1, (2, 3), (3, 1))), "does not fit its storage"),
    "H15-stride": (body_of(tensor(VIEW, 0, (2, 3), (4, 1))), "does not fit its storage"),
    "H15-stride-2^40": (body_of(tensor(VIEW, 0, (2, 3), (2**40, 1))), "does not fit its storage"),
    "H15-stride-2^60": (body_of(tensor(VIEW, 0, (2, 3), (2**60, 1))), "whole numbers"),
    "H15-negative-stride": (body_of(tensor(VIEW, 5, (2,), (-1,))), "whole numbers"),
    "H15-negative-offset": (body_of(tensor(VIEW, -1, (2,), (1,))), "whole numbers"),
    "H15-shape-2^40": (body_of(tensor(VIEW, 0, (2**40,), (0,))), "overlaps itself"),
    "H15-overlap": (body_of(tensor(VIEW, 0, (2, 3), (1, 1))), "overlaps itself"),
    "H15-no-elements": (body_of(tensor(VIEW, 0, (0,), (1,))), "does not fit"),
    "H15-shape-a-number": (
        body_of(b"ctorch._utils\n_rebuild_tensor_v2\n(", VIEW, b"K\0K\2K\1\x89N", b"tR"),
        "whole numbers",
    ),
    "H15-shape-of-bools": (
        body_of(b"ctorch._utils\n_rebuild_tensor_v2\n(", VIEW, b"K\0\x88\x85K\1\x85\x89N", b"tR"),
        "whole numbers",
    ),
    "H15-negative": (body_of(tensor(VIEW, 0, (6,), (1,), b"}" + text("neg") + b"\x88s")), r"save tensor\.resolve_neg"),
    "H15-other-ranks": (body_of(tensor(VIEW, 0, (2, 3), (1,))), "whole numbers"),
    "H15-no-storage": (body_of(b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89Nt", REDUCE), "made of a storage"),
    "H15-parameter-of-text": (
        body_of(b"ctorch._utils\n_rebuild_parameter\n", MARK, text("x"), b"\x88)t", REDUCE),
        "of a tensor",
    ),
    "H15-views-amplify": (
        zipped(
            state(**{f"t{i}": tensor(storage("0", 2**18), 0, (2**9, 2**9), (1, 2**9)) for i in range(80)}),
            {"0": bytes(2**20)},
        ),
        "no more data than the file can hold",
    ),
    "H16-truncated": (zipped(GOOD[:-5], {"0": DATA}), "nothing in it was run"),
    "H16-empty-pickle": (body_of(b""), "empty stack"),
    "H16-dangling-memo": (body_of(b"h\x07"), "value 7, which it never stored"),
    "H16-underflow": (body_of(b"R"), "empty stack"),
    "H16-underflow-below-mark": (body_of(b"N(\x85"), "empty stack"),
    "H16-no-mark": (body_of(b"]Nt"), "a mark that it never set"),
    "H16-two-values": (body_of(b"NN"), "found more"),
    "H16-text-of-2^31": (body_of(b"X\xff\xff\xff\x7f"), "at most 1048576 bytes"),
    "H16-text-of-2^63": (body_of(b"\x8d" + b"\xff" * 7 + b"\x7f"), "at most 1048576 bytes"),
    "H16-bytes-of-2^31": (body_of(b"B\xff\xff\xff\x7f"), "at most 1048576 bytes"),
    "H16-bad-text": (body_of(b"X\x01\0\0\0\xff"), "UTF-8"),
    "H16-million-marks": (body_of(MARK * 10**6), "pickle opcodes, found more"),
    "H16-doubling": (body_of(b"]" + b"q\0(h\0h\0e" * 60_000), "found more"),
    "H16-nested-tuples": (body_of(b")" + b"q\0h\0\x86" * 20_000), "found type tuple"),
    "H16-nested-60-deep": (body_of(b")" + b"q\0h\0\x86" * 60), "found type tuple"),
    "H16-name-without-end": (body_of(b"c" + b"a" * 1000), "truncated within a name"),
    "H16-protocol-1": (zipped(b"", {"0": DATA}).replace(PROTO, b"\x80\x01"), "protocol 2 to 5|checksum"),
    "H16-two-pickles": (body_of(GOOD, STOP, PROTO, b"N"), "one pickle, found more"),
    "H17-tar": (tar(), "a tar archive"),
    "H17-torchscript-constants": (zipped(GOOD, {"0": DATA}, add={"constants.pkl": b""}), "a TorchScript module"),
    "H17-torchscript-code": (zipped(GOOD, {"0": DATA}, add={"code/x.py": b""}), "a TorchScript module"),
    "H18-deflated": (deflated(), "found a compressed one"),
    "H18-two-pickles": (with_entry("other/data.pkl"), "one data.pkl in this archive, as torch.save writes, found 2"),
    "H18-no-pickle": (patched(zipped(GOOD, {"0": DATA}), b"data.pkl", b"date.pkl"), "found 0"),
    "H18-outside": (with_entry("../data"), "a plain relative name"),
    "H18-absolute": (with_entry("/etc/x"), "a plain relative name"),
    "H18-other-directory": (with_entry("other/x"), "found other members"),
    "H18-encrypted": (with_flag(zipped(GOOD, {"0": DATA}), 1), "an encrypted one"),
    "H18-crc": (patched(zipped(GOOD, {"0": DATA}), DATA, bytes(24)), "checksum does not fit"),
    "H18-overlap": (overlapping(), "contradicts|apart from others"),
    "H18-2-GB-declared": (declared_large(), "2200000000 bytes inside the archive"),
    "H18-many-members": (many_members(stored_zip.ENTRY_LIMIT), "at most 10000 members"),
    "H18-appended": (zipped(GOOD, {"0": DATA}) + b"MZ" + bytes(40), "found other data behind it"),
    "H18-byte-order": (zipped(GOOD, {"0": DATA}, add={"byteorder": "middle"}), "the byte order little or big"),
    "legacy-other-magic": (pickle.dumps(1, protocol=2), "a pickle of something else"),
    "legacy-other-protocol": (
        pickle.dumps(pytorch.LEGACY_MAGIC, protocol=2) + pickle.dumps(1002, protocol=2),
        "torch's protocol 1001",
    ),
    "legacy-count": (
        legacy(state(a=tensor(storage("0", 6, more=b"N"), 0, (6,), (1,))), ["0"], struct.pack("<q", 7) + DATA),
        "found another number",
    ),
    "legacy-cut": (
        legacy(state(a=tensor(storage("0", 6, more=b"N"), 0, (6,), (1,))), ["0"], struct.pack("<q", 6) + DATA[:-1]),
        "truncated",
    ),
    "legacy-keys": (
        legacy(state(a=tensor(storage("0", 6, more=b"N"), 0, (6,), (1,))), ["1"], b""),
        "a list of the 1 storages",
    ),
    "legacy-view": (legacy(state(a=tensor(storage("0", 6, more=b")"), 0, (6,), (1,))), ["0"], b""), "before 0.4"),
    "state-a-list": (body_of(b"]"), "found type list"),
    "state-of-more": (
        body_of(b"}", text("epoch"), number(3), b"s"),
        "found type int under the name 'epoch'; save the model's",
    ),
    "state-of-integers": (
        zipped(state(a=tensor(storage("0", 3, "LongStorage"), 0, (3,), (1,))), {"0": DATA}),
        "expected floats",
    ),
    "state-int-storage": (body_of(storage("0", 6, "IntStorage")), "asks for 'torch.IntStorage'"),
    **{f"foreign-{name}": value for name, value in FOREIGN.items()},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    content, match = HOSTILE[case]
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    assert_refused(pytorch.read_tensors, path, match)
    assert set(sys.modules) == modules
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_no_module_of_the_package_unpickles() -> None:
    package = Path(pytorch.__file__).parents[1]
    for path in package.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        for word in ("import pickle\n", "pickle.load", "Unpickler", "allow_pickle=True", " eval(", "import marshal"):
            assert word not in code, f"{path.name}: {word}"


def test_every_opcode_of_the_machine_is_that_of_the_standard_library() -> None:
    import pickletools

    known = {opcode.code.encode("latin-1")[0]: opcode.name for opcode in pickletools.opcodes}
    assert set(pickle_machine.STEPS) <= set(known)
    forbidden = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER"}
    assert not forbidden & {known[code] for code in pickle_machine.STEPS}


@pytest.mark.parametrize("kind", ["zip", "older"])
def test_every_truncation_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.bin"
    for content in truncations(small_files()[kind], 7):
        path.write_bytes(content)
        with pytest.raises(MinimobileError):
            pytorch.read_tensors(path)


@pytest.mark.parametrize("kind", ["zip", "older"])
def test_a_flipped_byte_gives_an_error_or_a_whole_result(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(small_files()[kind])
    loaded = 0
    for _ in flip_bytes(path, 2000):
        try:
            tensors = pytorch.read_tensors(path)
        except MinimobileError:
            continue
        loaded += 1
        for values in tensors.values():
            assert values.dtype in (np.float32, np.float64)
            assert 0 < values.size <= 6
            if kind == "zip":  # the data have checksums there
                assert set(values.ravel().tolist()) <= set(VALUES.tolist())
    assert 0 < loaded < 2000


OPERATIONS = st.one_of(
    st.sampled_from([bytes([code]) for code in pickle_machine.STEPS]),
    st.sampled_from(
        [ORDERED, PLAIN, storage("0", 6), b"(", b")", b"t", b"R", b"}", b"]", b"b", b"s", b"u", b"e", b"a"]
    ),
    st.builds(lambda index: bytes([0x71, index]), st.integers(0, 3)),
    st.builds(lambda index: bytes([0x68, index]), st.integers(0, 3)),
    st.builds(text, st.sampled_from(["a", "_metadata", "storage", "cpu"])),
    st.builds(number, st.integers(-3, 2**40)),
    st.binary(max_size=3),
)


@settings(max_examples=400)
@given(operations=st.lists(OPERATIONS, max_size=25))
def test_any_row_of_opcodes_gives_a_state_dict_or_an_error(operations: list[bytes]) -> None:
    machine = pickle_machine.PickleMachine(
        "x",
        io.BytesIO(PROTO + b"".join(operations) + STOP),
        tensors.allowed_names("x"),
        lambda key: tensors._load_storage("x", key, 5),
    )
    try:
        state_dict = pytorch._check_state("x", machine.run(), 1000)
    except MinimobileError:
        return
    assert all(type(value) is tensors.Tensor for value in state_dict.values())
