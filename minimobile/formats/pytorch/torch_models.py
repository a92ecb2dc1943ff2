"""Single weights files of PyTorch networks, whatever school they are of, and directories of timm.

The weights' names tell the school: transformers', torchvision's or timm's. A file under transformers' names with its
config.json beside it is read as Hugging Face's; without one the config is deduced from the weights' shapes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minimobile.errors import FormatError
from minimobile.formats import huggingface, safetensors_file
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.deduction import STEMS, build_checkpoint
from minimobile.formats.description import Description
from minimobile.formats.dialects import BICUBIC, BILINEAR, DIALECTS, NEAREST, Dialect, PixelRange, crop_center
from minimobile.formats.pytorch import pytorch
from minimobile.formats.pytorch.torch_names import find_school, map_names
from minimobile.formats.signatures import read_timm_values
from minimobile.networks.config import Config
from minimobile.storage.files import open_regular
from minimobile.storage.hub import CONFIG

TORCHVISION_V2_HASH = "7ebf99e0"  # torchvision names its files after the first digits of their SHA-256
_RESAMPLING = {"nearest": NEAREST, "bilinear": BILINEAR, "bicubic": BICUBIC}

Values = Mapping[str, Any]


def read(path: str | Path, config: Config | None = None) -> Checkpoint:
    """Read a weights file, or timm's directory; `config` stands in for what shapes and config.json tell.

    Raises FormatError or ConfigError where a file is missing, damaged, hostile or of another kind of network.
    """
    path = Path(path)
    source = huggingface.find_weights(path) if path.is_dir() else path
    school = find_school(entry.name for entry in huggingface.list_entries(source))
    if school is None and (config is not None or (source.parent / CONFIG).exists()):
        return huggingface.read(path, config)
    where = str(source)
    stored, ignored = huggingface.part_counters(huggingface.read_weights(source, with_counters=True))
    epsilon = None if safetensors_file.recognise(source) else pytorch.read_epsilon(source)
    known: dict[str, Any] = {} if epsilon is None else {"layer_norm_eps": epsilon}
    provenance = {"format": "safetensors" if safetensors_file.recognise(source) else "pytorch", "source": path.name}
    if school is None:
        weights = huggingface.canonical_weights(stored, _find_model_type(stored, where), where)
        mapped = dict(zip(stored, weights, strict=True))
        dialect = DIALECTS["huggingface"]
    else:
        mapped = map_names(stored, school, where)
        weights = {canonical: stored[name] for name, canonical in mapped.items()}
        dialect = DIALECTS[school.dialect]
        if school.dialect == "torchvision" and _has_hash(source, TORCHVISION_V2_HASH):
            dialect = DIALECTS["torchvision-v2"]
        values = read_timm_values(source.parent) if school.dialect == "timm" else None
        if values is not None:
            dialect, told = _follow_timm(dialect, values, str(source.parent / CONFIG))
            known |= told
            provenance["architecture"] = str(values["architecture"])[:200]
    return build_checkpoint(
        weights, dialect, where, config=config, provenance=provenance, mapped=mapped, ignored=ignored, **known
    )


def describe(path: str | Path) -> Description:
    """Say what a weights file, or timm's directory, holds; errors are those of `read`."""
    described = huggingface.describe(path)
    names = [entry.name for entry in described.entries]
    school = find_school(names)
    if school is None:
        is_ours = any(name.endswith(stem.partition(".")[2]) for stem in STEMS.values() for name in names)
        return dataclasses.replace(described, dialect="huggingface" if is_ours else None)
    return dataclasses.replace(described, dialect=school.dialect, facts={**described.facts, "network": school.title})


def _find_model_type(names: Mapping[str, Any], where: str) -> str:
    """Return whether weights under transformers' names, with or without prefix, are V1's or V2's."""
    for stem in STEMS.values():
        model_type, _, plain = stem.partition(".")
        if stem in names or plain in names:
            return model_type
    found = ", ".join(repr(name[:80]) for name in sorted(names)[:3]) or "none"
    raise FormatError(
        f"{where}: expected the weights of a MobileNet V1 or V2 under the names of transformers, torchvision or timm, "
        f"found {found}"
    )


def _has_hash(path: Path, start: str) -> bool:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest().startswith(start)


def _follow_timm(dialect: Dialect, values: Values, where: str) -> tuple[Dialect, dict[str, Any]]:
    """Return the dialect with the preprocessing that config.json tells, and the config's fields that it tells.

    The crop is `crop_pct` of what the shorter edge is resized to (timm/data/transforms_factory.py).
    """
    told = values.get("pretrained_cfg", values)
    if not isinstance(told, dict):
        raise FormatError(f"{where}: expected pretrained_cfg to be an object, found {str(told)[:80]!r}")

    def read_numbers(name: str, default: tuple[float, ...], low: float, high: float) -> tuple[float, ...]:
        numbers = told.get(name, default)
        is_fit = isinstance(numbers, list | tuple) and len(numbers) == len(default)
        if not is_fit or not all(type(n) in (int, float) and low <= n <= high for n in numbers):
            raise FormatError(
                f"{where}: expected {name} to be {len(default)} numbers of {low:g} to {high:g}, found "
                f"{str(numbers)[:80]!r}"
            )
        return tuple(numbers)

    pixels = dialect.pixels
    mean = read_numbers("mean", pixels.mean, -1e3, 1e3)
    std = read_numbers("std", pixels.std, 1e-6, 1e3)
    _, height, width = (int(n) for n in read_numbers("input_size", (3, 224, 224), 1, 2**14))
    kept, interpolation = told.get("crop_pct", 0.875), told.get("interpolation", "bicubic")
    if type(kept) not in (int, float) or not 0.01 <= kept <= 1:
        raise FormatError(f"{where}: expected crop_pct to be a number of 0.01 to 1, found {str(kept)[:80]!r}")
    is_known = isinstance(interpolation, str) and interpolation in _RESAMPLING
    if not is_known or told.get("crop_mode", "center") != "center":
        raise FormatError(
            f"{where}: expected one of {', '.join(_RESAMPLING)} and a crop of the center, found "
            f"{str(interpolation)[:80]!r} and {str(told.get('crop_mode'))[:80]!r}"
        )
    shorter = min(height, width)
    resize = partial(
        crop_center,
        margin=math.floor(shorter / kept) - shorter,
        resample=_RESAMPLING[interpolation],
        crop_rounding="half_even",
    )
    followed = dataclasses.replace(
        dialect, resize=resize, pixels=PixelRange(pixels.factor, mean, std), v1_pixels=None  # type: ignore[arg-type]
    )  # fmt: skip
    return followed, {"image_size": (height, width)}
