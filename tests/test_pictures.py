"""Opening pictures: every mode and size made RGB, every damaged or hostile file (H33) one clear sentence."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minimobile.errors import FormatError, InputError
from minimobile.imaging.pictures import FORMATS, MAX_PIXELS, convert_image, open_image, open_upright

ORIENTATION = 0x0112
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def draw(seed: int = 0, height: int = 5, width: int = 7) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make_png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    )


def test_opens_a_path_a_string_bytes_and_a_pil_image_alike(tmp_path: Path) -> None:
    image = draw()
    path = tmp_path / "photo.png"
    image.save(path)
    for source in (path, str(path), path.read_bytes(), image):
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), np.asarray(image))


@pytest.mark.parametrize("file_format", FORMATS)
def test_opens_every_format_of_the_list(file_format: str) -> None:
    image = Image.new("RGB", (20, 10), RED)
    pixels = np.asarray(open_image(encode(image, file_format)))
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 4


@pytest.mark.parametrize("file_format", ["EPS", "TGA", "ICO", "PPM", "PCX", "PDF", "JPEG2000"])
def test_refuses_other_formats_whatever_the_name(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(Image.new("RGB", (16, 16)), file_format))
    with pytest.raises(FormatError, match=r"photo\.jpg: expected a picture \(JPEG, PNG, WEBP, BMP, GIF, TIFF\)"):
        open_image(path)


def test_refuses_psd_and_fits_by_their_signatures(tmp_path: Path) -> None:
    for content in (b"8BPS\0\1" + bytes(40), b"SIMPLE  =" + bytes(2900)):
        path = tmp_path / "photo.jpg"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"photo\.jpg: expected a picture"):
            open_image(path)


# Corners of the upright picture, clockwise from the top left, as they lie in the file for orientation 1..8.
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40  # 2 rows, 3 columns
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],  # row 0 of the file is the right side of the scene: turned back clockwise
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encode(image, "PNG", exif=exif)
    once = open_image(content)
    assert np.array_equal(np.asarray(once)[..., 0], upright)
    assert np.array_equal(np.asarray(open_image(once))[..., 0], upright)
    lazy = Image.open(io.BytesIO(content), formats=["PNG"])
    assert np.array_equal(np.asarray(open_image(lazy))[..., 0], upright)
    assert np.array_equal(np.asarray(lazy)[..., 0], stored)  # the caller's image is as it was


def test_broken_exif_does_not_hide_the_picture() -> None:
    image = draw()
    opened = open_image(encode(image, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(3)))
    assert np.array_equal(np.asarray(opened), np.asarray(image))


def test_palette_and_grey_and_one_bit_become_rgb() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    for transparency in ({}, {"transparency": 1}, {"transparency": b"\x00\x80"}):
        opened = open_image(encode(palette, "PNG", **transparency))
        assert [opened.getpixel((x, 0)) for x in (0, 1)] == [RED, GREEN]  # alpha is dropped
    assert open_image(Image.new("L", (1, 1), 7)).getpixel((0, 0)) == (7, 7, 7)
    assert open_image(Image.new("1", (1, 1), 1)).getpixel((0, 0)) == WHITE


def test_alpha_is_dropped_or_composited_on_request() -> None:
    for image in (Image.new("RGBA", (1, 1), (255, 0, 0, 0)), Image.new("LA", (1, 1), (9, 0))):
        assert open_image(image).getpixel((0, 0)) in (RED, (9, 9, 9))
        assert convert_image(image, composite=True).getpixel((0, 0)) == WHITE


def test_cmyk_becomes_rgb() -> None:
    assert open_image(Image.new("CMYK", (1, 1), (0, 255, 255, 0))).getpixel((0, 0)) == RED


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    # round(v * 255 / 65535) of 0, 128, 129, 32768, 65535
    values = np.array([[0, 128, 129, 32768, 65535]], np.uint16)
    expected = [0, 0, 1, 128, 255]
    png = make_png(5, 1, 16, 0, b"\0" + values.astype(">u2").tobytes())
    for source in (
        png,
        Image.fromarray(values),
        Image.fromarray(values.astype(np.int32)),
        encode(Image.fromarray(values), "TIFF"),
    ):
        assert np.asarray(open_image(source))[0, :, 1].tolist() == expected


def test_refuses_modes_without_a_range() -> None:
    with pytest.raises(FormatError, match="floating-point pictures have no defined range"):
        open_image(Image.new("F", (2, 2)))
    with pytest.raises(FormatError, match=r"expected grey values in 0\.\.65535, got 0\.\.70000"):
        open_image(Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(FormatError, match="a picture of mode La cannot be converted to RGB; convert it to RGB first"):
        open_image(Image.new("La", (2, 2)))


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB", "PA", "RGBa", "RGBX"])
def test_rarer_modes_become_rgb(mode: str) -> None:
    assert open_image(Image.new(mode, (2, 2))).mode == "RGB"


def test_palette_indices_stay_when_only_uprighted() -> None:
    palette = Image.new("P", (3, 1), 2)
    palette.putpalette(list(range(30)))
    opened = open_upright(encode(palette, "PNG"))
    assert opened.mode == "P"
    assert np.asarray(opened).tolist() == [[2, 2, 2]]


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    for file_format in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        content = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert open_image(content).getpixel((3, 3)) == RED, file_format
    mpo = open_image(encode(frames[0], "MPO", save_all=True, append_images=frames[1:])).getpixel((3, 3))
    assert np.abs(np.subtract(mpo, RED)).max() <= 4


@pytest.mark.parametrize("size", [(1, 1), (10000, 1), (1, 10000)])
def test_opens_one_pixel_and_long_strips(size: tuple[int, int]) -> None:
    assert open_image(encode(Image.new("RGB", size, BLUE), "PNG")).size == size


def test_truncated_jpeg_at_every_tenth(tmp_path: Path) -> None:
    content = encode(draw(height=120, width=160), "JPEG")
    path = tmp_path / "cut.jpg"
    for tenth in range(10):
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(FormatError, match=r"cut\.jpg: "):
            open_image(path)


@pytest.mark.parametrize("file_format", FORMATS)
@given(data=st.data())
def test_damaged_bytes_give_a_picture_or_a_format_error(file_format: str, data: st.DataObject) -> None:
    content = bytearray(encode(draw(height=9, width=11), file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with warnings.catch_warnings():  # Pillow warns of odd metadata; as an error it would change Pillow's course
        warnings.simplefilter("ignore")
        try:
            assert open_image(bytes(content), max_pixels=1 << 20).mode == "RGB"
        except FormatError as error:
            assert "image of" in str(error)


def test_12000x12000_of_one_bit_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(make_png(12000, 12000, 1, 0, bytes(1501 * 12000)))
    assert path.stat().st_size < 20_000
    with pytest.raises(FormatError, match=r"bomb\.png: more pixels than Pillow's limit"):
        open_image(path)
    with pytest.raises(FormatError, match=r"bomb\.png: 12000x12000 is more than the limit of 143999999 pixels"):
        open_image(path, max_pixels=12000 * 12000 - 1)


def test_pixel_limit_at_limit_and_beyond() -> None:
    content = encode(Image.new("L", (10, 10)), "PNG")
    assert open_image(content, max_pixels=100).size == (10, 10)
    for source in (content, Image.new("L", (10, 10))):
        with pytest.raises(
            FormatError, match="10x10 is more than the limit of 99 pixels; shrink it, or raise max_pixels"
        ):
            open_image(source, max_pixels=99)
    assert MAX_PIXELS == 89_478_485


def test_a_frame_that_outgrows_its_gif_is_refused() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\x00;"
    with pytest.raises(FormatError, match="image of 35 bytes: more pixels than Pillow's limit"):
        open_image(screen + frame)


def test_text_chunk_bomb_is_refused() -> None:
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(64 << 20), 9))
    with pytest.raises(FormatError, match="header is broken"):
        open_image(make_png(1, 1, 8, 0, b"\0\0", bomb))


def test_empty_text_and_sizeless_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"a\.png: expected a picture, got an empty file"):
        open_image(path)
    path.write_text("just words\n" * 100)
    with pytest.raises(FormatError, match=r"a\.png: expected a picture \("):
        open_image(path)
    path.write_bytes(make_png(0, 5, 8, 0, b""))
    with pytest.raises(FormatError, match=r"a\.png: "):
        open_image(path)
    with pytest.raises(FormatError, match="at least 1x1 pixels, got 0x4"):
        open_image(Image.new("RGB", (0, 4)))


def test_missing_directory_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"none\.png"):
        open_image(tmp_path / "none.png")
    with pytest.raises(FormatError, match="directory"):
        open_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(FormatError, match=r"pipe\.jpg: .*regular file"):
        open_image(tmp_path / "pipe.jpg")
    with pytest.raises(FormatError):
        open_image("a\0b.png")
    with pytest.raises(FormatError):
        open_image("x" * 5000)


@pytest.mark.parametrize("source", ["http://localhost/a.png", "HTTPS://localhost/a.png", "data:image/png;base64,AAAA"])
def test_never_goes_to_the_network(source: str) -> None:
    with pytest.raises(FormatError, match="download it first"):
        open_image(source)


def test_refuses_other_sources() -> None:
    with pytest.raises(InputError, match="expected a path, bytes or a PIL image, got int"):
        open_image(3)  # type: ignore[arg-type]


def test_many_threads_open_at_once() -> None:
    contents = [encode(draw(seed), "PNG") for seed in range(8)]
    results: list[bool] = []

    def work(seed: int) -> None:
        results.extend(np.array_equal(open_image(contents[seed]), draw(seed)) for _ in range(20))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 160
    assert all(results)


def test_only_this_module_opens_pictures() -> None:
    package = Path(__file__).parents[1] / "minimobile"
    calls = [path.name for path in package.rglob("*.py") if "Image.open(" in path.read_text(encoding="utf-8")]
    assert calls == ["pictures.py"]


@pytest.mark.crosscheck
def test_real_pictures_open_as_transformers_opens_them(test_data: Path) -> None:
    image_utils = pytest.importorskip("transformers.image_utils")
    paths = sorted(path for path in (test_data / "images").iterdir() if path.is_file())
    assert paths
    for path in paths:
        assert np.array_equal(np.asarray(open_image(path)), np.asarray(image_utils.load_image(str(path)))), path


def write_exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return an EXIF block: entries of tag, type, count, and four bytes of value or offset."""
    written = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + written + bytes(4)


BEYOND_THE_FILE = (0x010F, 2, 100, struct.pack("<I", 5000))  # the maker's name, in a hundred bytes that are not there


def test_what_pillow_warns_of_names_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo"
    content = encode(draw(), "TIFF", dpi=(72, 72))
    for damaged in (
        content.replace(struct.pack("<HHI", 296, 3, 1), struct.pack("<HHI", 296, 3, 2)),  # two units of resolution
        encode(draw(), "JPEG", exif=write_exif(BEYOND_THE_FILE)),
    ):
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert open_image(path).size == (7, 5)
        assert caught
        assert all(str(warning.message).startswith(f"{path}: ") for warning in caught)


def test_a_warning_does_not_cost_the_orientation() -> None:
    """As it did where warnings are errors: the error ended the search for the orientation."""
    turned = (ORIENTATION, 3, 1, struct.pack("<HH", 6, 0))
    content = encode(draw(), "JPEG", exif=write_exif(turned, BEYOND_THE_FILE))
    with pytest.warns(UserWarning, match="^image of .* bytes: "):
        assert open_image(content).size == (5, 7)
