"""From what a user names, a path, a hub id or an embedded model, to a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile import formats
from minimobile.arrays import read_array
from minimobile.demo.sources import open_source
from minimobile.errors import ConfigError, InputError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.description import Description
from minimobile.formats.huggingface import canonical_weights, choose_architecture, part_counters
from minimobile.models.requests import LoadRequest, read_request
from minimobile.networks.config import Config, config_from_dict
from minimobile.storage.files import user_path
from minimobile.storage.hub import CONFIG, HubOptions, is_hub_id, locate, part_source
from minimobile.storage.loader_arguments import part_request
from minimobile.storage.strict_json import read_json_object


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint from a directory, a file of any known format, a hub id, or an embedded model's name."""
    return read_requested(read_request(source, None, None, {}))


def read_requested(request: LoadRequest, model_type: str | None = None) -> Checkpoint:
    """Read the checkpoint that a caller of a loader asked for, its config changed as asked.

    `model_type` is that of a config given as a dict which names none.
    """
    config = _read_given_config(request, model_type)
    if request.state_dict is not None and request.source is None:
        checkpoint = _read_state_dict(request.state_dict, config)
    else:
        with open_source(request.source) as found:
            checkpoint = formats.read(found, config=config, options=request.hub)
        if request.state_dict is not None:
            own = _read_state_dict(request.state_dict, checkpoint.config)
            checkpoint = dataclasses.replace(own, processor=checkpoint.processor, provenance=checkpoint.provenance)
    if not request.fields:
        return checkpoint
    settled: Any = checkpoint.config
    changed = dataclasses.replace(checkpoint, config=settled.replace(**request.fields))
    return formats.settle_quantized(changed, checkpoint.config)


def read_config(source: str | Path | None, given: Mapping[str, Any], model_type: str | None = None) -> Config:
    """Read the config alone, without the weights where it is a file of its own (a directory, a hub id, a JSON file).

    `given` are fields to change, and what concerns the hub. `model_type` is that of a JSON file which names none.
    """
    source, rest = part_source(source, given)
    hub, fields = part_request(rest)
    if str(source).endswith(".json"):
        values = read_json_object(user_path(str(source)))
        return config_from_dict(values if model_type is None else {"model_type": model_type, **values}, **fields)
    if is_hub_id(source) or (not str(source).startswith("demo:") and _has_config(source, hub)):
        values = read_json_object(locate(source, [CONFIG], hub))
        if "model_type" in values:  # timm's has none, and leaves the config to be deduced
            return config_from_dict(values, **fields)
    return read_requested(read_request(source, None, None, given)).config


def _has_config(source: str | Path, hub: HubOptions) -> bool:
    try:
        return (Path(source).expanduser() / hub.subfolder / CONFIG).is_file()
    except (TypeError, OSError, ValueError, RuntimeError):  # what is no path is named when it is read
        return False


def _read_given_config(request: LoadRequest, model_type: str | None) -> Config | None:
    config = request.config
    if isinstance(config, str | Path):
        return read_config(config, {})
    if isinstance(config, Mapping):
        return config_from_dict(config if model_type is None else {"model_type": model_type, **config})
    if not isinstance(config, Config | None):
        raise ConfigError(f"config: expected a config or a dict of its fields, got {type(config).__name__}")
    return config


def _read_state_dict(arrays: Mapping[str, Any], config: Config | None) -> Checkpoint:
    """Return a checkpoint of arrays or tensors by transformers' names."""
    if config is None:
        raise InputError("state_dict: expected a source or a config beside it, got neither")
    read = {str(name): _read_weight(str(name), values) for name, values in arrays.items()}
    weights = canonical_weights(part_counters(read)[0], config.model_type, "state_dict")
    architecture = choose_architecture(config.architectures, config.model_type, weights)
    return Checkpoint(config, weights, architecture)


def _read_weight(name: str, values: Any) -> NDArray[Any]:
    values = values.detach() if hasattr(values, "detach") else values
    values = values.float() if "bfloat16" in str(getattr(values, "dtype", "")) else values
    array = read_array(values, f"state_dict: {name}")
    if array.dtype.kind not in "fiu":
        raise InputError(f"state_dict: expected numbers for {name}, got {array.dtype}")
    return array.astype(np.float32) if array.dtype.kind == "f" else array.copy()  # the caller's may change later


def examine(source: str | Path) -> tuple[Description, Checkpoint | None]:
    """Say what a source holds, and read it; None where it cannot be read, and the description's `problem` says why.

    Raises FormatError for what is missing or of no known format, UnavailableError for a hub out of reach.
    """
    with open_source(source) as found:
        return formats.examine(found)
