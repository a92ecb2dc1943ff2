"""What a TFLite file says of itself beside its network: TensorFlow's metadata for everybody, and our own settings.

TensorFlow's: a FlatBuffer of `metadata_schema.fbs` in the buffer TFLITE_METADATA tells how a picture comes in and which
file names the classes; that file is packed in a zip archive behind the model. Ours: config, image processor and school
as JSON, from which the reader has exactly what was written, and not what shapes alone tell.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import ConfigError, FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import DIALECTS
from minimobile.formats.tflite.flatbuffer_writer import Fields, Scalar, write_flatbuffer
from minimobile.networks.config import Config, config_from_dict
from minimobile.quantized.network import Network
from minimobile.storage.strict_json import parse_json_object

LABELS = "labels.txt"
OWN, EVERYBODYS = "MINIMOBILE_SETTINGS", "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_RGB, _GREY, _UNKNOWN = 1, 2, 0  # ColorSpaceType
_FEATURES, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
_AXIS_LABELS = 2  # AssociatedFileType
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of a zip archive: the same bytes on every day
_UNIX = 3


class Settings(NamedTuple):
    """What our own files say: the config without the classes' names, the processor's settings, a row of `DIALECTS`."""

    config: Config
    processor: Mapping[str, Any] | None
    dialect: str


def metadata_buffers(checkpoint: Checkpoint, network: Network) -> dict[str, bytes]:
    """Return the metadata of a file by the names of its buffers."""
    return {OWN: _pack_settings(checkpoint), EVERYBODYS: _describe(checkpoint, network)}


def pack_labels(content: bytes, checkpoint: Checkpoint) -> bytes:
    """Return a file's content with the list of the classes' names behind it, where they fit lines of text."""
    labels = label_lines(checkpoint)
    if labels is None:
        return content
    archive = io.BytesIO()
    archive.write(content)
    with zipfile.ZipFile(archive, "a") as packed:
        member = zipfile.ZipInfo(LABELS, _EARLIEST)
        member.create_system = _UNIX
        packed.writestr(member, "".join(f"{label}\n" for label in labels).encode())
    return archive.getvalue()


def label_lines(checkpoint: Checkpoint) -> list[str] | None:
    """Return the classes' names, or None where there are none or where one is no line of its own."""
    if checkpoint.architecture.endswith("Model"):
        return None
    labels = [checkpoint.config.labels[index] for index in range(checkpoint.config.class_count)]
    is_text = all(label.splitlines() == [label] and label.isprintable() for label in labels)
    return labels if labels and is_text else None


def read_settings(metadata: Mapping[str, bytes], where: str) -> Settings | None:
    """Return what `metadata_buffers` packed; None for the files of others. Raises FormatError for a damaged text."""
    if OWN not in metadata:
        return None
    values = parse_json_object(metadata[OWN], f"{where}: {OWN}")
    config, processor, dialect = (values.get(name) for name in ("config", "processor", "dialect"))
    if not isinstance(config, dict) or not isinstance(processor, dict | None) or dialect not in DIALECTS:
        raise FormatError(f"{where}: {OWN}: expected a config, a processor and a known dialect, found other values")
    try:
        return Settings(config_from_dict(config), processor, str(dialect))
    except ConfigError as error:
        raise FormatError(f"{where}: {OWN}: {error}") from None


def _pack_settings(checkpoint: Checkpoint) -> bytes:
    config = checkpoint.config.to_dict()
    config.pop("label2id", None)
    if label_lines(checkpoint) is not None:  # they are in the file that everybody reads
        del config["id2label"]
        config["num_labels"] = checkpoint.config.num_labels
    settings = {"config": config, "processor": checkpoint.processor, "dialect": checkpoint.dialect}
    text = json.dumps(settings, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")


def _describe(checkpoint: Checkpoint, network: Network) -> bytes:
    """Return the ModelMetadata of a file with one picture in and one result out."""
    picture, result = network.tensors[network.inputs[0]], network.tensors[network.outputs[0]]
    height, width, channels = picture.shape[1:]
    image: Fields = {
        0: "image",
        1: f"A picture of {width} x {height} pixels in {channels} channels.",
        3: {0: Scalar("uint8", _IMAGE),
            1: {0: Scalar("int8", {3: _RGB, 1: _GREY}.get(channels, _UNKNOWN)),
                1: {0: Scalar("uint32", width), 1: Scalar("uint32", height)}}},
        **_normalization(checkpoint.processor, channels),
    }  # fmt: skip
    scores: dict[int, Any] = {
        0: "scores",
        1: f"{type(checkpoint.config).__name__.removesuffix('Config')}: what the network computes, before a softmax.",
        3: {0: Scalar("uint8", _IMAGE if len(result.shape) == 4 else _FEATURES), 1: {}},
    }
    if label_lines(checkpoint) is not None:
        scores[6] = [{0: LABELS, 1: "The name of each class.", 2: Scalar("int8", _AXIS_LABELS)}]
    graph: Fields = {2: [image], 3: [scores]}
    return write_flatbuffer({0: checkpoint.architecture, 3: [graph], 7: "1.0.0"}, _IDENTIFIER)


def _normalization(processor: Mapping[str, Any] | None, channels: int) -> dict[int, Any]:
    """Return what becomes of bytes, (byte - mean) / std, and the limits of that; {} where nobody knows."""
    if processor is None or not {"image_mean", "image_std"} <= processor.keys():
        return {}
    factor = float(processor.get("rescale_factor", 1 / 255))
    mean, std = (_per_channel(processor[name], channels) / factor for name in ("image_mean", "image_std"))
    limits = [((byte - mean) / std).astype(np.float32) for byte in (255, 0)]
    unit = {0: Scalar("uint8", _NORMALIZATION), 1: {0: mean.astype(np.float32), 1: std.astype(np.float32)}}
    return {4: [unit], 5: dict(enumerate(limits))}


def _per_channel(values: Any, channels: int) -> NDArray[np.float64]:
    each: NDArray[np.float64] = np.broadcast_to(np.asarray(values, np.float64).reshape(-1), (channels,))
    return each
