"""Images as people have them: of more than 8 bits, of many channels, of many pages, transparent or not."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from imagecodecs import jpeg2k_encode, png_encode
from pictures import encoded
from PIL import Image

from frossl.core.types import UserError
from frossl.data import open_data

COUNT, SIDE = 20, 24


def grey(i: int) -> np.ndarray:
    """float (H, W) from 0 to 1: a disc or stripes, with noise."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[:SIDE, :SIDE]
    shape = np.hypot(y - SIDE / 2, x - SIDE / 2) < 8 if i % 2 else (x // 4) % 2
    return (0.2 + 0.6 * shape + rng.normal(0, 0.05, (SIDE, SIDE))).clip(0, 1)


@pytest.fixture
def write(tmp_path):
    """Writes image ``i`` as ``make(i)``: bytes, or an array for tifffile with ``options``."""

    def write(make, suffix=".tif", count=COUNT, **options):
        for i in range(count):
            path = tmp_path / "set" / f"{i:03}{suffix}"
            path.parent.mkdir(exist_ok=True)
            content = make(i)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                tifffile.imwrite(path, content, **options)
        return str(path.parent)

    return write


def all_images(data) -> np.ndarray:
    return torch.cat([data.train.images, data.test.images]).numpy()


def as_bytes(values, low, high) -> np.ndarray:
    return np.rint((values.astype(float) - low) / (high - low) * 255).clip(0, 255)


def assert_scaled(data, values_NHW, low, high):
    """Every image is on the one range, in memory, lazily and from a cache."""
    assert data.range == pytest.approx((low, high), abs=1e-3 * (high - low))
    assert_same(all_images(data)[:, 0], as_bytes(values_NHW, *data.range))


def assert_same(found_N, wanted_N):
    """Each image is one of those wanted, within the last bit; which are held out is of no interest here."""
    for image in found_N.astype(float):
        assert min(np.abs(image - wanted).max() for wanted in wanted_N.astype(float)) <= 1


def test_ct_of_16_bits_keeps_its_levels(write, tmp_path):
    values = [(grey(i) * 1400 - 1000).round() + 32768 for i in range(COUNT)]
    source = write(lambda i: encoded(Image.fromarray(values[i].astype(np.uint16))), ".png")
    data = open_data(source)
    assert_scaled(data, np.stack(values), np.min(values), np.max(values))
    assert (data.values, data.channels) == ("uint16", 1)
    assert data.levels > 150
    lazy, stored = open_data(source, memory_limit=0), open_data(source, memory_limit=0, cache=SIDE, data_dir=tmp_path)
    for other in (lazy, stored):
        assert not other.train.in_memory
        assert torch.equal(torch.stack([other.train.images[i] for i in range(len(other.train))]), data.train.images)
        assert (other.range, other.mean, other.levels) == (data.range, data.mean, data.levels)
    given = open_data(source, range=(31768, 33168))
    assert_scaled(given, np.stack(values), 31768, 33168)
    with pytest.raises(UserError, match=r"levels.*--range LOW HIGH"):
        open_data(source, range=(0, 65535))


@pytest.mark.parametrize(
    ("dtype", "scale", "shift", "options"),
    [
        (np.uint16, 4095, 0, {}),  # an X-ray of 12 bits
        (np.int16, 1400, -1000, {}),  # Hounsfield units
        (np.int16, 1400, -1000, {"byteorder": ">", "compression": "lzw"}),
        (np.int8, 250, -125, {}),
        (np.float32, 0.4, -0.2, {"compression": "deflate", "predictor": True}),  # an index of vegetation
        (np.float64, 3e4, 1e5, {"bigtiff": True}),
        (np.uint32, 4e9, 0, {}),
    ],
)
def test_tiff_of_any_type_is_on_one_range(write, dtype, scale, shift, options):
    values = np.stack([(grey(i) * scale + shift).astype(dtype) for i in range(COUNT)])
    data = open_data(write(lambda i: values[i], photometric="minisblack", **options))
    assert data.values == np.dtype(dtype).name
    assert_scaled(data, values, float(values.min()), float(values.max()))
    assert data.levels > 150


def test_glints_and_what_is_no_number_decide_nothing(write):
    values = np.stack([grey(i) * 3000 for i in range(COUNT)]).astype(np.float32)
    broken = values.copy()
    broken[3, 0, :3] = np.nan, np.inf, -np.inf
    broken[5, 2, 2] = 1e9
    broken[7] = np.where(grey(7) < 0.3, -9999, values[7])
    nodata = [(42113, "s", 0, "-9999", True)]
    data = open_data(write(lambda i: broken[i], photometric="minisblack", extratags=nodata))
    assert data.range == pytest.approx((values.min(), values.max()), abs=3)
    wanted = np.nan_to_num(np.where(broken == -9999, 0, as_bytes(broken, *data.range)), nan=0)
    assert_same(all_images(data)[:, 0], wanted)
    assert any("not finite" in note for note in data.notes)


def test_images_of_8_bits_stay_as_they_are_beside_others(write):
    source = write(lambda i: encoded(Image.fromarray((grey(i) * 255).astype(np.uint8))), ".png", count=10)
    plain = all_images(open_data(source))
    write(lambda i: (grey(i) * 4095).astype(np.uint16))
    data = open_data(source)
    assert data.values == "uint16 and uint8"
    assert {x.tobytes() for x in plain} < {x.tobytes() for x in all_images(data)}
    assert any("10 images of 8 bits" in note for note in data.notes)


@pytest.mark.parametrize("kind", ["png", "jp2", "tif", "planes"])
def test_colour_of_12_bits_keeps_its_levels(write, kind):
    values = np.stack([np.stack([grey(i) * top for top in (4095, 3000, 2500)], -1) for i in range(COUNT)])
    values = values.astype(np.uint16)
    if kind in ("png", "jp2"):
        code = png_encode if kind == "png" else lambda x: jpeg2k_encode(x, reversible=True)
        data = open_data(write(lambda i: bytes(code(values[i])), f".{'png' if kind == 'png' else 'tif'}"))
    else:
        planes = kind == "planes"
        how = {"photometric": "rgb", "planarconfig": "separate" if planes else "contig", "compression": "lzw"}
        data = open_data(write(lambda i: np.moveaxis(values[i], -1, 0) if planes else values[i], **how))
    assert (data.channels, data.range) == (3, pytest.approx((values.min(), values.max())))
    assert_same(all_images(data), np.moveaxis(as_bytes(values, *data.range), -1, 1))


def with_infrared(i: int) -> np.ndarray:
    """Vegetation around a lake: in infrared bright and nearly black."""
    rng = np.random.default_rng(i)
    four = np.full((SIDE, SIDE, 4), (60, 90, 50, 220), float)
    four[4 + i % 8 : 16, 3:20] = 25, 45, 70, 8
    return (four + rng.normal(0, 4, four.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["unassalpha", "unspecified", "png", "16 bits"])
def test_infrared_is_a_channel_whatever_the_file_calls_it(write, kind):
    if kind == "png":
        source = write(lambda i: encoded(Image.fromarray(with_infrared(i), "RGBA")), ".png")
    else:
        extra = "unassalpha" if kind == "16 bits" else kind
        factor = np.uint16(257) if kind == "16 bits" else np.uint8(1)
        source = write(lambda i: with_infrared(i) * factor, photometric="rgb", extrasamples=[extra])
    data = open_data(source, range=(0, 65535) if kind == "16 bits" else None)
    assert data.channels == 4
    assert_same(all_images(data), np.stack([np.moveaxis(with_infrared(i), -1, 0) for i in range(COUNT)]))
    assert any("not transparency" in note for note in data.notes)
    colours = open_data(source, channels=3)
    assert colours.channels == 3
    assert any("channels 4 to 4 are not used" in note for note in colours.notes)


def test_the_first_of_16_bit_channels_of_different_scale_are_read_each_on_its_own(write):
    scales = np.array([4000, 4000, 40, 0.5], np.float32)
    values = np.stack([np.stack([grey(4 * i + c) for c in range(4)], -1) for i in range(COUNT)]).astype(np.float32)
    source = write(lambda i: values[i] * scales, photometric="minisblack", planarconfig="contig")
    assert open_data(source).range[1::2] == pytest.approx(scales * values.max((0, 1, 2)), rel=0.01)
    three = open_data(source, channels=3)
    assert three.range[1::2] == pytest.approx((scales * values.max((0, 1, 2)))[:3], rel=0.01)
    assert three.train.images.amax((0, 2, 3)).tolist() == [255, 255, 255]
    given = open_data(source, channels=2, range=(0, 4000, 0, 8000))
    assert given.train.images.amax((0, 2, 3)).tolist() == pytest.approx([250, 128], abs=8)
    colour = write(lambda i: (values[i, ..., :3] * 4000).astype(np.uint16), photometric="rgb")
    assert open_data(colour, channels=1).channels == 1


@pytest.mark.parametrize("kind", ["binary", "soft", "half", "16 bits"])
def test_transparency_is_laid_over_white(write, kind):
    def picture(i):
        four = with_infrared(i)
        four[..., 3] = 255 * (grey(i) > 0.5) if kind != "half" else 128
        if kind == "soft":
            four[::6, :, 3] = np.arange(SIDE) * 10
        return bytes(png_encode(four.astype(np.uint16) * 257)) if kind == "16 bits" else encoded(Image.fromarray(four))

    data = open_data(write(picture, ".png"))
    assert data.channels == 3
    assert any("transparency" in note for note in data.notes)
    if kind == "16 bits":
        data = open_data(write(picture, ".png"), range=(0, 65535))
    assert (data.train.images == 255).any() == (kind != "half")
    assert data.train.images.float().mean() > 100


def test_pages_are_channels_where_they_are_few_and_the_same_in_every_file(write):
    pages = [np.stack([(grey(5 * i + c) * (40 * c + 90)).astype(np.uint8) for c in range(5)]) for i in range(COUNT)]
    data = open_data(write(lambda i: pages[i], photometric="minisblack"))
    assert data.channels == 5
    assert {x.tobytes() for x in all_images(data)} == {x.tobytes() for x in pages}
    first = open_data(write(lambda i: pages[i], photometric="minisblack"), pages="first")
    assert {x.tobytes() for x in all_images(first)} == {x[0].tobytes() for x in pages}
    assert any("first page" in note for note in first.notes)
    fewer = open_data(write(lambda i: pages[i], photometric="minisblack"), channels=2)
    assert {x.tobytes() for x in all_images(fewer)} == {x[:2].tobytes() for x in pages}


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((12,), {}),
        ((4,), {"metadata": {"axes": "ZYX"}, "ome": True}),
        ((3, 2), {"metadata": {"axes": "ZCYX"}, "imagej": True}),
    ],
)
def test_a_stack_is_said_to_be_one(write, shape, options):
    source = write(lambda i: np.broadcast_to((grey(i) * 200).astype(np.uint8), (*shape, SIDE, SIDE)), **options)
    pages = int(np.prod(shape))
    with pytest.raises(UserError, match=rf"stack of {pages} pages.*--pages"):
        open_data(source)
    assert open_data(source, pages="first").channels == 1
    assert open_data(source, pages="channels").channels == pages


