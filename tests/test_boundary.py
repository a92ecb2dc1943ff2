"""Whatever a reader raises is one sentence of ours, and what cannot be read is named as what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minimobile import formats
from minimobile.errors import ConfigError, FormatError, MinimobileError
from minimobile.formats.boundary import with_one_error
from minimobile.networks.config import MobileNetV1Config
from minimobile.storage.strict_json import parse_json_object

MODULE = b"\x80\x02ctorch.nn.modules.container\nSequential\n)R."
KINDS: dict[str, tuple[dict[str, bytes | str], str]] = {
    "a pickled module": (
        {"net.pt": MODULE},
        r"a whole module, pickled .*Sequential.*; save .*state_dict\(\)",
    ),
    "the start of an ONNX model": ({"net.onnx": bytes.fromhex("080a12077079746f726368")}, "found an ONNX model"),
    "a SavedModel": (
        {"net/saved_model.pb": b"\x08\x01\x12\x00", "net/x": b""},
        "expected a graph that is tagged 'serve', found none",
    ),
    "a TensorFlow.js model of nothing": (
        {"net/model.json": json.dumps({"format": "graph-model"}), "net/group1-shard1of1.bin": bytes(9)},
        "expected a model with its modelTopology, found weights alone",
    ),
    "the file of a TensorFlow.js model without nodes": (
        {"model.json": json.dumps({"modelTopology": {}, "weightsManifest": []})},
        "expected a graph of nodes or a Keras model, found neither",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_named_with_the_way_out(tmp_path: Path, kind: str) -> None:
    files, match = KINDS[kind]
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    first = Path(next(iter(files))).parts[0]
    with pytest.raises(FormatError, match=match):
        formats.read(tmp_path / first)


@pytest.mark.parametrize("error", [ValueError("a\nb"), IndexError(3), OverflowError(), RecursionError(), KeyError("x")])
def test_what_a_reader_did_not_foresee_is_one_sentence(error: Exception) -> None:
    def read(path: Path) -> None:
        raise error

    with pytest.raises(FormatError, match=rf"^x/y: cannot be read.*{type(error).__name__}") as caught:
        with_one_error(read)(Path("x/y"))
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_too_little_memory_says_so_and_interrupts_and_our_own_errors_pass() -> None:
    def read(path: Path, error: BaseException) -> Any:
        raise error

    with pytest.raises(FormatError, match="takes more memory than there is"):
        with_one_error(read)(Path("x"), error=MemoryError())
    for error in (KeyboardInterrupt(), ConfigError("ours")):
        with pytest.raises(type(error)) as caught:
            with_one_error(read)(Path("x"), error=error)
        assert caught.value is error


def test_every_row_of_the_table_has_the_boundary(tmp_path: Path) -> None:
    for entry in formats.FORMATS:
        with pytest.raises(MinimobileError):
            entry.read(tmp_path / "absent")


@pytest.mark.parametrize("text", ["1" + "0" * 400, "-" + "9" * 401, "1e999", "1" * 5000])
def test_numbers_beyond_any_float_are_refused(text: str, tmp_path: Path) -> None:
    for value in (text, f"[{text}]"):
        with pytest.raises(FormatError, match=r"x: expected valid JSON, found .*: (a whole number of|the number)"):
            parse_json_object(f'{{"a": {value}}}', "x")
    assert parse_json_object('{"a": 123456789012345678901234567890, "b": 1e308}', "x")["b"] == 1e308


def test_half_a_character_is_refused_and_a_whole_one_is_not() -> None:
    for text in (r'{"a": ["\ud800"]}', r'{"\uDfff": 1}', r'{"a": "\ude00\ud83d"}'):
        with pytest.raises(FormatError, match="x: expected valid JSON, found an error: half a character"):
            parse_json_object(text, "x")
    assert parse_json_object(r'{"a": "\ud83d\ude00 \\ud800"}', "x") == {"a": "\U0001f600 \\ud800"}


def test_a_config_in_code_refuses_them_too() -> None:
    with pytest.raises(ConfigError, match="layer_norm_eps: expected a number that a float can hold"):
        MobileNetV1Config(layer_norm_eps=10**400)


DAMAGED = ("bias_length", "bias_scalar", "mean_nan", "one_bit_scale", "pad_inf", "resize_nan", "s2b_nan")


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", [*(f"{name}.tflite" for name in DAMAGED), "config_401_digits"])
def test_damaged_files_that_had_another_error_or_none(name: str, test_data: Path) -> None:
    with pytest.raises(FormatError, match=name) as caught:
        formats.read(test_data / "hostile" / name)
    assert "cannot be read, it is most likely damaged" not in str(caught.value), "a check comes before the boundary"


def test_what_may_not_be_read_is_not_called_damaged() -> None:
    def read(path: Path) -> None:
        raise PermissionError(13, "Permission denied", "x/inside")

    with pytest.raises(FormatError, match=r"^x: cannot be read \(Permission denied\)$"):
        with_one_error(read)(Path("x"))
