"""Conversions: what comes back bit for bit, what the report says, and that a failure leaves nothing half-written."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from judgement import assert_agrees

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError, InputError, MinimobileError
from minimobile.formats import hdf5, huggingface
from minimobile.formats.checkpoint import ARCHITECTURES, Checkpoint
from minimobile.models import conversion
from minimobile.models.conversion import convert
from minimobile.models.weights import draw_weights
from minimobile.networks.build_graph import build_graph

COUNTER = "num_batches_tracked"


def make_checkpoint(architecture: str = "MobileNetV1ForImageClassification", **fields: Any) -> Checkpoint:
    """Return a small random network with labels, a processor, and batch norms that have counted."""
    config_class: Any = mm.MobileNetV1Config if "V1" in architecture else mm.MobileNetV2Config
    config = config_class(
        **{"depth_multiplier": 0.1, "id2label": {0: "Käse", 1: "猫", 2: "emu"}, "output_stride": 32} | fields
    )
    rng = np.random.default_rng(5)
    weights = draw_weights(build_graph(config, architecture), 0.2, 3)
    for number, name in enumerate([name for name in weights if name.endswith("running_mean")]):
        weights[name.replace("running_mean", COUNTER)] = np.array(number + 1, np.int64)
        weights[name] = rng.standard_normal(weights[name].shape).astype(np.float32)
        weights[name.replace("mean", "var")] = rng.uniform(0.5, 2, weights[name].shape).astype(np.float32)
    processor = {"do_resize": True, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    return Checkpoint(config, weights, architecture, processor)


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    huggingface.write(folder, checkpoint)
    return folder


def stored(directory: Path) -> dict[str, Any]:
    """Return everything that a directory holds: {name: (type, shape, bytes)} and the texts."""
    arrays = safetensors.numpy.load_file(directory / "model.safetensors")
    texts = {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix == ".json"}
    return texts | {name: (str(values.dtype), values.shape, values.tobytes()) for name, values in arrays.items()}


PARTS = ("MobileNetV2Model", "MobileNetV2ForImageClassification")  # of others, nearly: their turn comes with the slow


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=pytest.mark.slow if name in PARTS else ()) for name in ARCHITECTURES]
)
def test_there_and_back_gives_every_array_back_bit_for_bit(tmp_path: Path, architecture: str) -> None:
    source = write(tmp_path / "source", make_checkpoint(architecture))
    convert(source, tmp_path / "native.h5")
    convert(tmp_path / "native.h5", tmp_path / "back")
    assert any(name.endswith(COUNTER) for name in stored(source))
    assert stored(tmp_path / "back") == stored(source)


def test_shards_give_every_array_back_too(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    before = stored(source)
    arrays = safetensors.numpy.load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    places = {name: f"model-{1 + (number % 2)}.safetensors" for number, name in enumerate(arrays)}
    for place in set(places.values()):
        part = {name: values for name, values in arrays.items() if places[name] == place}
        safetensors.numpy.save_file(part, source / place)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    convert(source, tmp_path / "whole")
    assert stored(tmp_path / "whole") == before


def test_the_report_accounts_for_every_array(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("MobileNetV1Model")
    strangers = {"classifier.weight": np.zeros((3, 102), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    still = {name: values * 0 for name, values in checkpoint.weights.items() if name.endswith(COUNTER)}
    source = write(
        tmp_path / "x", dataclasses.replace(checkpoint, weights={**checkpoint.weights, **strangers, **still})
    )
    report = convert(source, tmp_path / "y.h5")
    assert (report.format, report.dialect, report.layout) == (
        "Hugging Face directory",
        "huggingface",
        conversion.NATIVE,
    )
    assert set(report.mapped) | set(report.ignored) == set(safetensors.numpy.load_file(source / "model.safetensors"))
    assert not set(report.mapped) & set(report.ignored)
    assert report.mapped["layer.3.convolution.weight"] == "mobilenet_v1.layer.3.convolution.weight"
    assert report.ignored["classifier.bias"] == "nothing that a MobileNetV1Model has"
    assert sorted(report.written) == sorted(name for name in checkpoint.weights if not name.endswith(COUNTER))
    assert (report.missing, report.idle, report.rounded, report.notes) == ((), (), (), ())
    assert json.loads(json.dumps(report.to_dict()))["ignored"]["conv_stem.normalization." + COUNTER] == (
        "a counter of training batches that stands at 0"
    )


def without_last_convolution(checkpoint: Checkpoint) -> Checkpoint:
    """Return a DeepLab as its own checkpoints are: without `conv_1x1`, which no output needs."""
    kept = {name: values for name, values in checkpoint.weights.items() if ".conv_1x1." not in name}
    return dataclasses.replace(checkpoint, weights=kept)


def test_a_deeplab_without_its_idle_convolution(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("MobileNetV2ForSemanticSegmentation", output_stride=8)
    source = write(tmp_path / "x", without_last_convolution(checkpoint))
    native = convert(source, tmp_path / "y.h5")
    assert {name.split(".")[1] for name in native.missing} == {"conv_1x1"}
    assert len(native.missing) == 5
    assert (native.idle, set(native.written) & set(native.missing)) == ((), set())
    directory = convert(source, tmp_path / "z")
    assert directory.idle == directory.missing == native.missing
    arrays = safetensors.numpy.load_file(tmp_path / "z" / "model.safetensors")
    assert not arrays["mobilenet_v2.conv_1x1.convolution.weight"].any()
    assert (arrays["mobilenet_v2.conv_1x1.normalization.running_var"] == 1).all()
    pixels = np.random.default_rng(1).standard_normal((1, 3, 9, 8)).astype(np.float32)
    logits = [mm.load(path, engine="reference")(pixels).logits for path in (source, tmp_path / "z")]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_a_part_of_an_idle_convolution_is_ignored_with_the_reason(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("MobileNetV2ForSemanticSegmentation")
    name = "mobilenet_v2.conv_1x1.convolution.weight"
    partial = without_last_convolution(checkpoint)
    partial = dataclasses.replace(partial, weights={**partial.weights, name: checkpoint.weights[name]})
    report = convert(write(tmp_path / "x", partial), tmp_path / "y.h5")
    assert report.ignored == {name: "part of a layer that no output needs, without the rest of it"}


def test_float16_says_what_it_rounds(tmp_path: Path) -> None:
    source = write(tmp_path / "x", make_checkpoint())
    report = convert(source, tmp_path / "y.h5", dtype="float16")
    weights = make_checkpoint().weights
    assert set(report.rounded) == {
        name for name, values in weights.items() if (values.astype(np.float16) != values).any()
    }


def test_float64_says_what_it_rounds(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    weights = {**checkpoint.weights, "classifier.bias": np.array([1 / 3, 1.0, 2.0])}
    report = convert(write(tmp_path / "x", dataclasses.replace(checkpoint, weights=weights)), tmp_path / "y.h5")
    assert report.rounded == ("classifier.bias",)


def test_float16_overflow_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    checkpoint.weights["classifier.bias"][1] = 70000
    source = write(tmp_path / "x", checkpoint)
    with pytest.raises(FormatError, match=r"classifier.bias: expected values that float16 can hold .* found 70000"):
        convert(source, tmp_path / "y.h5", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("architecture", "fields", "processor", "said"),
    [
        ("MobileNetV1Model", {"pool_size": 7}, {}, "pool_size 7"),
        ("MobileNetV1Model", {"output_stride": 8}, {}, "output_stride 8"),
        ("MobileNetV1Model", {"bottom_right_padding": "all"}, {}, "bottom_right_padding 'all'"),
        ("MobileNetV1Model", {}, {"central_fraction": 0.875}, "central_fraction"),
        ("MobileNetV1Model", {}, {}, None),
    ],
)
def test_what_the_written_layout_cannot_say(
    tmp_path: Path, architecture: str, fields: dict[str, Any], processor: dict[str, Any], said: str | None
) -> None:
    checkpoint = make_checkpoint(architecture, **fields)
    checkpoint = dataclasses.replace(checkpoint, processor={**(checkpoint.processor or {}), **processor})
    notes = convert(write(tmp_path / "x", checkpoint), tmp_path / "y").notes
    assert len(notes) == (said is not None)
    assert all(note.startswith("transformers") and str(said) in note for note in notes)
    assert stored(tmp_path / "y") == stored(tmp_path / "x")


def test_the_dialect_stays_with_the_weights(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "x.h5", dataclasses.replace(make_checkpoint("MobileNetV1Model"), dialect="keras"))
    assert convert(tmp_path / "x.h5", tmp_path / "y").dialect == "keras"


def test_destinations_that_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    native = tmp_path / "native.h5"
    convert(source, native)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "link.h5").symlink_to(native)
    (tmp_path / "file").write_text("mine")
    cases: list[tuple[Path, Path, dict[str, Any], str]] = [
        (source, native, {}, r"the name of a new file, but it exists; --force \(overwrite=True\) replaces it"),
        (source, source, {}, r"but it holds files; --force \(overwrite=True\) replaces them"),
        (source, source, {"overwrite": True}, "apart from the source"),
        (source / "model.safetensors", source, {"overwrite": True}, "apart from the source"),
        (native, native, {"overwrite": True}, "apart from the source"),
        (native, tmp_path / "link.h5", {"overwrite": True}, "is a link, which is never replaced; name what it points"),
        (source, tmp_path / "folder.h5", {"overwrite": True}, "expected a file, found a directory"),
        (source, tmp_path / "file", {"overwrite": True}, "expected a directory, found a file"),
        (source, tmp_path / "no" / "x.h5", {}, "expected an existing folder to write into"),
        (source, tmp_path / "file" / "x", {}, "expected an existing folder to write into"),
        (source, tmp_path / "x.pth", {}, "got the suffix '.pth'"),
        (source, tmp_path / "x", {"dtype": "float16"}, "expected dtype float32"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for first, second, options, match in cases:
        with pytest.raises(InputError, match=match) as caught:
            convert(first, second, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(FormatError, match="expected dtype to be one of float32, float16, got 'int8'"):
        convert(source, tmp_path / "x.h5", dtype="int8")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", ["x.h5", "x"])
def test_a_folder_that_is_read_only(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(FormatError, match=r"cannot be written .Permission denied"):
        convert(source, tmp_path / "closed" / name)


def test_a_dot_in_a_name_is_no_suffix(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    assert convert(source, tmp_path / "mobilenet_v1_0.1_32").layout == conversion.DIRECTORY


def test_what_is_no_network_of_ours_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "x", make_checkpoint())
    (source / "config.json").write_text('{"model_type": "efficientnet"}')
    with pytest.raises(FormatError, match="expected model_type mobilenet_v1 or mobilenet_v2, got 'efficientnet'"):
        convert(source, tmp_path / "y.h5")
    checkpoint = make_checkpoint()
    del checkpoint.weights["mobilenet_v1.layer.3.convolution.weight"]  # type: ignore[attr-defined]
    with pytest.raises(FormatError, match=r"1 missing: mobilenet_v1.layer.3.convolution.weight"):
        convert(write(tmp_path / "z", checkpoint), tmp_path / "y.h5")
    assert not (tmp_path / "y.h5").exists()


def test_an_old_processor_does_not_stay_with_a_new_network(tmp_path: Path) -> None:
    old = write(tmp_path / "old", make_checkpoint())
    (old / "notes.txt").write_text("mine")
    new = write(tmp_path / "new", dataclasses.replace(make_checkpoint("MobileNetV2Model"), processor=None))
    convert(new, old, overwrite=True)
    assert sorted(path.name for path in old.iterdir()) == ["config.json", "model.safetensors", "notes.txt"]
    assert stored(old) == stored(new)


# Everything through which a conversion touches the disk.
TOUCHES = ("os.fsync", "pathlib.Path.write_bytes", "pathlib.Path.replace", "pathlib.Path.rename", "pathlib.Path.mkdir")


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Make the `number`th touch of the disk fail; the list names those that were reached."""
    reached: list[str] = []
    for touch in TOUCHES:
        module, _, name = touch.rpartition(".")
        owner: Any = Path if module.startswith("pathlib") else os
        original = getattr(owner, name)

        def wrapper(*given: Any, original: Any = original, touch: str = touch, **named: Any) -> Any:
            reached.append(touch)
            if len(reached) == number + 1:
                raise OSError(28, "No space left on device")
            return original(*given, **named)

        monkeypatch.setattr(owner, name, wrapper)
    return reached


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["x.h5", "x"])
def test_a_failure_at_any_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    old = tmp_path / "old" / name
    old.parent.mkdir()
    convert(write(tmp_path / "other", make_checkpoint("MobileNetV1Model")), old)
    found = conversion.examine(source)
    monkeypatch.setattr(conversion, "examine", lambda source: found)  # read once
    failures = 0
    for number in range(100):
        home = tmp_path / str(number)
        if number % 2:
            home.mkdir()
        else:
            shutil.copytree(old.parent, home)
        before = contents(home)
        with monkeypatch.context() as patch:
            reached = fail_at(patch, number)
            try:
                convert(source, home / name, overwrite=True)
            except MinimobileError as error:
                assert str(home / name) in str(error)
                assert "No space left on device" in str(error)
                assert contents(home) == before, reached
                failures += 1
            else:
                assert formats.read(home / name).architecture == "MobileNetV1ForImageClassification"
        assert not [path for path in home.rglob(".*") if path not in before]
        if len(reached) <= number:
            break
    assert failures >= 3


