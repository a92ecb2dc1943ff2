"""What a TFLite file says of itself beside its network: TensorFlow's metadata for everybody, and our own settings.

TensorFlow's: a FlatBuffer of `metadata_schema.fbs` in the buffer TFLITE_METADATA tells how a picture comes in and which
file names the classes; that file is packed in a zip archive behind the model (stored, for the Task library refuses one
that is compressed). Ours: `own_settings`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import read_normalization
from minimobile.formats.own_settings import Settings, label_lines, pack_settings, read_settings
from minimobile.formats.tflite.flatbuffer_writer import Fields, Scalar, write_flatbuffer
from minimobile.formats.tflite.tflite_writer import DETECTIONS
from minimobile.quantized.network import Network

LABELS = "labels.txt"
OWN, EVERYBODYS = "MINIMOBILE_SETTINGS", "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_RGB, _GREY, _UNKNOWN = 1, 2, 0  # ColorSpaceType
_FEATURES, _IMAGE, _BOXES = 1, 2, 3  # ContentProperties
_CORNERS = 1  # BoundingBoxType
_X_FIRST = np.array([1, 0, 3, 2], np.uint32)  # where left, top, right and bottom stand in (ymin, xmin, ymax, xmax)
_NORMALIZATION = 1  # ProcessUnitOptions
_AXIS_LABELS, _VALUE_LABELS = 2, 3  # AssociatedFileType
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
    """Return the ModelMetadata of a file with one picture in and one result out, or the four of a detector."""
    picture = network.tensors[network.inputs[0]]
    height, width, channels = picture.shape[1:]
    image: Fields = {
        0: "image",
        1: f"A picture of {width} x {height} pixels in {channels} channels.",
        3: {0: Scalar("uint8", _IMAGE),
            1: {0: Scalar("int8", {3: _RGB, 1: _GREY}.get(channels, _UNKNOWN)),
                1: {0: Scalar("uint32", width), 1: Scalar("uint32", height)}}},
        **_normalization(checkpoint.processor, channels),
    }  # fmt: skip
    groups: Fields = {}
    if checkpoint.architecture.endswith("ForObjectDetection"):
        results, groups = _describe_detections(checkpoint), {8: [{0: "detection_result", 1: [*DETECTIONS[:3]]}]}
    elif len(network.outputs) > 1:  # a head of the file's own
        results = [{0: name, 3: {0: Scalar("uint8", _FEATURES), 1: {}}} for name in network.outputs]
    else:
        results = [_describe_scores(checkpoint, len(network.tensors[network.outputs[0]].shape) == 4)]
    graph: Fields = {2: [image], 3: results, **groups}
    return write_flatbuffer({0: checkpoint.architecture, 3: [graph], 7: "1.0.0"}, _IDENTIFIER)


def _describe_scores(checkpoint: Checkpoint, is_map: bool) -> Fields:
    what = f"{type(checkpoint.config).__name__.removesuffix('Config')}: what the network computes, before a softmax."
    content: Fields = {0: Scalar("uint8", _IMAGE if is_map else _FEATURES), 1: {}}
    return {0: "scores", 1: what, 3: content, **_describe_labels(checkpoint, _AXIS_LABELS)}


def _describe_detections(checkpoint: Checkpoint) -> list[Fields]:
    """Return what the Task library looks for in the results of a detector, by these names."""
    boxes: Fields = {0: Scalar("uint8", _BOXES), 1: {0: _X_FIRST, 1: Scalar("int8", _CORNERS)}}
    features: Fields = {0: Scalar("uint8", _FEATURES), 1: {}}
    said = ("The corners of the boxes, relative to the picture.", "The classes.", "The scores.", "How many there are.")
    contents = (boxes, features, features, features)
    found: list[Fields] = [
        {0: name, 1: what, 3: content} for name, what, content in zip(DETECTIONS, said, contents, strict=True)
    ]
    found[1] = {**found[1], **_describe_labels(checkpoint, _VALUE_LABELS)}
    return found


def _describe_labels(checkpoint: Checkpoint, kind: int) -> Fields:
    if label_lines(checkpoint) is None:
        return {}
    return {6: [{0: LABELS, 1: "The name of each class.", 2: Scalar("int8", kind)}]}


def _normalization(processor: Mapping[str, Any] | None, channels: int) -> dict[int, Any]:
    """Return what becomes of bytes, (byte - mean) / std, and the limits of that; {} where nobody knows."""
    if processor is None:
        return {}
    by = read_normalization(processor, channels)
    mean, std = by.mean / by.factor, by.std / by.factor
    limits = [((byte - mean) / std).astype(np.float32) for byte in (255, 0)]
    unit = {0: Scalar("uint8", _NORMALIZATION), 1: {0: mean.astype(np.float32), 1: std.astype(np.float32)}}
    return {4: [unit], 5: dict(enumerate(limits))}
