"""The names that torchvision and timm give the layers of their MobileNets, and what they are called here.

Layouts are the same. Source: torchvision/models/mobilenetv2.py; timm/models/efficientnet.py and
_efficientnet_blocks.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minimobile.errors import FormatError
from minimobile.networks.mobilenet_v1 import SEPARABLE_LAYERS
from minimobile.networks.mobilenet_v2 import STAGES

OUTERMOST = ("features", "mobilenet_v1", "mobilenet_v2")  # modules that a network without its head has alone
WRAPPINGS = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
NORMALIZATION = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Layer(NamedTuple):
    """A convolution and its batch norm, by their names there, and the canonical name of the two together."""

    convolution: str
    normalization: str
    canonical: str


def torchvision_v2_layers() -> Iterator[Layer]:
    """Yield the layers of torchvision's `mobilenet_v2`."""
    yield Layer("features.0.0", "features.0.1", "mobilenet_v2.conv_stem.first_conv")
    yield Layer("features.1.conv.0.0", "features.1.conv.0.1", "mobilenet_v2.conv_stem.conv_3x3")
    yield Layer("features.1.conv.1", "features.1.conv.2", "mobilenet_v2.conv_stem.reduce_1x1")
    count = sum(count for _, count, _ in STAGES)
    for index in range(count):
        there, here = f"features.{index + 2}.conv", f"mobilenet_v2.layer.{index}"
        yield Layer(f"{there}.0.0", f"{there}.0.1", f"{here}.expand_1x1")
        yield Layer(f"{there}.1.0", f"{there}.1.1", f"{here}.conv_3x3")
        yield Layer(f"{there}.2", f"{there}.3", f"{here}.reduce_1x1")
    yield Layer(f"features.{count + 2}.0", f"features.{count + 2}.1", "mobilenet_v2.conv_1x1")


def timm_v1_layers() -> Iterator[Layer]:
    """Yield the layers of timm's `mobilenetv1_*`; a stage begins with every change of channels."""
    yield Layer("conv_stem", "bn1", "mobilenet_v1.conv_stem")
    stage, block, last = -1, 0, 0
    for index, (channels, _) in enumerate(SEPARABLE_LAYERS):
        stage, block = (stage, block + 1) if channels == last else (stage + 1, 0)
        last = channels
        there = f"blocks.{stage}.{block}"
        yield Layer(f"{there}.conv_dw", f"{there}.bn1", f"mobilenet_v1.layer.{2 * index}")
        yield Layer(f"{there}.conv_pw", f"{there}.bn2", f"mobilenet_v1.layer.{2 * index + 1}")


def timm_v2_layers() -> Iterator[Layer]:
    """Yield the layers of timm's `mobilenetv2_*`."""
    yield Layer("conv_stem", "bn1", "mobilenet_v2.conv_stem.first_conv")
    yield Layer("blocks.0.0.conv_dw", "blocks.0.0.bn1", "mobilenet_v2.conv_stem.conv_3x3")
    yield Layer("blocks.0.0.conv_pw", "blocks.0.0.bn2", "mobilenet_v2.conv_stem.reduce_1x1")
    places = ((stage, block) for stage, (_, count, _) in enumerate(STAGES, 1) for block in range(count))
    for index, (stage, block) in enumerate(places):
        there, here = f"blocks.{stage}.{block}", f"mobilenet_v2.layer.{index}"
        yield Layer(f"{there}.conv_pw", f"{there}.bn1", f"{here}.expand_1x1")
        yield Layer(f"{there}.conv_dw", f"{there}.bn2", f"{here}.conv_3x3")
        yield Layer(f"{there}.conv_pwl", f"{there}.bn3", f"{here}.reduce_1x1")
    yield Layer("conv_head", "bn2", "mobilenet_v2.conv_1x1")


class School(NamedTuple):
    """Whose network: a row of `dialects.DIALECTS`, what people call it, and {name there: canonical name}."""

    dialect: str
    title: str
    names: dict[str, str]


def torch_schools() -> tuple[School, ...]:
    """Return the networks that are known under other names than transformers'."""
    return (
        School("torchvision", "torchvision's mobilenet_v2", _all_names(torchvision_v2_layers(), "classifier.1")),
        School("timm", "timm's mobilenetv1", _all_names(timm_v1_layers(), "classifier")),
        School("timm", "timm's mobilenetv2", _all_names(timm_v2_layers(), "classifier")),
    )


def _all_names(layers: Iterable[Layer], classifier: str) -> dict[str, str]:
    names = {f"{classifier}.{part}": f"classifier.{part}" for part in ("weight", "bias")}
    for layer in layers:
        names[f"{layer.convolution}.weight"] = f"{layer.canonical}.convolution.weight"
        for part in NORMALIZATION:
            names[f"{layer.normalization}.{part}"] = f"{layer.canonical}.normalization.{part}"
    return names


def find_school(names: Iterable[str]) -> School | None:
    """Return whose network has weights of these names, None where it is nobody's here.

    A wrapping in front of the names does not matter. That the network has just the layers of the school's is not said.
    """
    plain = {strip_wrapping(name) for name in names}
    torchvision, timm_v1, timm_v2 = torch_schools()
    if "features.0.0.weight" in plain and "features.1.conv.0.0.weight" in plain:
        return torchvision
    if "conv_stem.weight" in plain and "blocks.0.0.conv_dw.weight" in plain:
        return timm_v2 if any(name.endswith(".conv_pwl.weight") for name in plain) else timm_v1
    return None


def strip_wrapping(name: str) -> str:
    """Return a weight's name without what DataParallel and torch.compile put before it.

    >>> strip_wrapping("module._orig_mod.features.0.0.weight")
    'features.0.0.weight'
    """
    for wrapping in (*WRAPPINGS, WRAPPINGS[0]):
        name = name.removeprefix(wrapping)
    return name


def map_names(names: Iterable[str], school: School, where: str) -> dict[str, str]:
    """Return {name there: canonical name} for every weight of a file.

    Raises FormatError for a weight that no layer of ours can take: the network has other layers then (mobilenetv2_110d
    is deeper), and without them every number would be wrong; and for one that is there twice.
    """
    mapped = {name: school.names.get(strip_wrapping(name), "") for name in names}
    strangers = list(dict.fromkeys(name.rpartition(".")[0] for name, canonical in mapped.items() if not canonical))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise FormatError(
            f"{where}: expected {school.title} with the layers of MobileNet and no others, found {strangers[0][:200]!r}"
            f"{more}, which is a variant that is not supported"
        )
    if len(set(mapped.values())) < len(mapped):
        raise FormatError(f"{where}: expected every weight once, found some with and without a wrapping")
    return mapped


def common_wrapper(names: Iterable[str]) -> str:
    """Return what every name begins with because a module was put around the network to trace or export it.

    >>> common_wrapper(["net.model.conv_stem.weight", "net.model.classifier.bias"])
    'net.model.'
    """
    parts = [name.split(".")[:-1] for name in names]
    shared = 0
    while parts and all(len(own) > shared for own in parts):
        first = parts[0][shared]
        if first in OUTERMOST or any(own[shared] != first for own in parts):
            break
        shared += 1
    return "".join(f"{part}." for part in parts[0][:shared]) if parts else ""
