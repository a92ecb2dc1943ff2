"""Opening pictures: a path, bytes or a PIL image in, an upright RGB PIL image out. Nobody else calls `Image.open`.

Pillow decodes in C; what is refused is refused before that: unknown formats, special files, too many pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from minimobile.errors import FormatError, InputError
from minimobile.storage.files import open_regular
from minimobile_kernels.forks import make_lock

ImageSource: TypeAlias = str | Path | bytes | bytearray | Image.Image

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""By these a folder's files are taken for pictures; what they are is told by their content."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 89_478_485
"""The default limit of pixels per picture: the number from which Pillow itself warns of a decompression bomb."""

_ORIENTATION = 0x0112  # the EXIF tag; its values 2..8 say what brings the picture upright
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # those that change width for height
_ORIENTATION_HOLDERS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1")
_FILTER_LOCK = make_lock()  # warning filters belong to the whole process


def open_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> Image.Image:
    """Open a picture as an upright RGB image of 8 bits per channel.

    The EXIF orientation is applied. Palette (with or without transparency), grey, LA, RGBA, CMYK and 1-bit pictures
    become RGB as PIL's `convert("RGB")` has it, so alpha is dropped, not composited. 16-bit grey (I;16, and I, whose
    values must lie in 0..65535) is scaled to 8 bits, `round(value * 255 / 65535)`, not clipped. An animation gives its
    first frame, a multi-picture JPEG (MPO) its first picture.

    Args:
        source: a path, the bytes of a file (JPEG, PNG, WEBP, BMP, GIF or TIFF), or a PIL image, which is never changed.
        max_pixels: refuse larger pictures before they are decoded.
        draft: let a JPEG be decoded at a half, a quarter or an eighth of its size, no side smaller than this: faster,
            and other pixels than those of the whole picture, whose size `find_whole_size` tells.

    Raises:
        FormatError: naming the file, for whatever cannot be read as a picture.
        InputError: `source` is none of the above.
    """
    return convert_image(open_upright(source, max_pixels=max_pixels, draft=draft), name=describe_source(source))


def open_upright(source: ImageSource, *, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> Image.Image:
    """Open a picture with its EXIF orientation applied, in the mode it has: palette indices stay indices.

    Arguments and errors as in `open_image`.
    """
    name = describe_source(source)
    if isinstance(source, Image.Image):
        return _bring_upright(_decode(source, name, max_pixels), name)
    if isinstance(source, (bytes, bytearray)):
        return _open_stream(io.BytesIO(source), name, max_pixels, draft)
    if not isinstance(source, (str, Path)):
        raise InputError(f"open_image: expected a path, bytes or a PIL image, got {type(source).__name__}")
    if isinstance(source, str) and source.lower().startswith(("http://", "https://", "data:")):
        raise FormatError(f"{name}: pictures are read from files only; download it first and pass its path")
    with open_regular(Path(source)) as stream:
        return _open_stream(stream, name, max_pixels, draft)


def find_whole_size(content: bytes) -> tuple[int, int]:
    """Return (height, width) of a picture, upright and not drafted, from the bytes of a file that was opened before."""
    with _FILTER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was warned of when it was opened
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        try:
            is_turned = image.getexif().get(_ORIENTATION) in _SIDEWAYS
        except Exception:  # as in `_bring_upright`
            is_turned = False
    return (image.width, image.height) if is_turned else (image.height, image.width)


def bring_upright(image: Any) -> Any:
    """Return a PIL image with its EXIF orientation applied, as photo viewers show it; anything else as it is.

    Processors take image objects as they are stored, as transformers' do; who shows a result to people calls this.
    """
    return open_upright(image) if isinstance(image, Image.Image) else image


def check_image(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a PIL image decoded, within the limit of pixels, and turned nowhere. Errors as in `open_image`."""
    return _decode(image, describe_source(image), max_pixels)


def describe_source(source: object) -> str:
    """Name a picture for error messages."""
    if isinstance(source, (str, Path)):
        return _shorten(str(source), 200)
    if isinstance(source, (bytes, bytearray)):
        return f"image of {len(source)} bytes"
    return str(getattr(source, "filename", "") or "image")


