"""What callers say to loaders: transformers' arguments obeyed, left aside, or refused by name; copies of models."""

from __future__ import annotations

import copy
import inspect
import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import twins

import minimobile as mm
from minimobile.models.weights import list_differences

LOADERS = (
    mm.load,
    mm.AutoModelForImageClassification.from_pretrained,
    mm.MobileNetV1ForImageClassification.from_pretrained,
)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, 33, 47)).astype(np.float32)


@pytest.mark.parametrize("load", LOADERS)
def test_arguments_that_ask_for_what_is_so_anyway_change_nothing(load, classifier: Path, pixels: np.ndarray) -> None:
    expected = load(classifier)(pixels).logits
    for asked in (
        {"torch_dtype": "auto"}, {"torch_dtype": "float32"}, {"dtype": "auto"}, {"dtype": None}, {"dtype": np.float32},
        {"low_cpu_mem_usage": True}, {"local_files_only": True}, {"trust_remote_code": True}, {"token": "hf_x"},
        {"token": None}, {"use_safetensors": True}, {"device_map": None}, {"device_map": "auto"},
        {"device_map": "cpu"}, {"device_map": {"": "cpu"}}, {"subfolder": ""}, {"revision": "main"},
        {"attn_implementation": "eager"}, {"output_attentions": False}, {"cache_dir": "somewhere"},
        {"force_download": False}, {"weights_only": True}, {"proxies": None}, {"variant": None},
    ):  # fmt: skip
        assert np.array_equal(load(classifier, **asked)(pixels).logits, expected), asked
    assert np.array_equal(load(pretrained_model_name_or_path=str(classifier))(pixels).logits, expected)
    assert np.array_equal(load(str(classifier.parent), subfolder=classifier.name)(pixels).logits, expected)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"device_map": "cuda"},
            "^device_map: expected None, 'auto' or 'cpu', for the engine runs on processors alone",
        ),
        ({"device_map": {"": 0}}, "^device_map: "),
        ({"device_map": 0}, "^device_map: "),
        ({"device": "cuda:0"}, "^device: "),
        ({"quantization_config": object()}, "^quantization_config: "),
        ({"variant": "fp16"}, "^variant: expected None; name the weights file"),
        ({"from_tf": True}, "^from_tf: "),
        ({"gguf_file": "x.gguf"}, "^gguf_file: "),
        ({"proxies": {"http": "x"}}, "^proxies: "),
        ({"return_unused_kwargs": True}, "^return_unused_kwargs: "),
        ({"subfolder": "../x"}, "^subfolder: expected a folder within the source"),
        ({"subfolder": "/x"}, "^subfolder: "),
        ({"token": 3}, "^token: expected a token"),
        ({"local_files_only": "yes"}, "^local_files_only: expected True or False"),
        ({"ignore_mismatched_sizes": 3}, "^ignore_mismatched_sizes: expected True or False"),
        ({"state_dict": [1]}, "^state_dict: expected arrays by their names"),
        ({"dtype": "int8"}, "^dtype: expected one of float32, float64, got 'int8'"),
        ({"dtype": "float64"}, "engine='reference'"),
        ({"pretrained_model_name_or_path": "x"}, "^pretrained_model_name_or_path: expected one source"),
        ({"low_cpu_memory_usage": True}, "there is no field 'low_cpu_memory_usage'"),
    ],
)
def test_arguments_that_would_matter_are_refused_by_name(load, asked, message, classifier: Path) -> None:
    with pytest.raises(mm.MinimobileError, match=message) as caught:
        load(classifier, **asked)
    assert len(str(caught.value)) < 200  # no list of all there are


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", np.float16])
def test_halves_are_computed_in_float32_with_a_note(dtype, classifier: Path, pixels: np.ndarray) -> None:
    expected = mm.load(classifier)(pixels).logits
    for name in ("dtype", "torch_dtype"):
        with pytest.warns(UserWarning, match="float16: computed in float32, which holds each b?float16 exactly"):
            model = mm.load(classifier, **{name: dtype})
        assert model.dtype == "float32" and np.array_equal(model(pixels).logits, expected)


