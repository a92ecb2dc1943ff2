"""What a file is that is not what was expected, in a few words for an error message."""

from __future__ import annotations

START_BYTES = 512

SAVED_MODEL = "a SavedModel's graph; give its folder, with saved_model.pb and variables/ in it"
_ONNX_VERSIONS = bytes(range(3, 32))  # onnx.proto's ModelProto begins with its version; 3 is the first in use

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"RIFF", "a RIFF file (a WebP picture or a sound)"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x80", "a Python pickle"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself; run 'git lfs pull' where it was cloned"),
    (b"<!doctype html", "an HTML page, not the file itself; download it again"),
    (b"<html", "an HTML page, not the file itself; download it again"),
    (b"<?xml", "an XML document"),
)


def describe_content(start: bytes) -> str:
    """Say in a few words what a file is that begins with the bytes `start`.

    >>> describe_content(b"\\x89PNG\\r\\n\\x1a\\n....")
    'a PNG picture'
    """
    if not start:
        return "an empty file"
    if not any(start):
        return "nothing but zeros; copy or download it again"
    lowered = start.lstrip().lower()
    for signature, name in _SIGNATURES:
        if start.startswith(signature) or lowered.startswith(signature):
            return name
    if start.startswith(b"\x08\x01\x12"):  # saved_model.proto: schema version 1, then a graph
        return SAVED_MODEL
    if start[:1] == b"\x08" and start[1:2] in _ONNX_VERSIONS and start[2:3] in (b"\x12", b"\x3a", b"\x42"):
        return "an ONNX model"
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "a BMP picture"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return "a safetensors file"
    if lowered[:1] in (b"{", b"["):
        return "a JSON text"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return "a text"
    return f"an unknown kind of file (it begins with the bytes {start[:8].hex(' ')})"
