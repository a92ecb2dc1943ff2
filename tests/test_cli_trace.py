"""`minimobile trace`: the table, the written-out value, the file of tensors and the picture, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import minimobile
from minimobile.costs.profile import profile
from minimobile.networks import mobilenet_v2
from minimobile.tracing.channel_grid import draw_channels
from tests.conftest import Run

FULL_SIZE = minimobile.MobileNetV2Config(num_labels=1001, initializer_range=0.2)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "photo.png"
    colours = np.random.default_rng(3).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((60, 44)).save(path)
    return path


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a V2 1.0 at 224 x 224 with random weights: the widest table of the classifiers."""
    folder = tmp_path_factory.mktemp("v2")
    minimobile.MobileNetV2ForImageClassification(FULL_SIZE).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "MobileNetV2ImageProcessor"}')
    return folder


def compute(folder: Path, photo: Path, layers: list[str | int]) -> dict[str | int, np.ndarray]:
    """Return the layers' values as the definitions in NumPy give them."""
    model = minimobile.load(folder, engine="reference")
    return model.features(model.processor(photo, return_tensors="np")["pixel_values"], layers)


def test_the_table_has_a_row_per_layer_and_fits_80_columns(run: Run, full_size: Path, photo: Path) -> None:
    code, out, err = run("trace", full_size, photo)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.fullmatch(r"MobileNetV2ForImageClassification: 224x224 pixels from -\S+ to \S+", lines[0])
    assert lines[1].split() == ["layer", "kind", "CxHxW", "pad", "min", "max", "mean", "0s", "6s", "us"]
    rows: list[list[str]] = []
    for cells in map(str.split, lines[3 : lines.index("")]):
        if len(cells) == 1:  # the rest of a name that was folded
            rows[-1][0] += cells[0]
        else:
            rows.append(cells)
    layers = profile(mobilenet_v2.build(FULL_SIZE, "classification"), 224).layers
    assert [row[0] for row in rows] == [layer.name for layer in layers]
    assert [row[2] for row in rows] == ["x".join(map(str, layer.output_shape)) for layer in layers]
    assert rows[0][:4] == ["conv_stem.first_conv", "conv", "32x112x112", "0101"]


def test_names_of_the_head_are_abbreviated_before_they_are_folded(run: Run, segmenter: Path, photo: Path) -> None:
    lines = run("trace", segmenter, photo).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1] == "(head. is segmentation_head.)"
    assert "head.conv_projection" in [line.partition(" ")[0] for line in lines]


