"""Image processors beside transformers' own, on drawn cases, real files and real pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drawn import PROCESSORS, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minimobile.errors import InputError, MinimobileError
from minimobile.imaging.auto import AutoImageProcessor
from minimobile.imaging.image_processing import (
    MobileNetV2ImageProcessor,
)


@st.composite
def cases(draw_from: st.DrawFn) -> tuple[bool, Any, dict[str, Any], Any, bool, str | None]:
    """Draw (is V2, picture, settings, map, settings given to the constructor, return_tensors)."""

    def pick(*choices: Any) -> Any:
        return draw_from(st.sampled_from(choices))

    def edge(most: int) -> int:
        return draw_from(st.integers(1, most))

    random = np.random.default_rng(draw_from(st.integers(0, 10**6)))
    channels = pick(3, 3, 3, 3, 1, 4, 2)
    channels_first = pick(True, False)
    height, width = edge(300), edge(300)
    shape = (channels, height, width) if channels_first else (height, width, channels)
    dtype = np.dtype(pick("u1", "u1", "u1", "f4", "f8", "f2", "i8", "i4", "u2", "?"))
    fractions = dtype.kind == "f" and pick(True, False)
    picture: Any = random.random(shape) if fractions else random.integers(0, 256, shape) * (random.random() < 0.98)
    picture = (picture > 100 if dtype.kind == "b" else picture).astype(dtype)
    chosen: dict[str, Any] = {}
    if pick(True, False):
        chosen["size"] = pick(
            {"shortest_edge": edge(200)},
            {"height": edge(200), "width": edge(200)},
            {"shortest_edge": edge(200), "longest_edge": edge(300)},
            {"max_height": edge(200), "max_width": edge(200)},
            edge(100),
            [edge(100), edge(100)],
        )
    if pick(True, False):
        chosen["crop_size"] = pick(edge(250), {"height": edge(250), "width": edge(250)}, (edge(250), edge(250)))
    if pick(True, True, False):
        chosen["resample"] = draw_from(st.integers(0, 5))
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        chosen.update(pick({}, {}, {}, {step: False}, {step: None}))
    chosen.update(pick({}, {"rescale_factor": pick(1 / 127.5, 0.5, 1 / 256)}))
    chosen.update(pick({}, {"image_mean": pick(0.3, [0.485, 0.456, 0.406], (0.1, 0.2, 0.3))}))
    chosen.update(pick({}, {"image_std": pick(0.3, [0.229, 0.224, 0.225])}))
    if channels != 3:
        chosen.update(image_mean=[0.6] * channels, image_std=[0.4] * channels)
    chosen.update(
        pick({}, {}, {"do_convert_rgb": True, "image_mean": 0.5, "image_std": 0.25}, {"do_convert_rgb": False})
    )
    is_pil = dtype == np.uint8 and not channels_first and channels in {3, 4} and pick(True, False)
    if is_pil:
        picture = Image.fromarray(picture)
        if channels == 4 and not chosen.get("do_normalize", True):
            chosen["do_convert_rgb"] = False  # else ours becomes RGB, where theirs keeps alpha because nobody minds
    elif channels == 2 or {1, 3, 4}.issuperset({shape[0], shape[2]}) or pick(True, False):
        chosen["input_data_format"] = "channels_first" if channels_first else "channels_last"
    is_v2 = pick(True, False)
    labels = random.integers(0, 256, (edge(150), edge(150))).astype(pick(np.uint8, np.int64, np.float32))
    chosen.update(
        pick({}, {"do_reduce_labels": True}) if is_v2 else pick({}, {"do_pad": True, "pad_size": pick(None, 300)})
    )
    return is_v2, picture, chosen, labels if is_v2 else None, pick(True, False), pick(None, "np", "pt")


def import_peers() -> tuple[Any, Any]:
    pytest.importorskip("torch")
    v1 = pytest.importorskip("transformers.models.mobilenet_v1.image_processing_pil_mobilenet_v1")
    v2 = pytest.importorskip("transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2")
    return v1.MobileNetV1ImageProcessorPil, v2.MobileNetV2ImageProcessorPil


def run_case(kind: Any, case: tuple[bool, Any, dict[str, Any], Any, bool, str | None]) -> Any:
    is_v2, picture, chosen, labels, at_construction, framework = case
    maps = {"segmentation_maps": labels.copy()} if is_v2 else {}
    if not at_construction:
        return kind()(picture, **maps, **chosen, return_tensors=framework)
    later = {name: value for name, value in chosen.items() if name == "input_data_format"}
    processor = kind(**{name: value for name, value in chosen.items() if name not in later})
    return processor(picture, **maps, **later, return_tensors=framework)


@pytest.mark.crosscheck
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300)
@given(cases())
def test_equals_transformers(case: tuple[bool, Any, dict[str, Any], Any, bool, str | None]) -> None:
    peers = import_peers()
    try:
        expected = run_case(peers[case[0]], case)
    except Exception as refusal:  # theirs are of many classes
        with pytest.raises(MinimobileError):
            run_case(PROCESSORS[case[0]], case)
        assert not isinstance(refusal, MinimobileError)
        return
    got = run_case(PROCESSORS[case[0]], case)
    assert set(got) == set(expected)
    for name in expected:
        assert type(got[name]) is type(expected[name])
        for ours, theirs in zip(got[name], expected[name], strict=True):
            one, other = np.asarray(ours), np.asarray(theirs)
            assert (one.shape, one.dtype) == (other.shape, other.dtype), case
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), case


@pytest.mark.crosscheck
def test_real_files_and_pictures(test_data: Path, tmp_path: Path) -> None:
    peers = import_peers()
    folders = sorted(path.parent for path in (test_data / "models" / "huggingface").glob("*/preprocessor_config.json"))
    assert folders
    pictures = [str(path) for path in sorted((test_data / "images").iterdir()) if path.is_file()]
    for folder in folders:
        ours = AutoImageProcessor.from_pretrained(folder)
        theirs = peers[isinstance(ours, MobileNetV2ImageProcessor)].from_pretrained(folder)
        assert ours.to_dict() == theirs.to_dict()
        got, expected = ours(pictures, return_tensors="np"), theirs(pictures, return_tensors="np")
        assert np.array_equal(got.pixel_values, expected.pixel_values)
        ours.save_pretrained(tmp_path / "ours")
        theirs.save_pretrained(tmp_path / "theirs")
        files = [(tmp_path / name / "preprocessor_config.json").read_text() for name in ("ours", "theirs")]
        assert json.loads(files[0]) == json.loads(files[1])
        assert type(theirs).from_pretrained(tmp_path / "ours").to_dict() == theirs.to_dict()


@pytest.mark.crosscheck
def test_torch_tensors_in_and_out() -> None:
    torch = pytest.importorskip("torch")
    picture = torch.from_numpy(draw(30, 40)).permute(2, 0, 1)
    processor = MobileNetV2ImageProcessor(size=30, crop_size=16)
    values = processor(picture, picture[0], return_tensors="pt")
    assert values.pixel_values.dtype == torch.float32
    assert values.labels.dtype == torch.int64
    assert torch.equal(
        values.pixel_values, torch.from_numpy(processor(picture.numpy(), return_tensors="np").pixel_values)
    )
    for bad in (torch.zeros(3, 8, 8, requires_grad=True), torch.zeros(3, 8, 8, dtype=torch.bfloat16)):
        with pytest.raises(InputError, match="images: expected an array, got a Tensor that NumPy cannot read"):
            processor(bad)


@pytest.mark.crosscheck
def test_post_processing_equals_transformers() -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = import_peers()[1](), MobileNetV2ImageProcessor()
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 21, 33, 29)).astype(np.float32))
    for sizes in (None, [(65, 65), (480, 640), (7, 9)]):
        expected = theirs.post_process_semantic_segmentation(SimpleNamespace(logits=logits), sizes)
        for form in (logits, logits.numpy()):
            got = ours.post_process_semantic_segmentation(SimpleNamespace(logits=form), sizes)
            for one, other in zip(got, expected, strict=True):
                assert one.shape == tuple(other.shape)
                assert np.mean(one != other.numpy()) <= 1e-4  # their weights are float32: near ties may fall otherwise
    scores = ours.post_process_semantic_segmentation(SimpleNamespace(logits=logits), [(50, 60)] * 3, True)
    expected = theirs.post_process_semantic_segmentation(SimpleNamespace(logits=logits), [(50, 60)] * 3, True)
    for one, other in zip(scores, expected, strict=True):
        assert set(one) == set(other)
        assert np.allclose(one.segmentation_scores, other.segmentation_scores, rtol=0, atol=1e-4)
