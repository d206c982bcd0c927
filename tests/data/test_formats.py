from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from pictures import decoded, encoded, picture
from PIL import Image

from frossl.core.types import UserError
from frossl.data import open_data
from frossl.data.decode import UnreadableError, probe
from frossl.data.formats import EXTENSIONS, has_image_content

KINDS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 16\n%%EndComments\nshowpage\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4h", 0, 0, 12, 16) + bytes(20)


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "set")


@pytest.fixture
def heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")

    def encode(image: Image.Image, **options) -> bytes:
        pillow_heif.from_pillow(image).save(tmp_path / "one.heic", quality=-1, **options)
        return (tmp_path / "one.heic").read_bytes()

    return encode


@pytest.fixture
def no_program(monkeypatch):
    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, lambda *a, **k: pytest.fail("started a program"))
    monkeypatch.setattr(os, "system", lambda *a: pytest.fail("started a program"))


def test_every_extension_that_pillow_knows_for_these_formats_is_known():
    Image.init()
    known = {extension for extension, kind in Image.registered_extensions().items() if kind in KINDS}
    assert known - {".pfm"} <= set(EXTENSIONS)  # maps of depth or flow rather than pictures


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_is_known_by_its_content_and_read_without_a_program(kind, tmp_path, no_program):
    (tmp_path / "image").write_bytes(encoded(picture(), kind))
    assert has_image_content(str(tmp_path / "image"))
    assert decoded(str(tmp_path / "image"), 3).shape == (3, 12, 16)


def test_names_without_an_extension_and_with_an_unknown_one_are_images_by_content(write, folder):
    for i in range(40):
        kind = KINDS[i % len(KINDS)]
        write(hashlib.sha1(bytes([i])).hexdigest(), content=encoded(picture(i), kind))
    write("scan.0007", content=encoded(picture(), "TIFF"))
    write("README", content=b"BM, P3 and II are how some files begin")
    data = open_data(folder)
    assert (len(data.train) + len(data.test), data.skipped) == (41, ())
    assert any("content" in note and "40 no extension, 1 .0007" in note for note in data.notes)
    assert any("ignored files: 1 no extension" in note for note in data.notes)


def test_all_extensions_of_a_format_and_upper_case_are_images(write, folder):
    for name, kind in (
        ("a.jpg", "JPEG"),
        ("b.JFIF", "JPEG"),
        ("c.jpe", "JPEG"),
        ("d.avif", "AVIF"),
        ("e.jp2", "JPEG2000"),
    ):
        write(name, content=encoded(picture(), kind))
    write("f.jpx", content=encoded(picture(), "JPEG2000"))
    write("g.mpo", content=encoded(picture(), "MPO", save_all=True, append_images=[picture(1)]))
    data = open_data(folder)
    assert (len(data.train) + len(data.test), data.skipped) == (7, ())


def test_a_folder_of_avif_alone_opens(write, folder):
    for i in range(4):
        write(f"{i}.avif", content=encoded(picture(i), "AVIF"))
    assert open_data(folder).train.images.shape == (3, 3, 12, 16)


def test_content_decides_over_the_extension_of_another_image_format(write, folder):
    write("a.jpg", content=encoded(picture(), "AVIF"))
    write("b.heic", content=encoded(picture(), "PNG"))
    assert open_data(folder).skipped == ()


def test_what_is_named_as_something_else_is_not_looked_into(write, folder, tmp_path):
    """A raw photograph is a TIFF with a preview, a backup is an image twice."""
    for name in ("a.NEF", "b.dng", "c.tif.ovr", "d.txt", "e.jpg_original"):
        write(name, content=encoded(picture(), "TIFF"))
    with pytest.raises(UserError, match=r"found 1 \.nef, 1 \.dng, 1 \.ovr, 1 \.txt, 1 \.jpg_original"):
        open_data(folder)


def test_links_to_pipes_and_to_nowhere_are_no_images(write, folder, tmp_path):
    for i in range(2):
        write(f"{i}.png")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nowhere"):
        os.symlink(tmp_path / name, tmp_path / "set" / name)
    assert any("ignored files: 2 no extension" in note for note in open_data(folder).notes)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.eps"])
@pytest.mark.parametrize("content", [EPS, b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, WMF], ids=["EPS", "DOS EPS", "WMF"])
def test_formats_that_start_a_program_are_not_read(write, name, content, no_program):
    file = write(name, content=content)
    for one in (str(file), content):
        for read in (probe, lambda x: decoded(x, 3)):
            with pytest.raises(UnreadableError, match="not an image of a format that is read"):
                read(one)


