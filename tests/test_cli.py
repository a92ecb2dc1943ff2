"""The command line as a whole: what every command does alike. Each command has its own file beside this one."""

from __future__ import annotations

import dataclasses
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

import minimobile as mm
from minimobile import cli
from minimobile.cli import console
from minimobile.cli.options import path
from minimobile.errors import FormatError, InputError, UnavailableError
from minimobile.formats import hdf5
from tests.conftest import Run


def test_without_a_word_it_explains_itself(run: Run) -> None:
    code, out, err = run()
    assert code == 0
    assert err == ""
    for command in ("demo", "classify", "segment", "features", "inspect", "convert"):
        assert f"\n  {command} " in out
    assert "Start with `minimobile demo`" in out


def test_every_command_has_help_within_80_columns(run: Run) -> None:
    for command in cli.COMMANDS:
        code, out, err = run(command, "--help")
        assert code == 0
        assert err == ""
        assert "Usage: minimobile" in out
        assert max(map(len, out.splitlines())) <= 80
        summary = (getattr(import_module(f"minimobile.cli.{command}"), command).__doc__ or "").partition("\n")[0]
        assert len(summary) <= 60, "or the list of commands cuts it"
        assert summary in run("--help").out


def test_no_option_refuses_a_file_before_the_command_has_seen_it() -> None:
    """One picture that may not be read stops no others; a file to be replaced need not be read at all."""
    parsers: dict[str, object] = {}
    for command in cli.COMMANDS:
        function = getattr(import_module(f"minimobile.cli.{command}"), command)
        for name, hint in get_type_hints(function, include_extras=True).items():
            kind, *information = get_args(hint) or (hint,)
            if information and "Path" in str(kind):
                parsers[f"{command} {name}"] = information[0].parser
    assert {"classify images", "convert destination", "run out"} <= parsers.keys()
    assert [name for name, parser in parsers.items() if parser is not path] == []


def test_version(run: Run) -> None:
    assert run("--version") == (0, "minimobile 0.1.0\n", "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["classify"], "Missing argument 'IMAGE'"),
        (["classify", "a.png", "--top", "0"], "'--top'"),
        (["classify", "a.png", "--top", "many"], "'--top'"),
        (["classify", "a.png", "--tops", "3"], "No such option"),
        (["classify", "a.png", "--format", "xml"], "'--format'"),
        (["segment", "a.png", "--out", "x"], "Missing option '--model'"),
        (["segment", "a.png", "--model", "x"], "Missing option '--out'"),
        (["features", "a.png", "--out", "x.npz"], "Missing option '--layer'"),
        (["features", "a.png", "--layer", "x", "--out", "x.txt"], "expected a file name ending in .npz or .h5"),
        (["inspect", "x", "--size", "-3"], "'--size'"),
        (["convert", "x"], "Missing argument 'DST'"),
        (["convert", "x", "y.pth"], "got the suffix '.pth'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(run: Run, words: list[str], sentence: str) -> None:
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert err.rstrip().endswith("--help")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["classify", "segment", "features", "inspect", "convert"])
def test_a_broken_or_missing_model_is_one_sentence_and_code_1(run: Run, tmp_path: Path, command: str) -> None:
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    rest = {
        "segment": ["--out", tmp_path / "out"],
        "features": ["--layer", "layer.1", "--out", tmp_path / "x.npz"],
        "convert": [tmp_path / "y.h5"],
    }.get(command, [])
    for model in (broken, tmp_path / "missing", "demo:horses"):
        named = [model] if command in ("inspect", "convert") else ["a.png", "--model", model]
        code, out, err = run(command, *named, *rest)
        assert code == 1
        assert out == ""
        assert err.startswith(f"error: {model}")
        assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"broken.h5"}


