"""What our own files of other formats say beside the network: config, image processor and school, as JSON.

From it the reader has exactly what was written, and not what shapes alone tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from minimobile.errors import ConfigError, FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import DIALECTS
from minimobile.networks.config import Config, config_from_dict
from minimobile.storage.strict_json import parse_json_object


class Settings(NamedTuple):
    """What our own files say: the config without the classes' names, the processor's settings, a row of `DIALECTS`."""

    config: Config
    processor: Mapping[str, Any] | None
    dialect: str


def pack_settings(checkpoint: Checkpoint) -> bytes:
    """Return the settings as JSON in UTF-8; the classes' names are left to the list that everybody reads."""
    config = checkpoint.config.to_dict()
    config.pop("label2id", None)
    if label_lines(checkpoint) is not None:
        del config["id2label"]
        config["num_labels"] = checkpoint.config.num_labels
    return to_json({"config": config, "processor": checkpoint.processor, "dialect": checkpoint.dialect}).encode()


def read_settings(content: bytes, where: str) -> Settings:
    """Return what `pack_settings` packed. Raises FormatError, which begins with `where`, for a damaged text."""
    values = parse_json_object(content, where)
    config, processor, dialect = (values.get(name) for name in ("config", "processor", "dialect"))
    if not isinstance(config, dict) or not isinstance(processor, dict | None) or dialect not in DIALECTS:
        raise FormatError(f"{where}: expected a config, a processor and a known dialect, found other values")
    try:
        return Settings(config_from_dict(config), processor, str(dialect))
    except ConfigError as error:
        raise FormatError(f"{where}: {error}") from None


def label_lines(checkpoint: Checkpoint) -> list[str] | None:
    """Return the classes' names, or None where there are none or where one is no line of its own."""
    if checkpoint.architecture.endswith("Model"):
        return None
    labels = [checkpoint.config.labels[index] for index in range(checkpoint.config.class_count)]
    is_text = all(label.splitlines() == [label] and label.isprintable() for label in labels)
    return labels if labels and is_text else None


def to_json(values: Mapping[str, Any]) -> str:
    """Return JSON in one line, the same for the same values."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))