KILLER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_conversion import TOUCHES
from minimobile.models import conversion

found = conversion.examine({source!r})
conversion.examine = lambda source: found  # read once

def run(number, suffix):
    count = 0
    def arm(owner, name):
        original = getattr(owner, name)
        def wrapper(*given, **named):
            nonlocal count
            count += 1
            if count == number + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **named)
        setattr(owner, name, wrapper)
    for touch in TOUCHES:
        module, _, name = touch.rpartition(".")
        arm(Path if module.startswith("pathlib") else os, name)
    conversion.convert({source!r}, {destination!r} + str(number) + suffix, overwrite=True)
    os._exit(0)

for suffix in (".h5", ""):
    number = 0
    child = os.fork() or run(number, suffix)
    while os.waitpid(child, 0)[1] != 0:
        number += 1
        child = os.fork() or run(number, suffix)
    print(number)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_killed_leaves_the_old_the_new_or_nothing_that_loads(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    other = write(tmp_path / "other", make_checkpoint("MobileNetV1Model"))
    convert(other, tmp_path / "old.h5")
    for number in range(16):
        shutil.copy(tmp_path / "old.h5", tmp_path / f"x{number}.h5")
        if number % 2:
            shutil.copytree(other, tmp_path / f"x{number}")
    script = KILLER.format(tests=str(Path(__file__).parent), source=str(source), destination=str(tmp_path / "x"))
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    for suffix, survived in zip((".h5", ""), map(int, result.stdout.split()), strict=True):
        found = []
        for number in range(survived + 1):
            try:
                found.append(formats.read(tmp_path / f"x{number}{suffix}").architecture)
            except FormatError:
                assert suffix == ""
        assert survived >= 3
        assert found[-1] == "MobileNetV1ForImageClassification"
        assert set(found) == {"MobileNetV1ForImageClassification", "MobileNetV1Model"}


def test_a_quantised_network_becomes_one_of_floats_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description, checkpoint = conversion.examine(write(tmp_path / "x", make_checkpoint("MobileNetV1Model")))
    object.__setattr__(checkpoint, "quantized", FormatError("what cannot be run"))
    monkeypatch.setattr(conversion, "examine", lambda source: (description, checkpoint))
    (note,) = convert(tmp_path / "x", tmp_path / "y").notes
    assert "computes in integers" in note


@pytest.mark.crosscheck
def test_a_pickle_gives_every_array_back_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    source = write(tmp_path / "source", make_checkpoint())
    before = stored(source)
    arrays = safetensors.numpy.load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save({name: torch.tensor(values) for name, values in arrays.items()}, source / "pytorch_model.bin")
    convert(source, tmp_path / "back")
    assert stored(tmp_path / "back") == before


def load_in_transformers(directory: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """Return transformers' model of a directory, once it was seen to load without a complaint."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        theirs = getattr(transformers, formats.read(directory).architecture)
        model, found = theirs.from_pretrained(directory, output_loading_info=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert not any(found.values()), found
    assert [record.message for record in caplog.records] == []
    return model.eval()


def assert_equal_in_transformers(directory: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    theirs = load_in_transformers(directory, caplog)
    pixels = np.random.default_rng(7).standard_normal((1, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels))[0].numpy()
    ours = mm.load(directory)
    assert_agrees(ours, pixels, {ours.graph.outputs[0]: expected})


@pytest.mark.crosscheck
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if "ObjectDetection" not in name])
def test_transformers_loads_what_was_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, architecture: str
) -> None:
    checkpoint = make_checkpoint(architecture, image_size=(40, 48))
    if architecture.endswith("Segmentation"):
        checkpoint = without_last_convolution(checkpoint)
    hdf5.write(tmp_path / "x.h5", checkpoint)
    convert(tmp_path / "x.h5", tmp_path / "y")
    assert_equal_in_transformers(tmp_path / "y", 40, caplog)


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tensorflow/mobilenet_v1_0.25_128.ckpt", 128),
        ("tensorflow/mobilenet_v1_0.25_128_frozen.pb", 128),
        ("keras/mobilenet_v1_0.25_224.h5", 224),
        ("keras/mobilenet_v1_0.25_224.keras", 224),
        ("keras/mobilenet_v1_0.25_224.weights.h5", 224),
        ("tflite/mobilenet_v1_0.25_224_float.tflite", 224),
        ("tflite/deeplabv3_mobilenet_v2_0.5_257_float.tflite", 257),
    ],
)
def test_foreign_files_reach_transformers(
    tmp_path: Path, test_data: Path, caplog: pytest.LogCaptureFixture, name: str, size: int
) -> None:
    source = test_data / "models" / name
    report = convert(source, tmp_path / "x.h5")
    convert(tmp_path / "x.h5", tmp_path / "y")
    assert formats.read(tmp_path / "x.h5").dialect == formats.read(source).dialect == report.dialect
    pixels = np.random.default_rng(7).standard_normal((1, 3, size, size)).astype(np.float32)
    before, after = (mm.load(path)(pixels)[0] for path in (source, tmp_path / "y"))
    np.testing.assert_array_equal(before, after)
    assert_equal_in_transformers(tmp_path / "y", size, caplog)


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v1_0.25_128", 128),
        ("mobilenet_v2_1.0_224", 224),
        ("deeplabv3_mobilenet_v2_0.5_257", 257),
        ("deeplabv3_mobilenet_v2_0.5_513_portrait", 257),
    ],
)
def test_real_checkpoints_there_and_back(
    tmp_path: Path, test_data: Path, caplog: pytest.LogCaptureFixture, name: str, size: int
) -> None:
    source = test_data / "models" / "huggingface" / name
    convert(source, tmp_path / "x.h5")
    convert(tmp_path / "x.h5", tmp_path / "y")
    before, after = stored(source), stored(tmp_path / "y")
    assert {key for key in before if not key.endswith(".json")} == {key for key in after if not key.endswith(".json")}
    assert all(before[key] == after[key] for key in before if not key.endswith(".json"))
    assert json.loads(before["preprocessor_config.json"]) == json.loads(after["preprocessor_config.json"])
    assert_equal_in_transformers(tmp_path / "y", size, caplog)