FAILING: dict[str, list[str]] = {
    "demo": ["--out", "FOLDER/none/x.png"],
    "classify": ["a.png", "--model", "FOLDER/none"],
    "segment": ["a.png", "--model", "FOLDER/none", "--out", "FOLDER/o"],
    "detect": ["a.png", "--model", "FOLDER/none"],
    "features": ["a.png", "--model", "FOLDER/none", "--layer", "layer.1", "--out", "FOLDER/x.npz"],
    "inspect": ["FOLDER/none"],
    "trace": ["FOLDER/none", "a.png"],
    "explore": ["FOLDER/none", "a.png", "--out", "FOLDER/x.html"],
    "convert": ["FOLDER/none", "FOLDER/x.h5"],
    "quantize": ["FOLDER/none", "FOLDER/x.tflite"],
    "check": ["FOLDER/none", "a.png", "--against", "reference"],
    "bench": ["FOLDER/none"],
}


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name not in ("run", "warmup")])
def test_json_is_whole_or_nothing(run: Run, tmp_path: Path, command: str) -> None:
    words = [word.replace("FOLDER", str(tmp_path)) for word in FAILING[command]]
    code, out, err = run(command, *words, "--format", "json")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path}/none") and err.count("\n") == 1
    code, out, err = run(command, *words, "--format", "json", "--no-such-option")
    assert (code, out) == (2, "")
    assert err.startswith("error: No such option") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("spoilt", ["nan", "inf"])
@pytest.mark.parametrize("command", ["classify", "segment", "features"])
def test_nothing_is_made_of_nan_and_infinity(
    run: Run, classifier: Path, segmenter: Path, photos: Path, tmp_path: Path, command: str, spoilt: str
) -> None:
    checkpoint = mm.load(segmenter if command == "segment" else classifier).to_checkpoint()
    name = next(name for name in checkpoint.weights if "classifier" in name and name.endswith("bias"))
    values = checkpoint.weights[name].copy()
    values[1] = float(spoilt)
    model, out_path = tmp_path / "spoilt.h5", tmp_path / "results.npz"
    hdf5.write(model, dataclasses.replace(checkpoint, weights={**checkpoint.weights, name: values}))
    rest = {"classify": [], "segment": ["--out", out_path], "features": ["--out", out_path, "--layer", "classifier"]}
    code, out, err = run(command, photos, "--model", model, *rest[command])
    assert (code, out) == (1, "")
    warning, *errors = err.splitlines()
    assert warning.endswith(f": 1 weights hold NaN or infinity: {name}")
    assert [line.partition(", got")[0] for line in errors] == [
        f"error: {photos / photo}: expected finite {'values of classifier' if command == 'features' else 'logits'}"
        for photo in ("a.png", "b.jpg")
    ]
    assert all("of 3;" in line or "of 96;" in line for line in errors)
    assert not out_path.exists() or not list(out_path.iterdir())
    if command == "classify":
        with (
            pytest.warns(UserWarning),
            pytest.raises(InputError, match=r"image: expected finite logits, got .* in 1 of 3;"),
        ):
            mm.classify(np.zeros((40, 50, 3), np.uint8), model=model)