def test_files_of_different_numbers_of_pages_have_no_channels_in_common(write):
    source = write(lambda i: np.zeros((2 + i % 3, SIDE, SIDE), np.uint8), photometric="minisblack")
    for pages in (None, "channels"):
        with pytest.raises(UserError, match=r"from 2 to 4 pages.*--pages first"):
            open_data(source, pages=pages)
    assert open_data(source, pages="first").channels == 1


def test_a_thumbnail_is_no_page(write, tmp_path):
    source = write(lambda i: (grey(i) * 255).astype(np.uint8))
    for path in (tmp_path / "set").iterdir():
        whole = tifffile.imread(path)
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(whole)
            tiff.write(whole[::4, ::4], subfiletype=1)
    assert open_data(source).channels == 1


@pytest.mark.parametrize(
    "options", [{}, {"planarconfig": "separate", "compression": "lzw"}, {"compression": "deflate"}]
)
def test_samples_are_channels(write, options):
    five = [np.stack([grey(5 * i + c) * 255 for c in range(5)]).astype(np.uint8) for i in range(COUNT)]
    planes = options.get("planarconfig") == "separate"
    source = write(
        lambda i: five[i] if planes else np.moveaxis(five[i], 0, -1),
        **{"photometric": "minisblack", "planarconfig": "contig"} | options,
    )
    data = open_data(source)
    assert data.channels == 5
    assert {np.ascontiguousarray(x).tobytes() for x in all_images(data)} == {x.tobytes() for x in five}


