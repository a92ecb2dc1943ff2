"""What a path is, told by its name and by a few bytes: one function per format, and none that needs its reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats import safetensors_file
from minimobile.formats.protobuf import LENGTH_DELIMITED, VARINT, read_varint
from minimobile.storage.files import open_regular, read_start, regular_file_size
from minimobile.storage.hub import CONFIG, WEIGHTS
from minimobile.storage.strict_json import read_json_object

START_BYTES = 4096
HDF5 = b"\x89HDF\r\n\x1a\n"
TFLITE = b"TFL3"
SAVED_MODEL = "saved_model.pb"
TENSORFLOW_JS = "model.json"
EXPORTED_PROGRAM = ("archive_format", "serialized_exported_program.json")  # members, of today and of older versions
_SAVED_MODEL_START = b"\x08\x01\x12"  # schema version 1, then a graph
KERAS_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
_TENSORFLOW_JS_WORDS = (b'"modelTopology"', b'"weightsManifest"', b'"graph-model"', b'"layers-model"')
_ZIP = b"PK\x03\x04"
_ZIP_NAME = 30  # where the name of the first member begins
_ZIP_DIRECTORY_BYTES = 2 * 2**20  # an archive's names stand at its end; 10,000 members take less
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PYTORCH_MEMBERS = (b"/data.pkl", *(name.encode() for name in EXPORTED_PROGRAM))


def is_saved_model(path: Path) -> bool:
    """Say whether `path` is a SavedModel: its directory, or the file in it."""
    file = path / SAVED_MODEL if path.is_dir() else path
    is_named = file.name == SAVED_MODEL and file.is_file()
    return is_named and read_start(file, len(_SAVED_MODEL_START)) == _SAVED_MODEL_START


def is_tflite(path: Path) -> bool:
    """Say whether the file begins as TFLite's do."""
    return path.is_file() and read_start(path, 8)[4:] == TFLITE


def is_hdf5(path: Path) -> bool:
    """Say whether `path` is an HDF5 file (one that begins with a user block is none to us)."""
    return path.is_file() and read_start(path, len(HDF5)) == HDF5


def is_keras_archive(path: Path) -> bool:
    """Say whether `path` is a Keras archive; Keras' HDF5 files are told from others in `hdf5_kinds`."""
    start = read_start(path, 64) if path.is_file() else b""
    return start.startswith(_ZIP) and start[_ZIP_NAME:].startswith(tuple(name.encode() for name in KERAS_MEMBERS))


def is_pytorch(path: Path) -> bool:
    """Say whether the file is a zip archive as torch.save, torch.jit.save or torch.export.save write, or a pickle."""
    size = regular_file_size(path)
    with open_regular(path) as file:
        start = file.read(START_BYTES)
        if start.startswith(_PICKLES) or not start.startswith(_ZIP):
            return start.startswith(_PICKLES)
        file.seek(max(0, size - _ZIP_DIRECTORY_BYTES))
        content = start + file.read()
        return any(name in content for name in _PYTORCH_MEMBERS)


def is_torch_weights(path: Path) -> bool:
    """Say whether `path` is a safetensors or PyTorch file, or a directory whose config.json is timm's."""
    if path.is_dir():
        try:
            return read_timm_values(path) is not None
        except MinimobileError:
            return False
    return safetensors_file.recognise(path) or is_pytorch(path)


def read_timm_values(directory: Path) -> Mapping[str, Any] | None:
    """Return the content of timm's config.json; None where there is none, or it is not timm's."""
    file = directory / CONFIG
    values: Mapping[str, Any] = read_json_object(file) if file.is_file() else {}
    return values if "architecture" in values and "model_type" not in values else None


def is_huggingface(path: Path) -> bool:
    """Say whether `path` is a directory in Hugging Face's layout; single files are for `is_torch_weights`."""
    return path.is_dir() and any((path / name).exists() for name in (CONFIG, *WEIGHTS))


def is_onnx(path: Path) -> bool:
    """Say whether the file begins as ONNX's do: a version, then texts about its producer, operators or a graph."""
    from minimobile.formats.onnx.schema import ModelField

    if path.is_dir():
        return False
    start = memoryview(read_start(path, START_BYTES))
    texts = (ModelField.PRODUCER_NAME, ModelField.PRODUCER_VERSION, ModelField.DOMAIN, ModelField.DOC_STRING)
    position, seen = 0, 0
    try:
        while position < len(start) and seen < len(ModelField):
            key, position = read_varint(start, position, "")
            number, wire_type = key >> 3, key & 7
            if seen == 0 and key != ModelField.IR_VERSION << 3:
                return False
            value, position = read_varint(start, position, "")
            if seen == 0 and not 1 <= value <= 99:
                return False
            is_text = wire_type == LENGTH_DELIMITED and number in texts
            if wire_type == LENGTH_DELIMITED and number in (ModelField.GRAPH, ModelField.OPSET_IMPORT):
                return True
            if not is_text and (wire_type != VARINT or number not in (ModelField.IR_VERSION, ModelField.MODEL_VERSION)):
                return False
            position += value if is_text else 0
            seen += 1
    except FormatError:
        pass
    return False


def is_tensorflow_graph(path: Path) -> bool:
    """Say whether the file begins with a node of a graph: its name, then its operation."""
    from minimobile.formats.tensorflow.graph_def import NODE_NAME, OPERATION_NAME

    if path.is_dir():
        return False
    start = memoryview(read_start(path, START_BYTES))
    if not start or start[0] != 0x0A:
        return False
    try:
        _, position = read_varint(start, 1, "")
        for tag, pattern in ((0x0A, NODE_NAME), (0x12, OPERATION_NAME)):
            if position >= len(start) or start[position] != tag:
                return False
            size, position = read_varint(start, position + 1, "")
            if not pattern.fullmatch(str(start[position : position + size], "latin-1")):
                return False
            position += size
    except FormatError:
        return False
    return True


def is_tensorflow_js(path: Path) -> bool:
    """Say whether `path` is a directory with a `model.json`, or such a file, by what it begins with."""
    file = path / TENSORFLOW_JS if path.is_dir() else path
    start = read_start(file, START_BYTES) if file.is_file() else b""
    return start.lstrip()[:1] == b"{" and any(word in start for word in _TENSORFLOW_JS_WORDS)