def test_the_environment_names_the_model(
    run: Run, classifier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIMOBILE_MODEL", str(classifier))
    code, out, _ = run("classify", photos / "a.png")
    assert code == 0
    assert "emu" in out


def test_an_error_says_that_the_environment_named_the_model(
    run: Run, classifier: Path, segmenter: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, rest = tmp_path / "missing", {"segment": ["--out", tmp_path], "features": ["--layer", 1, "--out", "x.npz"]}
    for command in ("classify", "segment", "features"):
        words = (command, photos / "a.png", *rest.get(command, []))
        monkeypatch.setenv("MINIMOBILE_MODEL", str(missing))
        code, out, err = run(*words)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: $MINIMOBILE_MODEL: {missing}: ") and err.count("\n") == 1
        assert run(*words, "--model", missing).err.startswith(f"error: {missing}: "), "the option comes first"
    with pytest.raises(FormatError, match=r"^\$MINIMOBILE_MODEL: .*missing: "):
        mm.classify(photos / "a.png")
    monkeypatch.setenv("MINIMOBILE_MODEL", str(segmenter))
    assert run("classify", photos / "a.png").err.startswith(
        f"error: $MINIMOBILE_MODEL: {segmenter}: expected a model for"
    )
    with pytest.raises(InputError, match=r"^\$MINIMOBILE_MODEL: .*, got a MobileNetV2ForSemanticSegmentation$"):
        mm.classify(photos / "a.png")
    with pytest.raises(InputError, match=r"^model: .*, got a MobileNetV2ForSemanticSegmentation$"):
        mm.classify(photos / "a.png", model=segmenter)  # the environment named another


def test_a_model_for_something_else_is_answered_with_its_command(run: Run, photos: Path) -> None:
    for command, name, other in (("classify", "boxes", "detect"), ("detect", "scenes", "segment")):
        outcome = run(command, photos / "a.png", "--model", f"demo:{name}")
        assert outcome.code == 1
        assert outcome.err.endswith(f"(for which there is `minimobile {other}`)\n")


@pytest.mark.parametrize("is_installed", [True, False])
def test_without_a_model_the_ways_out_are_named(
    run: Run, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    """And to install the hub's package is none of them for those who have it."""
    fail = UnavailableError("google/net: config.json is not in the cache of the hub; be online")
    monkeypatch.setattr("minimobile.models.auto.load", lambda source, **options: (_ for _ in ()).throw(fail))
    monkeypatch.setattr("minimobile.cli.models.find_spec", lambda name: object() if is_installed else None)
    code, out, err = run("classify", photos / "a.png")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    for way_out in ("minimobile demo", "--model PATH", "$MINIMOBILE_MODEL"):
        assert way_out in err
    assert ("minimobile[hub]" in err) != is_installed
    assert ("(google/net: config.json is not in the cache of the hub)" in err) == is_installed


def test_a_fault_of_ours_is_confessed_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr("minimobile.models.inspection.inspect", fail)
    code, out, err = run("inspect", "x")
    assert code == 1
    assert out == ""
    assert "a fault of minimobile itself (KeyError: 'no such thing')" in err
    assert "MINIMOBILE_DEBUG=1" in err


def test_control_characters_of_strangers_never_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    code, _, err = run("inspect", "evil\x1b[2J\nname")
    assert code == 1
    assert "evil\\x1b[2J\\nname" in err
    assert "\x1b" not in err


def test_tables_are_cut_for_a_terminal_and_whole_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ["word " * 30, "12345"]
    monkeypatch.setenv("COLUMNS", "80")
    console.write_table(("text", "number#"), [row])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    monkeypatch.delenv("COLUMNS")
    console.write_table(("text", "number#"), [row])
    out = capsys.readouterr().out
    assert ("word " * 30).strip() in out
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_json_holds_only_what_json_can_hold(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_json([{"x": float("nan"), "y": (float("inf"), 1.5)}])
    assert "NaN" not in (out := capsys.readouterr().out)
    assert out.split() == ["[", "{", '"x":', "null,", '"y":', "[", "null,", "1.5", "]", "}", "]"]


def test_progress_shows_on_a_terminal_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(console.track([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(console.track([1, 2, 3], "counting")) == [1, 2, 3]
    out, err = capsys.readouterr()
    assert out == ""
    assert "counting" in err


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_without_the_code_that_it_came_from(run: Run, tmp_path: Path) -> None:
    config = mm.MobileNetV1Config(depth_multiplier=0.1, num_labels=2)
    checkpoint = mm.MobileNetV1ForImageClassification(config).to_checkpoint()
    name = "mobilenet_v1.layer.9.convolution.weight"
    spoilt = {**checkpoint.weights, name: checkpoint.weights[name] * np.float32("nan")}
    hdf5.write(tmp_path / "x.h5", dataclasses.replace(checkpoint, weights=spoilt))
    code, _, err = run("inspect", tmp_path / "x.h5")
    assert code == 0
    assert err == f"warning: {tmp_path / 'x.h5'}: 1 weights hold NaN or infinity: {name}\n"