def test_missing_sources_are_os_errors(tmp_path: Path) -> None:
    for load in (*LOADERS, mm.AutoConfig.from_pretrained, mm.AutoImageProcessor.from_pretrained):
        with pytest.raises(OSError, match=r"no such file or directory|expected a directory with") as caught:
            load(str(tmp_path / "nothing here"))
        assert isinstance(caught.value, mm.FormatError)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="expected"):
        mm.AutoImageProcessor.from_pretrained(tmp_path / "empty")


def test_a_head_of_another_size_is_refused_or_drawn_anew(classifier: Path, pixels: np.ndarray) -> None:
    with pytest.raises(mm.FormatError, match=r"classifier\.weight"):
        mm.load(classifier, num_labels=7)
    with pytest.warns(UserWarning, match=r"classifier\.weight, classifier\.bias: drawn at random"):
        model, info = mm.AutoModelForImageClassification.from_pretrained(
            classifier, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
        )
    assert model(pixels).logits.shape == (2, 7) and model.num_labels == 7
    width = model.state_dict()["classifier.weight"].shape[1]
    assert info["mismatched_keys"] == {
        ("classifier.weight", (3, width), (7, width)), ("classifier.bias", (3,), (7,))
    }  # fmt: skip
    assert info["missing_keys"] == info["unexpected_keys"] == set() and info["error_msgs"] == []
    backbone, info = mm.AutoModel.from_pretrained(classifier, output_loading_info=True, ignore_mismatched_sizes=True)
    assert info["unexpected_keys"] == {"classifier.weight", "classifier.bias"} and isinstance(
        backbone, mm.MobileNetV1Model
    )


def test_counters_of_training_are_left_out_without_a_word() -> None:
    used, stored = {"norm.weight": np.ones(3)}, {"norm.num_batches_tracked": np.ones((), np.int64), "other": np.ones(1)}
    report = list_differences({**used, **stored}, used)
    assert report["unexpected_keys"] == {"other"} and report["missing_keys"] == set()


def test_weights_given_as_a_state_dict(classifier: Path, pixels: np.ndarray) -> None:
    model = mm.load(classifier)
    other = {
        name: np.float64(values * 2 if name == "classifier.weight" else values)
        for name, values in model.state_dict().items()
    }
    expected = mm.MobileNetV1ForImageClassification.from_pretrained(None, config=model.config, state_dict=other)
    assert not np.array_equal(expected(pixels).logits, model(pixels).logits)
    for loaded in (
        mm.MobileNetV1ForImageClassification.from_pretrained(classifier, state_dict=other),
        mm.load(classifier, state_dict=other),
        mm.load(config=str(classifier), state_dict=other),
    ):
        assert np.array_equal(loaded(pixels).logits, expected(pixels).logits)
    assert mm.load(classifier, state_dict=other).processor is not None
    for wrong, message in (
        ({"state_dict": other}, "expected a source or a config beside it"),
        ({"state_dict": {"classifier.weight": "x"}, "config": model.config}, "expected numbers for classifier.weight"),
        ({"state_dict": {}, "config": model.config}, "expected"),
        ({"source": classifier, "config": 5}, "config: expected a config or a dict of its fields, got int"),
    ):
        with pytest.raises(mm.MinimobileError, match=message):
            mm.load(**wrong)


def test_processors_take_what_models_take(classifier: Path) -> None:
    expected = mm.AutoImageProcessor.from_pretrained(classifier).to_dict()
    for load in (mm.AutoImageProcessor.from_pretrained, mm.MobileNetV1ImageProcessor.from_pretrained):
        for asked in (
            {"revision": "main", "cache_dir": None, "token": "hf_x"}, {"use_fast": True}, {"local_files_only": True},
            {"trust_remote_code": False, "force_download": False, "proxies": None},
        ):  # fmt: skip
            assert load(classifier, **asked).to_dict() == expected
        assert load(pretrained_model_name_or_path=classifier).to_dict() == expected
        assert load(classifier.parent, subfolder=classifier.name).to_dict() == expected
    assert (
        mm.AutoConfig.from_pretrained(classifier.parent, subfolder=classifier.name, trust_remote_code=True).num_labels
        == 3
    )


