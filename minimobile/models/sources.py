"""From what a user names, a path, a hub id or an embedded model, to a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from minimobile import formats
from minimobile.errors import ConfigError, FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.description import Description
from minimobile.formats.hub import is_hub_id, locate
from minimobile.formats.huggingface import CONFIG
from minimobile.formats.strict_json import read_json_object
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config, config_from_dict

Config = MobileNetV1Config | MobileNetV2Config
DEMOS = {"demo:digits": "digits.h5", "demo:scenes": "scenes.h5"}
HUB_OPTIONS = ("revision", "cache_dir")


def read_checkpoint(
    source: str | Path,
    config: Config | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    model_type: str | None = None,
) -> Checkpoint:
    """Read a checkpoint from a directory, a file of any known format, a hub id, "demo:digits" or "demo:scenes".

    `config` (an object, or a dict as in config.json) stands in for the checkpoint's own; `overrides` change fields of
    either, except for `revision` and `cache_dir`, which concern the hub. `model_type` is that of a dict which names
    none.
    """
    fields, hub_options = _part(overrides)
    if isinstance(config, Mapping):
        config = config_from_dict(config if model_type is None else {"model_type": model_type, **config})
    elif not isinstance(config, Config | None):
        raise ConfigError(f"config: expected a config or a dict of its fields, got {type(config).__name__}")
    checkpoint = _read(source, config, hub_options)
    if not fields:
        return checkpoint
    settled: Any = checkpoint.config
    changed = dataclasses.replace(checkpoint, config=settled.replace(**fields))
    return formats.settle_quantized(changed, checkpoint.config)


def read_config(
    source: str | Path, overrides: Mapping[str, Any] | None = None, model_type: str | None = None
) -> Config:
    """Read the config alone, without the weights where it is a file of its own (a directory, a hub id, a JSON file).

    `model_type` is that of a JSON file which names none.
    """
    if str(source).endswith(".json"):
        values = read_json_object(Path(source).expanduser())
        return config_from_dict(
            values if model_type is None else {"model_type": model_type, **values}, **_part(overrides)[0]
        )
    if is_hub_id(source) or (not str(source).startswith("demo:") and (Path(source) / CONFIG).is_file()):
        fields, hub_options = _part(overrides)
        values = read_json_object(locate(source, [CONFIG], **hub_options))
        if "model_type" in values:  # timm's has none, and leaves the config to be deduced
            return config_from_dict(values, **fields)
    return read_checkpoint(source, None, overrides).config


def examine(source: str | Path) -> tuple[Description, Checkpoint | None]:
    """Say what a source holds, and read it; None where it cannot be read, and the description's `problem` says why.

    Raises FormatError for what is missing or of no known format, UnavailableError for a hub out of reach.
    """
    with _open_source(source) as found:
        return formats.examine(found)


def _part(overrides: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part config fields from what concerns the hub."""
    fields = dict(overrides or {})
    return fields, {name: fields.pop(name) for name in HUB_OPTIONS if name in fields}


def _read(source: str | Path, config: Config | None, hub_options: Mapping[str, Any]) -> Checkpoint:
    with _open_source(source) as found:
        return formats.read(found, config=config, **hub_options)


@contextmanager
def _open_source(source: str | Path) -> Iterator[str | Path]:
    """Yield a path or a hub id: those of an embedded model as well."""
    if not isinstance(source, str | Path) or str(source) == "":
        raise FormatError(f"source: expected a path, a hub id or one of {', '.join(DEMOS)}, got {source!r}")
    if isinstance(source, str) and source.startswith("demo:"):
        if source not in DEMOS:
            raise FormatError(f"{source}: expected one of {', '.join(DEMOS)}")
        with resources.as_file(resources.files("minimobile.demo") / DEMOS[source]) as path:
            yield path
    else:
        yield source