def test_a_program_in_a_folder_is_left_out_by_name(write, folder, no_program):
    for i in range(3):
        write(f"{i}.png")
    write("a.png", content=EPS)
    write("b", content=EPS)
    data = open_data(folder)
    assert [skip.path for skip in data.skipped] == ["a.png"]
    assert any("ignored files: 1 no extension" in note for note in data.notes)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_read_and_registers_nothing(heic, write, folder, brand):
    for i in range(3):
        write(
            f"{i}.heic" if i else "no_extension",
            content=heic(picture(i, (64, 48))).replace(b"ftypheic", b"ftyp" + brand),
        )
    registered = set(Image.OPEN)
    data = open_data(folder, memory_limit=0)
    assert (len(data.train) + len(data.test), data.skipped) == (3, ())
    lossless = decoded(encoded(picture(1, (64, 48))), 3)
    assert (data.train.images[0].float() - lossless).abs().mean() < 5
    assert set(Image.OPEN) == registered


def test_heic_is_read_whole_and_not_from_its_preview(heic):
    data = heic(picture(size=(512, 384)), thumbnails=[128])
    assert decoded(data, 3, least=32).shape == (3, 512, 384)
    assert probe(data)[0].size == (512, 384)
    with pytest.raises(UnreadableError):
        probe(data[: len(data) // 2])


def test_heic_without_its_package_says_how_to_install_it(heic, write, folder, monkeypatch):
    for i in range(3):
        write(f"{i}.heic", content=heic(picture(i)))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"pip install 'frossl\[heic\]'"):
        open_data(folder)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000"])
def test_an_image_above_the_first_limit_is_read_in_silence(kind, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 192 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = encoded(picture(), kind)
        assert probe(data)[0].size == (12, 16)
        assert decoded(data, 3).shape == (3, 12, 16)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
def test_max_pixels_raises_the_limit_here_and_for_nobody_else(kind, options, orientation, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif, **options)
    with pytest.raises(UnreadableError, match=r"192 pixels, more than 60.*--max-pixels 192 .*--cache SIZE"):
        probe(data)
    expected = decoded(data, 3, max_pixels=192)
    assert probe(data, max_pixels=192)[0].size == expected.shape[1:]
    with pytest.raises(UnreadableError, match="more than 191"):
        decoded(data, 3, max_pixels=191)
    assert Image.MAX_IMAGE_PIXELS == 30
    monkeypatch.undo()
    assert torch.equal(decoded(data, 3), expected)


def test_where_pillow_alone_sets_the_limit_the_reason_says_so(monkeypatch):
    data = encoded(picture(), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    try:
        assert decoded(data, 3, max_pixels=1000).shape == (3, 12, 16)  # as older releases do
    except UnreadableError as error:
        assert "no other limit; convert" in str(error)  # noqa: PT017


@pytest.fixture
def large(write, monkeypatch):
    """Three images of 192 pixels, which are noted, and one of 520, which is too large."""
    for i in range(4):
        write(f"{i}.png", i, size=(26, 20) if i == 3 else (12, 16))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)


def test_large_images_are_noted_once_and_too_large_ones_named(large, folder):
    data = open_data(folder)
    assert [(skip.path, "--max-pixels 520" in skip.reason) for skip in data.skipped] == [("3.png", True)]
    assert [note for note in data.notes if "more than 150 pixels: 3, the largest of 192; --cache" in note]
    data = open_data(folder, max_pixels=520)
    assert data.skipped == ()
    assert [note for note in data.notes if "more than 150 pixels: 4, the largest of 520" in note]


def test_the_limit_holds_in_workers_and_in_the_cache_and_is_not_remembered(large, folder, tmp_path):
    where = {"data_dir": tmp_path / "data"}
    images = replace(open_data(folder, max_pixels=520).train.images, index=torch.arange(4).numpy())
    assert [x.numel() for x in torch.utils.data.DataLoader(images, batch_size=None, num_workers=1)][3] == 3 * 520
    stored = open_data(folder, cache=4, max_pixels=520, memory_limit=0, **where)
    assert len(stored.train) + len(stored.test) == 4
    assert not any("--cache" in note for note in stored.notes)
    assert [skip.path for skip in open_data(folder, cache=5, **where).skipped] == ["3.png"]


def test_max_pixels_must_be_positive(folder):
    with pytest.raises(UserError, match="--max-pixels must be at least 1, got 0"):
        open_data(folder, max_pixels=0)
