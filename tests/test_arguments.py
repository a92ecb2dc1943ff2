"""Arguments of the public functions: of whatever type a wrong one is, one sentence names it."""

import enum
import functools
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimobile as mm
from minimobile.arguments import check_choice, read_flag, read_whole
from minimobile.errors import InputError, MinimobileError

PHOTO = np.zeros((40, 40, 3), np.uint8)
PIXELS = np.zeros((1, 3, 32, 32), np.float32)


class Thing(enum.Enum):
    A = 1


WRONG = {
    "array": np.array([1, 2]), "objects": np.array([None, 1], object), "scalar": np.array(1), "text": np.array("x"),
    "masked": np.ma.masked_array([1, 2], [0, 1]), "half": np.float16(0.5), "number": -1, "decimal": Decimal("0.5"),
    "infinity": float("inf"), "complex": 1j, "list": ["x"], "dict": {"x": 1}, "set": {1}, "bytes": b"x",
    "surrogate": "\ud800", "type": int, "enum": Thing.A, "function": len, "generator": (each for each in ()),
}  # fmt: skip


def run(*sources, out="table", **options):
    return mm.run(*sources, out=out, **{"task": "classify", "model": "demo:digits", "table_format": "csv", **options})


@functools.cache
def digits():
    return mm.load("demo:digits")


@functools.cache
def integers():
    return mm.quantize("demo:digits")


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


CALLS = [
    (lambda **given: mm.load("demo:digits", **given),
     ["config", "engine", "dtype", "num_threads", "bytes_of", "dequantize", "quantized", "num_labels", "id2label"]),
    (mm.load, ["source"]),
    (mm.pipeline, ["task"]),
    (lambda **given: mm.quantize("demo:digits", **given),
     ["pictures", "per_channel", "ranges", "equalize", "correct_bias", "input_type"]),
    (lambda **given: mm.convert("demo:digits", "new.h5", **given), ["dtype", "overwrite"]),
    (lambda **given: mm.convert("demo:digits", **given), ["destination"]),
    (lambda **given: run([], **given),
     ["out", "task", "layers", "threshold", "overlay", "draft", "jobs", "rows_per_part", "shard", "table_format",
      "engine"]),
    (run, ["sources"]),
    (lambda **given: digits()(PIXELS, **given), ["return_dict", "data_format", "output_hidden_states"]),
    (lambda **given: mm.MobileNetV1ForImageClassification(mm.MobileNetV1Config(image_size=32), **given),
     ["add_pooling_layer", "seed"]),
    (lambda **given: digits().trace(**given), ["pixel_values"]),
    (lambda **given: digits().trace(PIXELS, **given), ["layers", "every_node"]),
    (lambda **given: digits().explain(PIXELS, "conv_stem", (0, 0, 0)).tables(**given), ["every_term"]),
    (lambda **given: digits().requires_grad_(**given), ["requires_grad"]),
    (lambda **given: digits().save("new.h5", **given), ["dtype"]),
    (mm.MobileNetV2Config().to_json_string, ["use_diff"]),
    (lambda **given: integers().resolve(**given), ["layer"]),
    (lambda **given: mm.segment(PHOTO, "demo:scenes").overlay(**given), ["alpha", "legend"]),
    (mm.BatchFeature().convert_to_tensors, ["tensor_type"]),
    (mm.MobileNetSSDConfig.from_dict, ["values"]),
]  # fmt: skip

FLAGS = {
    "dequantize", "quantized", "per_channel", "equalize", "correct_bias", "overwrite", "overlay", "draft",
    "return_dict", "add_pooling_layer", "every_node", "every_term", "requires_grad", "use_diff", "legend",
}  # fmt: skip


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, names in CALLS for name in names])
def test_what_is_wrong_is_said_in_a_sentence(call, name):
    """A value that has a meaning after all is taken; any other error than ours ends the test."""
    for kind, value in WRONG.items():
        try:
            call(**{name: value})
        except MinimobileError as error:
            assert len(str(error).splitlines()) == 1 and ":" in str(error), kind
        except Exception as error:
            raise AssertionError(f"{name} as {kind}: {error!r}") from error


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, names in CALLS for name in names if name in FLAGS])
def test_no_flag_takes_a_text_for_true(call, name):
    with pytest.raises(InputError, match=f"^{name}: expected True or False, got 'false'"):
        call(**{name: "false"})


@pytest.mark.parametrize("name", ["dequantize", "quantized"])
@pytest.mark.parametrize("value", ["", 0, 1, None, np.array(True), [True]])
def test_a_flag_is_true_or_false_and_nothing_like_it(name, value):
    with pytest.raises(InputError, match=f"^{name}: expected True or False, got"):
        mm.load("demo:digits", **{name: value})


def test_a_file_is_not_replaced_because_somebody_wrote_false_as_a_text():
    Path("there.h5").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"^overwrite: expected True or False, got 'false'"):
        mm.convert("demo:digits", "there.h5", overwrite="false")
    assert Path("there.h5").read_bytes() == b"mine"


def test_arguments_that_are_right_are_taken_whatever_type_has_them():
    assert read_flag(np.True_, "flag") is True and read_flag(False, "flag") is False
    assert read_whole(np.uint8(7), "number") == 7 and type(read_whole(np.int64(7), "number")) is int
    check_choice(np.str_("a"), "letter", ("a", "b"))


def test_a_number_without_a_most_is_expected_to_be_so_many_or_more():
    with pytest.raises(InputError, match="jobs: expected a whole number of 1 or more, got 0"):
        run([], jobs=0)
    with pytest.raises(InputError, match="rows: expected a whole number of 1 to 9, got 10"):
        read_whole(10, "rows", 1, 9)


@pytest.mark.parametrize("kind", [iter, tuple, set, np.array])
def test_sources_are_whatever_holds_paths(kind):
    Image.fromarray(PHOTO).save("photo.png")
    summary = run(kind(["photo.png"]), rows_per_part=np.int64(7), jobs=np.uint8(1))
    assert (summary.rows, summary.errors, summary.is_complete) == (1, 0, True)


def test_one_source_needs_no_list():
    with pytest.raises(InputError, match=r"^nothing: expected a folder, a picture"):
        run("nothing")
    with pytest.raises(InputError, match=r"^nothing: expected a folder, a picture"):
        run(Path("nothing"))
