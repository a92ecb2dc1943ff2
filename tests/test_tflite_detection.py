"""TFLite files that end in TFLite_Detection_PostProcess: read, run in floats and in integers, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from detection_files import OPTIONS, open_litert, run_interpreter, write_detector, write_flexbuffer
from PIL import Image
from test_tflite import pack

import minimobile as mm
from minimobile.errors import FormatError, InputError
from minimobile.execution.detection import PostProcessor
from minimobile.formats.tflite import tflite
from minimobile.formats.tflite.flexbuffer import read_numbers
from minimobile.networks.ssd_config import MobileNetSSDConfig

LITE = mm.MobileNetV2Config(depth_multiplier=0.35, num_labels=3, image_size=32)
DENSE = mm.MobileNetV1Config(
    depth_multiplier=0.25, num_labels=3, image_size=32, ssd=MobileNetSSDConfig(use_depthwise=False, kernel_size=1)
)
FORMS = {
    "SSDLite on V2, float32": (LITE, "float32", {}),
    "SSD on V1, float32": (DENSE, "float32", {}),
    "SSDLite on V2, int8": (LITE, "int8", {}),
    "SSD on V1, uint8": (DENSE, "uint8", {}),
    "class by class": (DENSE, "uint8", {"use_regular_nms": True, "detections_per_class": 4}),
    "several classes an anchor": (DENSE, "uint8", {"max_classes_per_detection": 2}),
}
MOVES = [("QUANTIZE",), ("QUANTIZE", "DEQUANTIZE"), ("DEQUANTIZE", "QUANTIZE")]
PUBLISHED = ("coco_ssd_mobilenet_v1_0.75_300_quant", "ssdlite_mobilenet_v2_coco_int8")


def save(folder, writer):
    path = folder / "detector.tflite"
    path.write_bytes(writer if isinstance(writer, bytes) else writer.write())
    return path


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (1, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("half", [False, True])
def test_a_float_file_has_the_numbers_of_the_network_it_was_made_of(half, tmp_path):
    writer, weights = write_detector(LITE, half=half)
    checkpoint = tflite.read(save(tmp_path, writer))
    assert checkpoint.architecture == "MobileNetV2ForObjectDetection"
    ssd = checkpoint.config.ssd
    assert (ssd.use_depthwise, ssd.max_detections, ssd.iou_threshold, ssd.score_threshold) == (True, 10, 0.6, 1e-8)
    assert ssd.stored_anchors == 0  # the file's are those of the formula
    name = "detection_head.classes.3.projection.convolution.weight"
    expected = weights[name].astype(np.float16).astype(np.float32) if half else weights[name]
    np.testing.assert_array_equal(checkpoint.weights[name], expected)
    model = mm.load(tmp_path / "detector.tflite")
    out = model(np.zeros((2, 3, 32, 32), np.float32))
    assert out.logits.shape == (2, 42, 4)
    assert out.pred_boxes.shape == (2, 42, 4)
    assert out.detection_boxes.shape == (2, 10, 4)


@pytest.mark.parametrize("form", ["SSDLite on V2, int8", "SSD on V1, uint8", "several classes an anchor"])
def test_integers_on_both_engines_give_the_same_four_outputs(form, tmp_path):
    config, dtype, options = FORMS[form]
    path = save(tmp_path, write_detector(config, dtype, options)[0])
    x = picture() if dtype == "uint8" else (picture().astype(np.int16) - 128).astype(np.int8)
    x = np.concatenate([x, x[:, ::-1]])
    ours, reference = (mm.load(path, engine=engine).run_quantized(x) for engine in ("compiled", "reference"))
    rows = 10 * options.get("max_classes_per_detection", 1)
    assert [values.shape for values in ours] == [(2, rows, 4), (2, rows), (2, rows), (2,)]
    assert ours[3].min() > 0
    for found, expected in zip(ours, reference, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["SSDLite on V2, int8", "SSD on V1, uint8"])
def test_of_bytes_no_numbers_are_made_first(form, tmp_path, monkeypatch):
    """And where somebody does, nothing but the time would tell."""
    config, dtype, options = FORMS[form]
    model = mm.load(save(tmp_path, write_detector(config, dtype, options)[0]))
    monkeypatch.setattr(PostProcessor, "run", None)
    x = picture() if dtype == "uint8" else (picture().astype(np.int16) - 128).astype(np.int8)
    assert model.run_quantized(x)[3].min() > 0


def test_scores_brought_to_another_scale_are_rounded_to_it_before_anything_is_found(tmp_path):
    content = write_detector(DENSE, "uint8", moves=("QUANTIZE", "DEQUANTIZE"))[0]
    steps = mm.load(save(tmp_path, content)).run_quantized(picture())[2] * np.float32(40)
    assert steps.max() > 1
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


def test_a_picture_comes_to_the_network_byte_by_byte_and_back_as_the_same_detections(tmp_path):
    model = mm.load(save(tmp_path, write_detector(DENSE, "uint8")[0]))
    x = picture()
    pixel_values = model.processor(Image.fromarray(x[0]), return_tensors="np")["pixel_values"]
    out, (boxes, classes, scores, count) = model(pixel_values), model.run_quantized(x)
    found = (out.detection_boxes, out.detection_classes, out.detection_scores, out.num_detections)
    for ours, theirs in zip(found, (boxes, classes, scores, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_files_own_anchors_win_and_go_with_the_weights(tmp_path):
    path = save(tmp_path, write_detector(DENSE, "uint8")[0])
    model = mm.load(path, dequantize=True)
    assert model.config.ssd.stored_anchors == 42
    anchors = model.anchors(32, 32)
    steps = anchors / np.float32(0.006)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    mm.convert(path, tmp_path / "copy.h5")
    copy = mm.load(tmp_path / "copy.h5")
    np.testing.assert_array_equal(copy.anchors(32, 32).view(np.int32), anchors.view(np.int32))
    with pytest.raises(InputError, match=r"expected predictions for 42 anchors, got box encodings \(1, 96, 4\)"):
        copy(np.zeros((1, 3, 64, 64), np.float32))


def test_converting_keeps_every_bit_of_a_float_file(tmp_path):
    path = save(tmp_path, write_detector(LITE)[0])
    mm.convert(path, tmp_path / "copy.h5")
    mm.convert(tmp_path / "copy.h5", tmp_path / "folder")
    x = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)
    first, *others = (mm.load(source)(x) for source in (path, tmp_path / "copy.h5", tmp_path / "folder"))
    for other in others:
        assert list(other) == list(first)
        for name in first:
            np.testing.assert_array_equal(first[name], other[name], err_msg=name)


def spoil(**options):
    return write_detector(DENSE, options={name: value for name, value in options.items() if value is not None})[0]


def spoil_anchors(values):
    writer = write_detector(DENSE)[0]
    number = next(index for index, fields in enumerate(writer.tensors) if fields[3] == "anchors")
    writer.tensors[number][0] = np.array(values.shape, np.int32)
    writer.buffers[writer.tensors[number][2][1]] = {0: np.frombuffer(values.tobytes(), np.uint8)}
    return writer


def spoil_content(content):
    writer = write_detector(DENSE)[0]
    writer.operators[-1][5] = np.frombuffer(content, np.uint8)
    return writer


HOSTILE = {
    "anchors of another number": (
        spoil_anchors(np.ones((41, 4), np.float32)), "expected boxes \\(1, 41, 4\\) for its 41 anchors"
    ),
    "anchors that are not finite": (spoil_anchors(np.full((42, 4), np.nan, np.float32)), "anchors that are finite"),
    "another number of classes": (spoil(num_classes=7), "7 or 8\\) for 7 classes, found \\(1, 42, 4\\)"),
    "no classes": (spoil(num_classes=0), "expected num_classes between 1 and 100000, found 0"),
    "an iou threshold above 1": (spoil(nms_iou_threshold=1.5), "expected iou_threshold to be above 0 and at most 1"),
    "a scale of zero": (spoil(y_scale=0.0), "expected box_scales to be four finite numbers"),
    "a million rows": (spoil(max_detections=2**30), "expected max_detections between 1 and 100000"),
    "no options": (spoil_content(b""), "options: expected a root of three bytes or more, found 0 bytes"),
    "another root": (spoil_content(b"\x01\x04\x01"), "options: expected a map at its root, found type 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_detector_is_refused_in_one_sentence(case, tmp_path):
    writer, sentence = HOSTILE[case]
    with pytest.raises(FormatError, match=sentence):
        tflite.read(save(tmp_path, writer))


@pytest.mark.parametrize("labels", [{0: "cat"}, {index: str(index) for index in range(7)}])
def test_labels_for_other_classes_than_the_file_s_are_refused(labels, tmp_path):
    path = save(tmp_path, write_detector(DENSE, "uint8")[0])
    with pytest.raises(FormatError, match=r"of another shape: detection_head\.classes\.0\.projection"):
        mm.load(path, id2label=labels)


@pytest.mark.parametrize("names", ["cat\ndog\n", "cat\ndog\nbird\nhorse\n"])
def test_classes_beyond_a_packed_list_of_labels_have_numbers_for_names(names, tmp_path):
    content = write_detector(DENSE, "uint8")[0].write()
    path = save(tmp_path, pack(content, {"labels.txt": names}))
    count = len(names.split())
    assert tflite.read(path).ignored["labels.txt"] == f"a list of {count} lines, not of 3 labels"
    found = mm.detect(picture()[0], path, threshold=0)
    assert {item["label"] for item in found} <= {"LABEL_0", "LABEL_1", "LABEL_2"}
    assert all(item["label"] == f"LABEL_{item['index']}" for item in found)
    assert found


def test_boxes_of_negative_size_are_named_where_litert_fails_too(tmp_path):
    anchors = np.ones((42, 4), np.float32)
    anchors[5, 2] = -1
    model = mm.load(save(tmp_path, spoil_anchors(anchors)))
    with pytest.raises(InputError, match=r"expected boxes of a height and width of zero or more.*of anchor 5;"):
        model(np.zeros((1, 3, 32, 32), np.float32))


def test_nan_in_the_predictions_is_said_so(tmp_path):
    model = mm.load(save(tmp_path, write_detector(DENSE)[0]))
    with pytest.raises(InputError, match="expected box encodings that are numbers, got NaN"):
        model(np.full((1, 3, 32, 32), np.nan, np.float32))


def test_numbers_of_a_flexbuffer_come_back():
    values = {"a": 1, "b": -2.5, "key": True, "zz": -7}
    assert read_numbers(write_flexbuffer(values), "x") == values


def test_every_truncation_and_two_thousand_flips_of_a_flexbuffer_are_refused_or_read():
    content, refused = write_flexbuffer(OPTIONS), 0
    rng = np.random.default_rng(0)
    spoilt = [content[:size] for size in range(len(content))]
    for _ in range(2000):
        changed = bytearray(content)
        changed[rng.integers(len(content))] = rng.integers(256)
        spoilt.append(bytes(changed))
    for candidate in spoilt:
        try:
            assert len(read_numbers(candidate, "x")) <= len(candidate)
        except FormatError as error:
            assert str(error).startswith("x: options: expected ")
            refused += 1
    assert refused > len(content) / 2


def test_a_map_of_two_to_the_31_entries_is_refused():
    content = bytearray(write_flexbuffer({"a": 1}))
    start = len(content) - 6 - struct.unpack_from("<I", content, len(content) - 6)[0]
    struct.pack_into("<I", content, start - 4, 2**31)
    with pytest.raises(FormatError, match="expected at most 1000 entries, each with its key, found 2147483648"):
        read_numbers(bytes(content), "x")


@pytest.mark.crosscheck
@pytest.mark.parametrize("form", [form for form, (_, dtype, _) in FORMS.items() if dtype != "float32"])
def test_detections_are_litert_s(form, tmp_path):
    config, dtype, options = FORMS[form]
    path = save(tmp_path, write_detector(config, dtype, options)[0])
    model, interpreter = mm.load(path), open_litert(path.read_bytes())
    each = options.get("max_classes_per_detection", 1)
    for seed in range(20):
        x = picture(seed) if dtype == "uint8" else (picture(seed).astype(np.int16) - 128).astype(np.int8)
        found = [values[0] for values in model.run_quantized(x)]
        assert_same(found, run_interpreter(interpreter, x), each, f"picture({seed})")


@pytest.mark.crosscheck
@pytest.mark.parametrize("moves", MOVES)
def test_detections_behind_other_scales_and_numbers_are_litert_s(moves, tmp_path):
    path = save(tmp_path, write_detector(DENSE, "uint8", moves=moves)[0])
    found, expected = mm.load(path).run_quantized(picture()), run_interpreter(open_litert(path.read_bytes()), picture())
    assert_same([values[0] for values in found], expected, 1, moves)


@pytest.mark.crosscheck
@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_hundred_pictures_through_a_published_file_give_litert_s_bits(name, test_data):
    path = test_data / "models" / "detection" / f"{name}.tflite"
    model, interpreter = mm.load(path), open_litert(path.read_bytes())
    pictures = sorted((test_data / "images" / "imagenet_100").glob("*.JPEG"))
    assert len(pictures) == 100
    for file in pictures:
        with Image.open(file) as image:
            x = np.asarray(image.convert("RGB").resize((300, 300)))[None]
        assert_same([values[0] for values in model.run_quantized(x)], run_interpreter(interpreter, x), 1, file.name)


def assert_same(found, expected, each, where):
    assert found[3] == expected[3], where
    rows = int(found[3]) * each
    for ours, theirs in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(ours[:rows].view(np.int32), theirs[:rows].view(np.int32), err_msg=where)


@pytest.mark.crosscheck
def test_the_published_detections_of_cats_and_dogs(test_data):
    """The golden result of TFLite's Task library for its picture: cat, cat, cat, dog, boxes within five pixels."""
    model = mm.load(test_data / "models" / "detection" / f"{PUBLISHED[0]}.tflite")
    found = mm.detect(test_data / "images" / "cats_and_dogs.jpg", model, threshold=0.49)
    assert [(item["label"], round(item["score"], 2)) for item in found] == [
        ("cat", 0.64), ("cat", 0.61), ("cat", 0.56), ("dog", 0.5),
    ]  # fmt: skip
    expected = [(54, 396, 393, 196), (602, 157, 394, 447), (260, 394, 180, 209), (389, 197, 276, 409)]  # x, y, w, h
    for item, (x, y, width, height) in zip(found, expected, strict=True):
        sides = [item["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
        np.testing.assert_allclose(sides, [x, y, x + width, y + height], atol=5)