def test_what_users_of_modules_call(classifier: Path, pixels: np.ndarray, tmp_path: Path) -> None:
    model = mm.load(classifier)
    for same in (
        model.eval(), model.train(False), model.to("cpu"), model.to(device="cpu"), model.to("float32"), model.cpu(),
        model.float(), model.requires_grad_(False), model.to(model.device), model.to("cpu", np.float32),
    ):  # fmt: skip
        assert same is model
    assert (model.device, model.dtype, model.num_labels, model.base_model_prefix) == (
        "cpu",
        "float32",
        3,
        "mobilenet_v1",
    )
    counted = [values.size for name, values in model.state_dict().items() if ".running_" not in name]
    assert model.num_parameters() == model.num_parameters(only_trainable=True) == sum(counted)
    assert np.array_equal(model.forward(pixels).logits, model(pixels).logits)
    assert next(iter(inspect.signature(model.forward).parameters)) == "pixel_values"
    for refused in (lambda: model.to("cuda"), lambda: model.to("float16"), model.train, model.requires_grad_):
        with pytest.raises(mm.InputError, match="expected"):
            refused()
    with pytest.raises(mm.InputError, match="expected device or dtype, got 'devise'"):
        model.to(devise="cpu")
    model.save_pretrained(tmp_path / "saved", safe_serialization=True, max_shard_size="5GB", push_to_hub=False)
    assert np.array_equal(mm.load(tmp_path / "saved")(pixels).logits, model(pixels).logits)
    for wrong in ({"safe_serialization": False}, {"push_to_hub": True}, {"safe_serialisation": True}):
        with pytest.raises(mm.InputError, match=next(iter(wrong))):
            model.save_pretrained(tmp_path / "never", **wrong)
    assert not (tmp_path / "never").exists()


def test_arguments_by_position_stand_where_transformers_has_them(classifier: Path, segmenter: Path) -> None:
    image, label = np.zeros((1, 3, 32, 32), np.float32), [1]
    names = mm.load(classifier)
    assert len(names(image, True).hidden_states) == 26 and names(image, False, label).loss is not None
    assert isinstance(names(image, None, label, False), tuple)
    masks = mm.load(segmenter)
    found = masks(image, np.zeros((1, 32, 32), int), True)
    assert found.loss is not None and len(found.hidden_states) == 16
    features = mm.AutoModel.from_pretrained(classifier)
    assert len(features(image, True).hidden_states) == 26 and isinstance(features(image, False, False), tuple)
    with pytest.raises(mm.InputError, match="has no loss"):
        features(image, labels=label)


def test_batches_are_on_the_processor_already(classifier: Path) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    inputs = mm.load(classifier).processor(image, return_tensors="np")
    assert inputs.to("cpu") is inputs and inputs.to(device="cpu").pixel_values.dtype == np.float32
    assert inputs.to(np.float16).pixel_values.dtype == np.float16
    with pytest.raises(mm.InputError, match="expected 'cpu' or a type of floats, got 'cuda'"):
        inputs.to("cuda")


def run_in_another_process(model: mm.MobileNetV1ForImageClassification, image: np.ndarray) -> np.ndarray:
    return model(image).logits


def test_a_model_goes_through_pickle_and_copy(classifier: Path, segmenter: Path, pixels: np.ndarray) -> None:
    for source in (classifier, segmenter):
        for options in ({}, {"engine": "reference", "dtype": "float64"}, {"num_threads": 1}):
            model = mm.load(source, **options)
            for made in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
                assert type(made) is type(model) and made.config == model.config and made._options == model._options
                assert made.processor.to_dict() == model.processor.to_dict()
                assert np.array_equal(made(pixels).logits, model(pixels).logits)
    bare = mm.MobileNetV1Model(model.config.replace() if isinstance(model, mm.MobileNetV1Model) else None, False)
    assert pickle.loads(pickle.dumps(bare))(pixels).pooler_output is None
    drawn = mm.MobileNetV2ForImageClassification(mm.MobileNetV2Config(depth_multiplier=0.1), seed=4)
    assert np.array_equal(copy.deepcopy(drawn)(pixels).logits, drawn(pixels).logits)
    assert not copy.deepcopy(drawn).state_dict()["classifier.weight"].flags.writeable


def test_a_spawned_worker_gets_a_model(classifier: Path, pixels: np.ndarray) -> None:
    model = mm.load(classifier)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(run_in_another_process, (model, pixels))
    assert np.array_equal(found, model(pixels).logits)


