"""The model classes beside transformers' with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import twins
from hypothesis import HealthCheck, given, settings
from judgement import assert_agrees
from tiny_models import CLASSES, make

import minimobile as mm


@pytest.mark.crosscheck
def test_random_networks_are_at_least_as_exact_as_pytorch():
    torch, _ = twins.import_torch()
    ratios = []

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(twins.cases())
    def compare(case):
        class_name, config, shape = case
        twin = twins.make_twin(class_name, config, seed=len(ratios))
        image = np.random.default_rng(len(ratios)).normal(size=shape).astype(np.float32)
        with torch.no_grad():
            theirs = twin.float32(torch.from_numpy(image), output_hidden_states=True)
            truth = twin.float64(torch.from_numpy(image.astype(np.float64)), output_hidden_states=True)
        ours = twin.ours(image, output_hidden_states=True)
        assert list(ours) == list(theirs)
        for name in ours:
            if name != "hidden_states":
                ratios.append(_compare(ours[name], theirs[name], truth[name]))
            else:
                assert len(ours[name]) == len(theirs[name])
                for triple in zip(ours[name], theirs[name], truth[name], strict=True):
                    ratios.append(_compare(*triple))

    compare()
    known = [ratio for ratio in ratios if ratio is not None]
    mean = np.exp(np.mean(np.log(known)))
    print(f"rms error over PyTorch's: {mean:.3f} (geometric mean of {len(known)} outputs)")
    assert len(known) > 500 and mean <= 1


def _compare(ours, theirs, truth):
    """Return our rms error over PyTorch's; None where neither says anything (both exact)."""
    theirs, truth = theirs.numpy(), truth.numpy()
    assert ours.shape == truth.shape and ours.dtype == np.float32
    scale = max(twins.rms(truth), 1e-30)
    assert twins.rms(ours - truth) <= 2e-5 * scale + 1e-7, (twins.rms(ours - truth), scale)
    error, other = twins.rms(ours - truth), twins.rms(theirs - truth)
    return error / other if error > 1e-7 * 1e-3 * scale and other > 1e-7 * 1e-3 * scale else None


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
def test_real_checkpoints_against_transformers(name, size):
    torch, transformers = twins.import_torch()
    image_file = twins.test_data() / "images" / "cat.bmp"
    directory = twins.test_data() / "models" / "huggingface" / name
    ours = mm.load(directory)
    theirs = getattr(transformers, type(ours).__name__).from_pretrained(directory).eval()
    processor = ours.processor
    picture = _open(image_file)
    image = processor(picture, size={"shortest_edge": size}, crop_size={"height": size, "width": size},
                      return_tensors="np")["pixel_values"]  # fmt: skip
    labels = np.array([282]) if "deeplab" not in name else np.arange(99 * 80).reshape(1, 99, 80) % 2
    found = ours(image, labels=labels, output_hidden_states=True)
    with torch.no_grad():
        tensors = {"labels": torch.from_numpy(labels), "output_hidden_states": True}
        expected = theirs(torch.from_numpy(image), **tensors)
        truth = theirs.double()(torch.from_numpy(image.astype(np.float64)), **tensors)
    assert list(found) == list(expected)
    ratios = [_compare(found.logits, expected.logits, truth.logits)]
    ratios += [
        _compare(*triple)
        for triple in zip(found.hidden_states, expected.hidden_states, truth.hidden_states, strict=True)
    ]
    ratios = [ratio for ratio in ratios if ratio is not None]
    mean = np.exp(np.mean(np.log(ratios)))
    print(f"{name}: rms error over PyTorch's {mean:.3f}, loss {found.loss} against {float(truth.loss)}")
    # One network on one picture can go either way: the rounding of folded weights is the same error at every pixel,
    # and layers hand it on. The mean over many networks is the test above.
    assert_agrees(ours, image, {ours.graph.outputs[0]: expected.logits.numpy()})
    assert found.loss == pytest.approx(float(truth.loss), rel=2e-5)
    features = mm.AutoModel.from_pretrained(directory)
    bare = (
        getattr(transformers, type(mm.AutoModel.from_pretrained(directory)).__name__).from_pretrained(directory).eval()
    )
    with torch.no_grad():
        pooled = bare(torch.from_numpy(image)).pooler_output.numpy()
    assert_agrees(features, image, {"pooler": pooled})


def _open(path):
    from PIL import Image

    return Image.open(path).convert("RGB")


@pytest.mark.crosscheck
@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_transformers_reads_back_what_we_save(model_class, config, pixels, tmp_path):
    torch, transformers = twins.import_torch()
    model = make(model_class, config)
    model.save_pretrained(tmp_path)
    theirs, report = getattr(transformers, model_class.__name__).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(pixels))[0].numpy()
    assert_agrees(model, pixels, {model.graph.outputs[0]: expected})
    theirs.save_pretrained(tmp_path / "again")
    assert np.array_equal(mm.load(tmp_path / "again")(pixels)[0], model(pixels)[0])


@pytest.mark.crosscheck
@pytest.mark.parametrize("asks_states", [True, False])
@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_records_and_tuples_are_those_of_transformers(model_class, config, has_labels, asks_states, pixels):
    torch, _ = twins.import_torch()
    twin = twins.make_twin(model_class.__name__, config)
    labels = {"labels": np.zeros((2, 9, 9) if "Segmentation" in model_class.__name__ else 2, np.int64)}
    labels = labels if has_labels and not issubclass(model_class, mm.models.classes._Backbone) else {}
    for return_dict in (True, False):
        options = {"output_hidden_states": asks_states, "return_dict": return_dict}
        ours = twin.ours(pixels, **labels, **options)
        with torch.no_grad():
            tensors = {name: torch.from_numpy(values) for name, values in labels.items()}
            theirs = twin.float32(torch.from_numpy(pixels), **tensors, **options)
        assert type(ours).__name__ == type(theirs).__name__ and list(map(_outline, ours)) == list(map(_outline, theirs))
        if return_dict:
            assert [_outline(item) for item in ours.to_tuple()] == [_outline(item) for item in theirs.to_tuple()]


def _outline(item):
    return list(map(_outline, item)) if isinstance(item, tuple) else getattr(item, "shape", item)