def test_images_that_differ_in_channels_are_named(write, tmp_path):
    source = write(
        lambda i: np.zeros((SIDE, SIDE, 5 if i else 6), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(UserError, match=r"19 with 5, 1 with 6.*--channels 5"):
        open_data(source)
    assert open_data(source, channels=5).channels == 5
    with pytest.raises(UserError, match="--channels 7"):
        open_data(source, channels=7)


def test_without_the_package_it_is_named(write, monkeypatch):
    source = write(lambda i: np.zeros((5, SIDE, SIDE), np.uint8))
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(UserError, match=r"pip install 'frossl\[tiff\]'"):
        open_data(source)


def test_an_animation_is_said_to_be_one(write):
    frames = [Image.fromarray((grey(i) * 255).astype(np.uint8)) for i in range(3)]
    data = open_data(write(lambda i: encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), ".gif"))
    assert any("20 files are animations" in note for note in data.notes)


@pytest.mark.parametrize("multifile", [False, True])
def test_pages_of_more_than_8_bits_are_channels_on_one_range(write, tmp_path, multifile):
    values = [np.stack([grey(3 * i + c) * 4000 for c in range(3)]).astype(np.uint16) for i in range(COUNT)]
    data = open_data(write(lambda i: values[i], photometric="minisblack", ome=multifile, metadata={"axes": "CYX"}))
    assert data.channels == 3
    assert_same(all_images(data), as_bytes(np.stack(values), *data.range))
    first = open_data(str(tmp_path / "set"), pages="first")
    assert_same(all_images(first), as_bytes(np.stack(values)[:, :1], *first.range))


def test_a_range_for_bytes_is_checked_and_said(write):
    source = write(lambda i: encoded(Image.fromarray((grey(i) * 255).astype(np.uint8))), ".png")
    with pytest.raises(UserError, match="--range LOW HIGH"):
        open_data(source, range=(0, 65535))
    with pytest.raises(UserError, match="give 2 numbers"):
        open_data(source, range=(0, 100, 0, 100))
    half = open_data(source, range=(0, 510))
    assert half.train.images.max() <= 128
    assert any("0 to 510" in note for note in half.notes)


def test_16_bit_images_in_the_held_out_split_alone_are_named(write, tmp_path):
    write(lambda i: encoded(Image.fromarray((grey(i) * 255).astype(np.uint8))), ".png")
    for split, dtype in (("train", np.uint8), ("test", np.uint16)):
        (tmp_path / "two" / split).mkdir(parents=True)
        for i in range(4):
            Image.fromarray((grey(i) * 200).astype(dtype)).save(tmp_path / "two" / split / f"{i}.png")
    with pytest.raises(UserError, match="held-out images are of uint16"):
        open_data(str(tmp_path / "two"))


def test_few_bits_on_several_pages_are_as_on_one(write, tmp_path):
    write(lambda i: grey(i) > 0.5, photometric="miniswhite")
    one = all_images(open_data(str(tmp_path / "set")))
    two = open_data(write(lambda i: np.stack([grey(i) > 0.5] * 2), photometric="miniswhite"), pages="first")
    assert {x.tobytes() for x in all_images(two)} == {x.tobytes() for x in one}


def test_what_gdal_calls_no_datum_leaves_transparency_alone(write):
    def picture(i):
        four = with_infrared(i).astype(np.uint16) * 257
        four[..., 3] = 65535
        four[:6] = 0
        return four

    nodata = [(42113, "s", 0, "0", True)]
    source = write(picture, photometric="rgb", extrasamples=["unassalpha"], extratags=nodata)
    assert (open_data(source).train.images[:, :, :6] == 255).all()


def test_a_range_that_was_measured_can_be_given_again(write):
    scales = np.array([4000, 400, 40])
    source = write(lambda i: (grey(i)[..., None] * scales).astype(np.uint16), photometric="rgb")
    measured = open_data(source, channels=1)
    assert torch.equal(open_data(source, channels=1, range=measured.range).train.images, measured.train.images)


def test_jpeg_2000_of_five_bands_is_read(write):
    bands = [np.stack([grey(5 * i + c) * 4000 for c in range(5)], -1).astype(np.uint16) for i in range(COUNT)]
    data = open_data(write(lambda i: bytes(jpeg2k_encode(bands[i], reversible=True)), ".jp2"))
    assert_same(all_images(data), np.moveaxis(as_bytes(np.stack(bands), *data.range), -1, 1))