def test_json_has_the_numbers_of_the_values_themselves(run: Run, classifier: Path, photo: Path) -> None:
    code, out, _ = run("trace", classifier, photo, "--layer", "Conv2d_3_pointwise", "--layer", -1, "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert document["image"] == str(photo)
    values = compute(classifier, photo, ["Conv2d_3_pointwise", -1])
    assert [layer["name"] for layer in document["layers"]] == ["layer.5", "layer.25"]
    for layer, tensor in zip(document["layers"], values.values(), strict=True):
        assert layer["shape"] == list(tensor.shape[1:])
        assert (layer["minimum"], layer["maximum"]) == (tensor.min(), tensor.max())
        assert layer["zeros"] == (tensor == 0).mean()
        assert layer["microseconds"] > 0 and layer["name"] in layer["step"]


def test_every_node_by_itself(run: Run, classifier: Path, photo: Path) -> None:
    out = run("trace", classifier, photo, "--layer", "layer.4", "--nodes", "--format", "json").out
    assert [(layer["name"], layer["operation"]) for layer in json.loads(out)["layers"]] == [
        ("layer.4.convolution", "depthwise_conv2d"),
        ("layer.4.normalization", "batch_norm"),
        ("layer.4", "activation"),
    ]


def test_one_value_as_its_sum(run: Run, classifier: Path, photo: Path) -> None:
    code, out, err = run("trace", classifier, photo, "--layer", "layer.2", "--at", "0,5,3")
    assert (code, err) == (0, "")
    value = compute(classifier, photo, ["layer.2"])["layer.2"][0, 3, 0, 5]
    bits = f"{int(value.view(np.uint32)):08x}"
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "layer.2 (16x8x12) at row 0, column 5, channel 3"
    assert lines[1] == "depthwise_conv2d of layer.1 (16x16x24): 9 terms"
    assert lines[-1] == f"written out: {value!s} ({bits}); the engine: {value!s} ({bits})"
    assert [line.split()[0] for line in lines[4:13]] == [f"{ky},{kx},3" for ky in range(3) for kx in range(3)]
    assert [line.split()[1] for line in lines[4:7]] == ["0,10", "0,11", "0,12"], "stride 2, padding below and right"
    assert "relu6" in out and "(x - mean) * scale / sqrt(variance + epsilon) + shift" in out


def test_a_long_sum_shows_the_ends_of_its_blocks_unless_all_is_asked_for(
    run: Run, classifier: Path, photo: Path
) -> None:
    words = ["trace", classifier, photo, "--layer", "classifier", "--at", "0,0,2"]
    short = run(*words).out
    assert short.count("122 more") == 2
    assert "block 1" in short and "before folding" not in short
    everything = run(*words, "--all").out
    assert "more" not in everything
    assert [line.split()[0] for line in everything.splitlines()[4:260]] == [f"0,0,{ci}" for ci in range(256)]
    document = json.loads(run(*words, "--format", "json").out)["explanation"]
    assert len(document["terms"]) == 256
    assert document["agrees"] is True
    assert document["value"] == document["computed"]
    assert document["terms"][7]["pixel"]["number"] == compute(classifier, photo, ["pooler"])["pooler"][0, 7]


def test_taps_outside_the_picture_are_named(run: Run, classifier: Path, photo: Path) -> None:
    out = run("trace", classifier, photo, "--layer", "conv_stem", "--at", "15,0,1", "--all").out
    rows = [line.split() for line in out.splitlines()[4:31]]
    assert [row[1] for row in rows if "outside" in row] == [f"32,{x}" for x in (0, 1, 2) for _ in range(3)]


def test_saved_tensors_are_the_values(run: Run, segmenter: Path, photo: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.h5"
    code, out, _ = run("trace", segmenter, photo, "--save", path)
    assert code == 0
    assert out.splitlines()[-1] == f"wrote {path}"
    names: list[str | int] = ["conv_stem.first_conv", "layer.1.conv_3x3", "segmentation_head.concat"]
    values = compute(segmenter, photo, names)
    with h5py.File(path) as saved:
        assert saved["pixel_values"].shape == (1, 3, 32, 48)
        assert saved.attrs["model"].decode() == "MobileNetV2ForSemanticSegmentation"
        assert saved.attrs["image"].decode() == str(photo)
        assert "conv_1x1" not in saved and "segmentation_head.classifier" in saved
        for name, tensor in values.items():
            np.testing.assert_array_equal(saved[name][()], tensor)
            attributes = {key: saved[name].attrs[key].decode() for key in ("layout", "shape", "dtype")}
            shape = "x".join(map(str, tensor.shape))
            assert attributes == {"layout": "NCHW", "shape": shape, "dtype": "float32"}
    assert run("trace", segmenter, photo, "--layer", names[0], "--save", tmp_path / "trace.npz").code == 0
    with np.load(tmp_path / "trace.npz") as arrays:
        assert list(arrays) == ["pixel_values", names[0]]
        np.testing.assert_array_equal(arrays[names[0]], values[names[0]])


def test_files_are_replaced_only_by_force(run: Run, classifier: Path, photo: Path, tmp_path: Path) -> None:
    path, picture = tmp_path / "trace.h5", tmp_path / "trace.png"
    words = ["trace", classifier, photo, "--layer", "layer.3"]
    for option, target in (("--save", path), ("--picture", picture)):
        target.write_text("precious")
        code, out, err = run(*words, option, target)
        assert (code, out) == (1, "")
        assert err == (
            f"error: {target}: expected the name of a new file, but it exists; --force (overwrite=True) replaces it\n"
        )
        assert target.read_text() == "precious"
        assert run(*words, option, target, "--force").code == 0
        assert target.read_bytes()[:4] in (b"\x89HDF", b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [path, picture], "and nothing temporary is left"


def test_the_picture_shows_a_block_s_stages_side_by_side(
    run: Run, segmenter: Path, photo: Path, tmp_path: Path
) -> None:
    path = tmp_path / "block.png"
    code, _, _ = run("trace", segmenter, photo, "--layer", "layer_6", "--picture", path, "--channels", 9)
    assert code == 0
    stages = ["layer.3.expand_1x1", "layer.3.conv_3x3", "layer.3.reduce_1x1"]
    graph = minimobile.load(segmenter).graph
    if "layer.3" in {node.name for node in graph.nodes}:
        stages.append("layer.3")
    values = compute(segmenter, photo, stages)  # type: ignore[arg-type]
    expected = draw_channels({str(name): tensor[0] for name, tensor in values.items()}, 9)
    with Image.open(path) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))


def test_an_explanation_may_come_with_a_picture(run: Run, classifier: Path, photo: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    words = ["trace", classifier, photo, "--layer", "pooler", "--at", "0,0,0", "--picture", path]
    code, out, _ = run(*words)
    assert code == 0
    assert "sum in float64" in out and out.endswith(f"wrote {path}\n")
    document = json.loads(run(*words, "--force", "--format", "json").out)
    assert document.keys() == {"image", "explanation", "layers", "picture"}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--layer", "layr.3"], 1, "did you mean"),
        (["--layer", 99], 1, "expected a hidden-state index between 0 and 25, got 99"),
        (["--layer", "layer.3", "--at", "0,99,0"], 1,
         "position: expected (row, column, channel) of layer.3, below (8, 12, 32), got (0, 99, 0)"),
        (["--layer", "layer.3", "--at", "0,0"], 2, "--at 0,0: expected row, column and channel as in 3,4,5"),
        (["--layer", "layer.3", "--at", "a,b,c"], 2, "--at a,b,c: expected row, column and channel"),
        (["--at", "0,0,0"], 2, "expected one --layer whose value it is, got 0"),
        (["--layer", "0", "--layer", "1", "--at", "0,0,0"], 2, "expected one --layer whose value it is, got 2"),
        (["--picture", "x.png"], 2, "--picture x.png: expected a --layer to draw, got none"),
        (["--layer", "0", "--picture", "x.gif"], 2, "expected a file name ending in .png"),
        (["--save", "x.csv"], 2, "--save x.csv: expected a file name ending in .npz or .h5"),
        (["--save", "no/such/folder/x.h5"], 1, "expected an existing folder to write into"),
        (["again.png"], 2, "unexpected extra argument"),
        (["--channels", 0], 2, "--channels"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(
    run: Run, classifier: Path, photo: Path, words: list[object], code: int, sentence: str
) -> None:
    outcome = run("trace", classifier, photo, *words)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert sentence in outcome.err


def test_pictures_that_are_none(run: Run, classifier: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not a picture")
    assert "expected one picture to trace, got a folder" in run("trace", classifier, tmp_path).err
    for path in (tmp_path / "notes.png", tmp_path / "none.png"):
        code, out, err = run("trace", classifier, path)
        assert (code, out) == (1, "")
        assert err.startswith("error: ") and str(path) in err and err.count("\n") == 1
