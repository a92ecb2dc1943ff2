"""Object files put into memory without LLVM: the same results as with it, and nothing that is not understood."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quantized_files import write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.networks.build_graph import build_graph
from minimobile_kernels import elf, entries, kernel_cache, llvm, native
from minimobile_kernels.abi import CALL, Array
from minimobile_kernels.native import Entry

pytestmark = pytest.mark.skipif(not elf.is_for_this_system(), reason="elsewhere LLVM loads machine code")
FLOAT64 = np.dtype(np.float64)
PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (70, 90, 3), np.uint8))


def grow(x, counts, out):
    """Something of all that object files have: constants, a table of jumps, and functions of the system."""
    for place in range(x.size):
        out[place] = 0
    for place in range(x.size):
        if counts[place] == 0:
            out[place] = 0.1
        elif counts[place] == 1:
            out[place] = x[place] * 7.25
        elif counts[place] == 2:
            out[place] = math.ldexp(x[place], 3)
        elif counts[place] == 3:
            out[place] = -x[place]
        elif counts[place] == 4:
            out[place] = np.floor(x[place])


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        entry = Entry("test_elf", "grow", Array(FLOAT64), Array(np.dtype(np.int64)), Array(FLOAT64, is_written=True))
        entry(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))
        (file,) = kernel_cache.cache_directory().iterdir()
        found = kernel_cache.read(file.name)
    assert found is not None
    return entry, found


GROWN = [10.875, -20.0, 0.1, -4.0, 5.0, 0.0]


def run_from(address, entry):
    x, counts, out = np.array([1.5, -2.5, 3.0, 4.0, 5.5, 6.0]), np.array([1, 2, 0, 3, 4, 9]), np.ones(6)
    assert native._CALL(address)(entry.table((x, counts, out)), 0) == 0
    return out.tolist()


def test_code_runs_wherever_it_is_put(objects):
    entry, content = objects
    addresses = {elf.load(content, CALL) for _ in range(3)}
    assert len(addresses) == 3
    assert [run_from(address, entry) for address in addresses] == [GROWN] * 3
    engine, address = llvm.load(content)
    assert run_from(address, entry) == GROWN
    del engine


def test_memory_is_never_written_and_executed_at_once(objects):
    address = elf.load(objects[1], CALL)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    pages = [(*(int(end, 16) for end in ends.split("-")), rights) for ends, rights, *_ in lines]
    assert [rights for start, end, rights in pages if start <= address < end] == ["r-xp"]


def detect(folder):
    model = mm.load("demo:boxes")
    inputs = model.processor(PICTURE, return_tensors="np")
    found = model(**inputs).to_tuple()
    return inputs["pixel_values"], *(value for value in found if isinstance(value, np.ndarray))


def classify_in_bytes(folder):
    graph = build_graph(mm.MobileNetV1Config(depth_multiplier=0.25, num_labels=10), "MobileNetV1ForImageClassification")
    path = folder / "model.tflite"
    path.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True), (64, 64)).write())
    model = mm.load(path)
    model.processor = mm.load("demo:digits").processor
    logits = model(**model.processor(PICTURE, return_tensors="np")).logits
    return logits, np.array([found["probability"] for found in mm.classify(PICTURE, model=model, top=10)])


@pytest.mark.parametrize(
    ("answer", "needed"),
    [(detect, ("run", "detect", "resample")), (classify_in_bytes, ("run_quantized", "look_up_pixels"))],
)
def test_kernels_give_the_same_bits_whoever_has_put_them_into_memory(tmp_path, monkeypatch, answer, needed):
    ours = answer(tmp_path)
    engines = []
    for name in needed:  # not what helpers wait in: they would be there longer than LLVM's engines
        entry = getattr(entries, name)
        content = kernel_cache.read(entry._file_name())
        assert content is not None
        assert elf.load(content, CALL)
        engine, address = llvm.load(content)
        engines.append(engine)
        monkeypatch.setattr(entry, "_function", native._CALL(address))
    theirs = answer(tmp_path)
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def headers(content):
    """Yield where each section header is, with its fields."""
    table, count = struct.unpack_from("<Q", content, 40)[0], struct.unpack_from("<H", content, 60)[0]
    for number in range(count):
        place = table + 64 * number
        yield place, struct.unpack_from("<IIQQQQIIQQ", content, place)


def with_number(content, place, form, number):
    changed = bytearray(content)
    struct.pack_into(form, changed, place, number)
    return bytes(changed)


def spoilt(content):
    """Yield object files that must be refused, each with what is wrong with it."""
    yield "not ELF", b"MZ" + content[2:]
    yield "of 32 bits", with_number(content, 4, "<B", 1)
    yield "the most significant byte first", with_number(content, 5, "<B", 2)
    yield "a program", with_number(content, 16, "<H", 2)
    yield "for another processor", with_number(content, 18, "<H", 183)
    yield "headers beyond the end", with_number(content, 40, "<Q", len(content))
    yield "headers of another size", with_number(content, 58, "<H", 40)
    for place, (_, kind, flags, _, _, size, _, _, _, _) in headers(content):
        if flags & 2 and kind == 1 and size:
            yield "a section that is written to", with_number(content, place + 8, "<Q", flags | 1)
            yield "memory of each thread", with_number(content, place + 8, "<Q", flags | 0x400)
            yield "of another type", with_number(content, place + 4, "<I", 8)
            yield "beyond the end", with_number(content, place + 24, "<Q", len(content) - size + 1)
            yield "aligned to no power of two", with_number(content, place + 48, "<Q", 3)
            yield "aligned to more than a page", with_number(content, place + 48, "<Q", 1 << 20)
        if kind == 2:
            yield "symbols without names", with_number(content, place + 40, "<I", 10_000)
            yield "half a symbol", with_number(content, place + 32, "<Q", size - 1)
            yield "no symbols", with_number(content, place + 4, "<I", 1)
    for place, (_, kind, _, _, offset, size, _, info, _, _) in headers(content):
        if kind == 4 and size and is_code(content, info):
            yield "relocations without addends", with_number(content, place + 4, "<I", 9)
            yield "a relocation beyond the end", with_number(content, offset, "<Q", 1 << 40)
            yield "one that reaches beyond it", with_number(content, offset, "<Q", code_size(content, info) - 7)
            yield "an unknown relocation", with_number(content, offset + 8, "<I", 10)
            yield "a symbol that is not there", with_number(content, offset + 12, "<I", 1 << 30)
            yield "of no symbol", with_number(content, offset + 12, "<I", 0)
            far_away = with_number(content, offset + 16, "<q", 1 << 40)
            yield "too far for 32 bits", with_number(far_away, offset + 8, "<I", 2)
            yield "below zero", with_number(content, offset + 16, "<q", -(1 << 63))


def is_code(content, number):
    return list(headers(content))[number][1][2] & 4


def code_size(content, number):
    return list(headers(content))[number][1][5]


def test_what_is_not_understood_is_refused(objects):
    first, second = objects[1]
    reasons = []
    for reason, content in spoilt(first):
        with pytest.raises(elf.UnknownObjectError):
            elf.load((content, second), CALL)
            print(f"loaded: {reason}")
        reasons.append(reason)
    assert len(set(reasons)) == 24
    for content in ((first,), (second,), (first, second, second), (), (first[:100], second)):
        with pytest.raises(elf.UnknownObjectError):
            elf.load(content, CALL)
    with pytest.raises(elf.UnknownObjectError, match="'none'"):
        elf.load((first, second), "none")


def test_what_the_system_does_not_have_is_refused(objects, monkeypatch):
    monkeypatch.setattr(elf, "SYSTEM_CALLS", frozenset())
    with pytest.raises(elf.UnknownObjectError, match=r"the symbol '(memset|ldexp)'"):
        elf.load(objects[1], CALL)


def test_llvm_loads_what_this_module_does_not_understand(objects, monkeypatch):
    entry, content = objects
    monkeypatch.setattr(elf, "_VALUES", {})
    engine, address = native.load(content)
    assert engine is not None and run_from(address, entry) == GROWN


def test_damaged_files_are_loaded_or_refused_and_nothing_else(objects):
    """They are not called: a checksum stands before this."""
    first, second = objects[1]
    rng = np.random.default_rng(0)
    outcomes = set()
    for place in rng.integers(0, len(first), 400).tolist():
        damaged = with_number(first, place, "<B", first[place] ^ (1 << place % 8))
        try:
            outcomes.add(elf.load((damaged, second), CALL) > 0)
        except elf.UnknownObjectError:
            outcomes.add(False)
    assert outcomes == {True, False}
    for end in range(0, len(first), 61):
        with pytest.raises(elf.UnknownObjectError):
            elf.load((first[:end], second), CALL)