def convert_image(
    image: Image.Image, mode: str = "RGB", *, composite: bool = False, name: str = "image"
) -> Image.Image:
    """Convert a PIL image to 8-bit "RGB", "L" or "RGBA"; the rules are those of `open_image`.

    Args:
        image: any PIL image; returned as it is where its mode is the one asked for.
        mode: the mode asked for.
        composite: lay transparent pictures on white instead of dropping their alpha.
        name: what to call the picture in errors.

    Raises:
        FormatError: the picture's mode has no defined way to `mode` (F, LAB, I beyond 16 bits).
    """
    if image.mode == "F":
        raise FormatError(f"{name}: floating-point pictures have no defined range; pass an array (H, W, 3) instead")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _scale_16_bit(image, name)
    try:
        if composite and ("A" in image.getbands() or image.info.get("transparency") is not None):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
        if image.mode == mode:
            return image
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # straight to RGB gives the same colours, and a warning
        return image.convert(mode)
    except (ValueError, OSError) as error:
        raise FormatError(
            f"{name}: a picture of mode {image.mode} cannot be converted to {mode}; convert it to RGB first"
        ) from error


def _scale_16_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)  # (H, W)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise FormatError(f"{name}: expected grey values in 0..65535, got {low}..{high}; scale them first")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 257 = 65535 / 255


def _open_stream(stream: BinaryIO, name: str, max_pixels: int, draft: int | None) -> Image.Image:
    if not stream.read(1):
        raise FormatError(f"{name}: expected a picture, got an empty file")
    stream.seek(0)
    # Pillow's warning is an error, unless the caller chose a limit beyond it: then that limit decides.
    strict = Image.MAX_IMAGE_PIXELS is None or max_pixels <= Image.MAX_IMAGE_PIXELS
    try:
        with _naming_warnings(name):
            warnings.simplefilter("error" if strict else "ignore", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise FormatError(f"{name}: expected a picture ({', '.join(FORMATS)}), got something else") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise FormatError(f"{name}: more pixels than Pillow's limit against decompression bombs allows") from error
    except Exception as error:  # broken headers surface as struct.error, SyntaxError, zlib.error, KeyError, ...
        raise FormatError(f"{name}: the picture's header is broken ({_reason(error)})") from error
    if draft is not None:
        image.draft("RGB", (draft, draft))
    decoded = _decode(image, name, max_pixels)
    if decoded.format != "TIFF" and decoded.info.keys().isdisjoint(_ORIENTATION_HOLDERS):
        return decoded  # upright: nothing in the file speaks of it
    return _bring_upright(decoded, name)


@contextmanager
def _naming_warnings(name: str) -> Iterator[None]:
    """Have what Pillow warns of begin with the picture's name; an error says more than the warnings before it."""
    with _FILTER_LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        warnings.warn(f"{name}: {warning.message}", warning.category, stacklevel=3)


def _decode(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Check the size and decode the pixels."""
    width, height = image.size
    if width < 1 or height < 1:
        raise FormatError(f"{name}: expected a picture of at least 1x1 pixels, got {width}x{height}")
    if width * height > max_pixels:
        raise FormatError(
            f"{name}: {width}x{height} is more than the limit of {max_pixels} pixels; shrink it, or raise max_pixels"
        )
    try:
        if image.format == "TIFF":  # whose tags are read only now; nothing else warns, and decodes beside other threads
            with _naming_warnings(name):
                image.load()
        image.load()
    except Exception as error:  # decoders raise whatever they like on broken data
        raise FormatError(f"{name}: the picture is truncated or damaged ({_reason(error)})") from error
    return image


def _bring_upright(image: Image.Image, name: str) -> Image.Image:
    try:
        with _naming_warnings(name):
            orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # an EXIF block that cannot be parsed holds no orientation; viewers show the pixels as they are
        return image
    if orientation not in _UPRIGHT:
        return image
    upright = image.transpose(_UPRIGHT[orientation])
    for key in _ORIENTATION_HOLDERS:  # else the next reader would turn it again
        upright.info.pop(key, None)
    return upright


def _reason(error: BaseException) -> str:
    return _shorten(str(error) or type(error).__name__, 120)


def _shorten(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "..."