def test_help_tells_the_arguments_of_load() -> None:
    text = inspect.getdoc(mm.load) or ""
    for name in inspect.signature(mm.load).parameters:
        assert f"{name}:" in text, name
    for name in ("revision", "cache_dir", "token", "subfolder", "state_dict", "ignore_mismatched_sizes"):
        assert name in text, name


SCRIPT = """\
from PIL import Image

import minimobile as mm

model = mm.load("demo:digits", num_threads=1)
processor = mm.AutoImageProcessor.from_pretrained("demo:digits")
inputs = processor(Image.open("digit.png"), return_tensors="np")
logits = model(**inputs).logits
best: int = int(logits.argmax(axis=-1)[0])
label: str = model.id2label[best]
states = mm.MobileNetV2Model.from_pretrained("x").eval()(**inputs).last_hidden_state.mean(axis=(2, 3))
masks: list[dict[str, object]] = [dict(row) for row in mm.segment("photo.jpg", model="demo:scenes").shares]
"""
WRONG = 'model(**inputs).logitz\nmm.laod("x")\nmm.load("x", num_threads="two")\nmodel.id2label[best] + 1\n'


@pytest.mark.crosscheck
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_see_what_a_model_returns(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker)
    root = Path(mm.__file__).parent.parent
    (tmp_path / "user.py").write_text(SCRIPT + WRONG)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = true\nmypy_path = {root}:{root / 'kernels'}\nfollow_imports = silent\n"
    )
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "extraPaths": [str(root), str(root / "kernels")],
                "reportUnknownMemberType": False,
            }
        )
    )
    arguments = ["--pythonpath", sys.executable] if checker == "pyright" else ["--python-executable", sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", checker, *arguments, "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    wrong_lines = {line.split(":")[1] for line in done.stdout.splitlines() if "error" in line and "user.py:" in line}
    first = SCRIPT.count("\n") + 1
    assert wrong_lines == {str(first + i) for i in range(4)}, done.stdout + done.stderr


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("tflite/mobilenet_v1_0.25_128_quant.tflite", {}),
        ("tflite/mobilenet_v1_0.25_128_quant.tflite", {"dequantize": True}),
        ("tensorflow/deeplabv3_mobilenet_v2_0.5_513_portrait_quant.ckpt", {}),
        ("tensorflow/deeplabv3_mobilenet_v2_0.5_513_portrait_quant.ckpt", {"quantized": True}),
        ("detection/coco_ssd_mobilenet_v1_0.75_300_quant.tflite", {}),
    ],
)
def test_models_of_integers_and_of_trained_ranges_go_through_pickle(source: str, options, test_data: Path) -> None:
    model = mm.load(test_data / "models" / source, **options)
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    pixel_values = model.processor(image, return_tensors="np")["pixel_values"]
    expected = model(pixel_values)
    for made in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert made.is_quantized == model.is_quantized
        found = made(pixel_values)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.crosscheck
def test_torch_s_own_types_are_understood(classifier: Path, pixels: np.ndarray) -> None:
    twins.import_torch()
    import torch

    model = mm.load(classifier, dtype=torch.float32, device_map=torch.device("cpu"))
    assert model.to(torch.device("cpu")) is model.to("cpu", torch.float32) is model
    with pytest.warns(UserWarning, match="bfloat16: computed in float32"):
        mm.load(classifier, torch_dtype=torch.bfloat16)
    tensors = {name: torch.from_numpy(values.copy()).requires_grad_() for name, values in model.state_dict().items()}
    loaded = mm.load(classifier, state_dict=tensors)
    assert np.array_equal(loaded(pixels).logits, model(pixels).logits)
    rounded = {name: tensor.detach().to(torch.bfloat16) for name, tensor in tensors.items()}
    assert mm.load(classifier, state_dict=rounded)(pixels).logits.dtype == np.float32
    inputs = model.processor(np.zeros((40, 50, 3), np.uint8), return_tensors="pt")
    assert (
        inputs.to("cpu").pixel_values.device.type == "cpu"
        and inputs.to(torch.float16).pixel_values.dtype == torch.float16
    )
    assert mm.MobileNetV2Config(dtype=torch.float16).dtype == "float16"
