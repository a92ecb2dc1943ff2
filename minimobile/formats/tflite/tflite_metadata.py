"""What a TFLite file says of itself beside its network: TensorFlow's metadata for everybody, and our own settings.

TensorFlow's: a FlatBuffer of `metadata_schema.fbs` in the buffer TFLITE_METADATA tells how a picture comes in and which
file names the classes; that file is packed in a zip archive behind the model. Ours: `own_settings`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.own_settings import Settings, label_lines, pack_settings, read_settings
from minimobile.formats.tflite.flatbuffer_writer import Fields, Scalar, write_flatbuffer
from minimobile.quantized.network import Network

LABELS = "labels.txt"
OWN, EVERYBODYS = "MINIMOBILE_SETTINGS", "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_RGB, _GREY, _UNKNOWN = 1, 2, 0  # ColorSpaceType
_FEATURES, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
_AXIS_LABELS = 2  # AssociatedFileType
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of a zip archive: the same bytes on every day
_UNIX = 3


def metadata_buffers(checkpoint: Checkpoint, network: Network) -> dict[str, bytes]:
    """Return the metadata of a file by the names of its buffers."""
    return {OWN: pack_settings(checkpoint), EVERYBODYS: _describe(checkpoint, network)}


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


def read_own(metadata: Mapping[str, bytes], where: str) -> Settings | None:
    """Return what `metadata_buffers` packed of ours; None for files of others. Raises FormatError where damaged."""
    return read_settings(metadata[OWN], f"{where}: {OWN}") if OWN in metadata else None


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
