from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import decoded, encoded, picture
from PIL import Image

from frossl.data.decode import UnreadableError, probe

RED, WHITE = [255, 0, 0], [255, 255, 255]


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def test_lossless_colour_is_exact():
    image = picture(1)
    assert torch.equal(decoded(encoded(image), 3), as_tensor(image))


def test_path_and_bytes_agree(tmp_path):
    file = tmp_path / "a.jpg"
    picture(1).save(file)
    assert torch.equal(decoded(str(file), 3), decoded(file.read_bytes(), 3))


def test_one_pixel_survives():
    one = Image.new("RGB", (1, 1), (1, 2, 3))
    assert probe(encoded(one))[0].size == (1, 1)
    assert decoded(encoded(one), 3).flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_grey_keeps_full_range(channels):
    values = np.array([[0, 257, 65535, 32768, 128]], dtype=np.uint16)
    data = encoded(Image.fromarray(values))
    assert probe(data)[0].samples == 1
    assert decoded(data, channels, range=(0, 65535))[:, 0].tolist() == [[0, 1, 255, 128, 0]] * channels


@pytest.mark.parametrize(("top", "expected"), [(1.0, [0, 128, 255]), (255.0, [0, 128, 255])])
def test_float_tiff(top, expected):
    values = np.array([[0, 0.5, 1]], dtype=np.float32) * top
    data = encoded(Image.fromarray(values), "TIFF")
    assert probe(data)[0].samples == 1
    assert decoded(data, 1, range=(0, top))[0, 0].tolist() == expected


def test_cmyk_jpeg():
    data = encoded(Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK"), "JPEG", quality=100)
    assert probe(data)[0].samples == 3
    assert (decoded(data, 3)[:, 8, 8] - torch.tensor(RED)).abs().max() < 8


def test_palette_with_transparency_lies_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    data = encoded(image, transparency=1)
    assert decoded(data, 3)[:, 0].T.tolist() == [RED, WHITE]


def png(depth: int, colour: int, transparent: tuple[int, ...], row: list[int]) -> bytes:
    """A PNG of one row, as its specification has it: samples of ``depth`` bits and one colour that is transparent."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    bits = "".join(f"{value:0{depth}b}" for value in row)
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big")
    width = len(row) // (3 if colour else 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)),
            chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
            chunk(b"IDAT", zlib.compress(b"\0" + pixels)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize(
    ("depth", "row", "expected"),
    [
        (1, [1, 0, 0, 0, 1, 0, 0, 0], [255, 0, 0, 0, 255, 0, 0, 0]),
        (2, [1, 0, 2, 3], [255, 0, 170, 255]),
        (4, [1, 0, 2, 15], [255, 0, 34, 255]),
        (8, [1, 0, 2, 15], [255, 0, 2, 15]),
        (16, [1, 0, 2, 65535], [255, 0, 0, 255]),
    ],
)
def test_a_transparent_grey_lies_on_white_at_any_depth(depth, row, expected):
    range_ = (0, 65535) if depth == 16 else ()
    assert decoded(png(depth, 0, (1,), row), 1, range=range_).flatten().tolist() == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_lies_on_white_at_any_depth(depth):
    one, other = [0, 80, 160], [0, 80, 161]
    row = [value if depth == 8 else 257 * value for value in one + other]
    range_ = (0, 65535) if depth == 16 else ()
    assert decoded(png(depth, 2, tuple(row[:3]), row), 3, range=range_)[:, 0].T.tolist() == [WHITE, other]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_16_bit_tiff_whose_white_is_zero(compression):
    values = np.array([[0, 257, 65535]], dtype=np.uint16)
    data = bytearray(encoded(Image.fromarray(values), "TIFF", compression=compression))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = b"\0\0"
    assert decoded(bytes(data), 1, range=(0, 65535)).flatten().tolist() == [255, 254, 0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_damaged_metadata_harm_no_pixel(kind):
    data = encoded(picture(), kind, exif=b"Exif\0\0no metadata at all")
    assert probe(data)[0].size == (12, 16)
    assert torch.equal(decoded(data, 3), as_tensor(Image.open(BytesIO(data))))


@pytest.mark.parametrize(("mode", "clear"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))])
def test_alpha_lies_on_white(mode, clear):
    data = encoded(Image.new(mode, (1, 1), clear))
    assert probe(data)[0].samples == (1 if mode == "LA" else 3)
    assert decoded(data, 3).flatten().tolist() == WHITE
    assert decoded(data, 1).flatten().tolist() == [255]


def test_one_bit():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert probe(encoded(image))[0].samples == 1
    assert decoded(encoded(image), 1)[0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation(orientation, mode, kind, tmp_path):
    """The corner marked in the upright image comes back to its place, whatever way it was stored."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    as_stored = {"RGB": np.stack([pixels] * 3, 2), "L": pixels, "I;16": pixels.astype(np.uint16) * 257}
    data = encoded(Image.fromarray(as_stored[mode]), kind, exif=exif)
    marked = Image.fromarray(pixels)
    marked.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(marked))
    (tmp_path / "image").write_bytes(data)
    for one in (data, str(tmp_path / "image")):
        range_ = (0, 65535) if mode == "I;16" else ()
        assert decoded(one, 1, range=range_)[0].tolist() == expected.tolist()
        assert probe(one)[0].size == expected.shape


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decoded(data, 3)[:, 0, 0].tolist() == RED


def test_truncated_jpeg_is_found_by_probe():
    data = encoded(picture(size=(64, 64)), "JPEG")
    for broken in (data[: len(data) // 2], data[:20], b""):
        with pytest.raises(UnreadableError):
            probe(broken)
        with pytest.raises(UnreadableError):
            decoded(broken, 3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "PPM"]), st.data())
def test_damage_is_either_readable_or_named(kind, data):
    """Whatever bytes come, probe and decode agree on readability and size, and raise nothing else."""
    content = bytearray(encoded(picture(), kind))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        size = probe(bytes(content))[0].size
    except UnreadableError:
        with pytest.raises(UnreadableError):
            decoded(bytes(content), 3)
    else:
        assert decoded(bytes(content), 3).shape == (3, *size)
