from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from pictures import encoded, picture
from PIL import Image

from frossl.core.types import UserError
from frossl.data import open_data, scan


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "set")


def paths(split) -> list[str]:
    return [split.images.sources[i] for i in split.images.index]


def flat(write, count: int = 20, **options) -> None:
    for i in range(count):
        write(f"{i:03}.png", i, **options)


def test_flat_folder_is_unlabelled_and_in_memory(write, folder):
    flat(write)
    data = open_data(folder)
    assert (len(data.train), len(data.test)) == (18, 2)
    assert data.train.in_memory
    assert data.train.images.shape == (18, 3, 12, 16)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels is None
    assert data.classes == ()
    assert data.smallest == data.largest == data.typical == (12, 16)
    assert any("no labels" in note for note in data.notes)
    assert any("10 %" in note and "(2)" in note and "seed 0" in note for note in data.notes)


def test_statistics_are_those_of_the_training_images(write, folder):
    flat(write)
    data = open_data(folder)
    pixels = data.train.images.double().transpose(0, 1).flatten(1) / 255
    assert data.mean == pytest.approx(pixels.mean(1).tolist())
    assert data.std == pytest.approx(pixels.std(1, correction=0).tolist())


def test_constant_images_have_a_positive_deviation(write, folder):
    for i in range(4):
        write(f"{i}.png", content=encoded(Image.new("RGB", (4, 4), (9, 9, 9))))
    assert min(open_data(folder).std) > 0


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_statistics_do_not_depend_on_the_number_of_threads(write, tmp_path, memory_limit):
    noise = np.random.default_rng(0).integers(0, 256, (6, 600, 500), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        write(f"{i}.png", content=encoded(Image.fromarray(pixels)))
    before, found = torch.get_num_threads(), set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        data = open_data(str(tmp_path / "set"), memory_limit=memory_limit, workers=threads)
        found.add((data.mean, data.std))
    torch.set_num_threads(before)
    assert len(found) == 1


def test_truncated_jpeg_is_skipped_and_listed_once(write, folder):
    flat(write, 9)
    write("bad/x.jpg", content=encoded(picture(size=(64, 64)), "JPEG")[:700])
    data = open_data(folder)
    assert [skip.path for skip in data.skipped] == ["bad/x.jpg"]
    assert "truncated" in data.skipped[0].reason
    assert len(data.train) + len(data.test) == 9


def test_more_than_five_percent_unreadable_stops(write, folder):
    flat(write, 60)
    for i in range(25):
        write(f"bad{i:02}.jpg", content=b"no image")
    with pytest.raises(UserError, match=r"25 of 85(.|\n)*bad19.jpg.*\n.*5 more") as error:
        open_data(folder)
    assert "bad20" not in str(error.value)


def test_a_few_unreadable_of_many_are_skipped(write, folder):
    flat(write, 38, size=(2, 2))
    write("a.gif", content=b"")
    write("b.gif", content=b"")
    assert len(open_data(folder).skipped) == 2


def test_one_image_is_not_enough(write, folder):
    write("a.png")
    write("b.png", content=b"")
    with pytest.raises(UserError, match=r"\b1\b(.|\n)*at least 2(.|\n)*b.png"):
        open_data(folder)


def test_grey_folder_has_one_channel(write, folder):
    flat(write, 4, mode="L")
    write("one-bit.PNG", mode="1")
    data = open_data(folder)
    assert data.channels == len(data.mean) == data.train.images.shape[1] == 1


def test_mixed_folder_has_three_channels(write, folder):
    flat(write, 4, mode="L")
    grey = open_data(folder)
    assert torch.equal(open_data(folder, channels=3).train.images, grey.train.images.expand(-1, 3, -1, -1))
    write("colour.png")
    assert open_data(folder).channels == 3
    assert open_data(folder, channels=1).channels == 1


def test_sizes_that_differ_are_decoded_lazily(write, folder):
    for i in range(1, 6):
        write(f"{i}.png", i, size=(i, 2 * i))
    data = open_data(folder)
    assert not data.train.in_memory
    assert (data.smallest, data.typical, data.largest) == ((1, 2), (3, 6), (5, 10))


def test_lazy_equals_in_memory_and_pickles(write, folder):
    flat(write)
    eager, lazy = open_data(folder), open_data(folder, memory_limit=100)
    assert not lazy.train.in_memory
    assert lazy.mean == eager.mean
    copy = pickle.loads(pickle.dumps(lazy.train.images))
    assert len(copy) == len(eager.train)
    for i in range(len(copy)):
        assert torch.equal(copy[i], eager.train.images[i])
    assert torch.equal(copy[-1], eager.train.images[-1])
    with pytest.raises(IndexError):
        copy[len(copy)]


MODES = ("RGB", "L", "P", "1", "CMYK")


@pytest.mark.parametrize("modes", [MODES, ("L", "1")], ids=["colour", "grey"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_small_images_of_one_size_are_decoded_once_and_alike(write, folder, monkeypatch, modes, channels):
    for i in range(3 * len(modes)):
        mode, exif = modes[i % len(modes)], Image.Exif()
        exif[0x0112] = 6 if i % 2 else 1
        image = picture(size=(12, 16) if i % 2 else (16, 12), seed=i).convert(mode)
        write(f"{i:03}.tif", content=encoded(image, "TIFF", exif=exif))
    lazy = open_data(folder, memory_limit=0, channels=channels)
    expected = [torch.stack([split.images[i] for i in range(len(split))]) for split in (lazy.train, lazy.test)]
    monkeypatch.setattr("frossl.data.sources.decode", lambda *a: pytest.fail("decoded twice"))
    eager = open_data(folder, channels=channels)
    assert eager.channels == lazy.channels == (channels or (3 if "RGB" in modes else 1))
    assert torch.equal(eager.train.images, expected[0])
    assert torch.equal(eager.test.images, expected[1])
    assert (eager.mean, eager.std) == (lazy.mean, lazy.std)


def test_pixels_are_kept_only_while_all_are_of_one_size_and_few(write, folder, monkeypatch):
    flat(write, 20)
    sizes = []

    def watched(encoded, room, *options):
        found, pixels = scan_probe(encoded, room, *options)
        sizes.append(None if pixels is None else tuple(pixels.shape))
        return found, pixels

    scan_probe = scan.probe
    monkeypatch.setattr(scan, "probe", watched)
    whole = 20 * 3 * 12 * 16
    assert open_data(folder, memory_limit=2 * whole).train.in_memory
    assert sizes == [(3, 12, 16)] * 20
    sizes.clear()
    assert open_data(folder, memory_limit=2 * whole - 120).train.in_memory
    assert sizes == [None] * 20
    sizes.clear()
    write("000.png", size=(8, 8))
    assert not open_data(folder).train.in_memory
    assert sizes == [(3, 8, 8), *[(3, 12, 16)] * 15, *[None] * 4]  # by chunks of 16


def test_lazy_works_in_loader_workers(write, folder):
    flat(write, 6)
    lazy = open_data(folder, memory_limit=0).train
    batches = list(torch.utils.data.DataLoader(lazy.images, batch_size=5, num_workers=1))
    assert torch.equal(batches[0], open_data(folder).train.images)


def test_a_long_scan_says_how_far_it_is(write, folder, monkeypatch):
    flat(write, 3)
    monkeypatch.setattr("frossl.data.threads.SECONDS_BETWEEN_LOGS", -1)
    said = []
    open_data(folder, log=said.append)
    assert said == [f"checked {i} of 3 images" for i in (1, 2, 3)]


def test_file_that_vanished_is_named(write, folder):
    flat(write, 3)
    images = open_data(folder, memory_limit=0).train.images
    for file in os.scandir(folder):
        os.remove(file)
    with pytest.raises(UserError, match=r"00\d.png: No such file"):
        images[0]


def test_class_folders(write, folder):
    for i in range(10):
        write(f"cat/deep/{i}.png", i)
        write(f"dog/{i}.JPG", i)
    data = open_data(folder)
    assert data.classes == ("cat", "dog")
    assert torch.bincount(data.test.labels).tolist() == [1, 1]
    assert torch.bincount(data.train.labels).tolist() == [9, 9]
    assert any("2 classes" in note and "sub-folders" in note for note in data.notes)
    plain = open_data(folder, labels=False)
    assert plain.classes == ()
    assert plain.train.labels is None


def test_image_beside_sub_folders_means_no_classes(write, folder):
    for path in ("cat/1.png", "dog/1.png", "top.png"):
        write(path)
    assert open_data(folder).classes == ()


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "Validation"])
def test_split_folders(write, folder, held_out):
    for i in range(3):
        for name in ("a", "b"):
            write(f"train/{name}/{i}.png", i)
    for name in ("a", "b"):
        write(f"{held_out}/{name}/0.png")
    write("extra/0.png")
    data = open_data(folder)
    assert (len(data.train), len(data.test)) == (6, 2)
    assert data.classes == ("a", "b")
    assert data.test.labels.tolist() == [0, 1]
    assert any(f"train/ and {held_out}/" in note and ": extra/" in note for note in data.notes)


def test_training_and_testing_are_splits_and_not_classes(write, folder):
    for path in ("training/a/0.png", "training/b/0.png", "testing/a/0.png", "testing/b/0.png"):
        write(path)
    data = open_data(folder)
    assert (len(data.train), len(data.test), data.classes) == (2, 2, ("a", "b"))


@pytest.mark.parametrize(("one", "other"), [("Val", "test"), ("val", "unlabeled")])
def test_names_of_splits_are_no_classes_but_a_train_may_be_one(write, folder, one, other):
    for path in (f"{one}/a/0.png", f"{one}/b/0.png", f"{other}/0.png"):
        write(path)
    assert open_data(folder).classes == ()
    write("bus/0.png")
    assert open_data(folder).classes == tuple(sorted((one, other, "bus")))


def test_unlabelled_test_folder_gives_way_to_labelled_val(write, folder):
    for path in ("train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/0.png", "test/0.png"):
        write(path)
    assert any("train/ and val/" in note and ": test/" in note for note in open_data(folder).notes)


def test_train_folder_alone_is_split(write, folder):
    for i in range(5):
        for name in ("a", "b"):
            write(f"train/{name}/{i}.png", i)
    data = open_data(folder)
    assert (len(data.train), len(data.test), data.classes) == (9, 1, ("a", "b"))


def test_splits_are_compared_by_the_classes_that_both_have(write, folder):
    for path in ("train/cat/0.png", "train/dog/0.png", "val/dog/0.png", "val/cow/0.png"):
        write(path)
    data = open_data(folder)
    assert (data.classes, data.train.labels.tolist(), data.test.labels.tolist()) == (("cat", "dog"), [0, 1], [-1, 1])
    assert any("1 images of val/" in note and "cow" in note for note in data.notes)
    assert any("val/ has no image of cat" in note for note in data.notes)
    assert open_data(folder, labels=False).test.labels is None


def test_held_out_is_stratified_and_seeded(write, folder):
    for name, count in (("a", 60), ("b", 30), ("c", 10)):
        for i in range(count):
            write(f"{name}/{i}.png", i, size=(1, 1))
    first, again, other = (open_data(folder, seed=seed, memory_limit=0) for seed in (0, 0, 1))
    assert torch.bincount(first.test.labels).tolist() == [6, 3, 1]
    assert paths(first.test) == paths(again.test)
    assert paths(first.test) != paths(other.test)
    assert not set(paths(first.test)) & set(paths(first.train))


def test_hidden_and_other_files_are_left_out(write, folder):
    flat(write, 3)
    for path in (".hidden.png", ".git/a.png", "notes.txt", "more.TXT", "table.csv"):
        write(path, content=b"text")
    data = open_data(folder)
    assert data.skipped == ()
    assert any("2 .txt, 1 .csv" in note for note in data.notes)


def test_images_of_a_format_that_is_not_read_are_not_called_something_else(write, folder):
    """Pillow reads icons, and an icon is an image."""
    write("0.ico", 0, size=(16, 16))
    with pytest.raises(UserError, match=r"\.png.*found 1 \.ico"):
        open_data(folder)
    flat(write, 2)
    notes = open_data(folder).notes
    assert any("1 .ico" in note for note in notes)
    assert not any("not images" in note for note in notes)


def test_link_loops_end_and_linked_folders_count(write, folder, tmp_path):
    write("a/0.png")
    write("../elsewhere/1.png")
    os.symlink(tmp_path / "set", tmp_path / "set" / "a" / "loop")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "b")
    os.symlink(tmp_path / "nowhere", tmp_path / "set" / "broken.png")
    data = open_data(folder)
    assert data.classes == ()
    assert (len(data.train), len(data.test)) == (1, 1)
    assert [skip.path for skip in data.skipped] == ["broken.png"]


def test_text_only_and_empty_folders(write, folder, tmp_path):
    write("a.txt", content=b"text")
    write("b/c.txt", content=b"text")
    with pytest.raises(UserError, match=r"\.jpg.*found 2 \.txt"):
        open_data(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty.*no files"):
        open_data(str(tmp_path / "empty"))


def test_order_does_not_depend_on_the_file_system(write, folder):
    for i in np.random.default_rng(0).permutation(30):
        write(f"{i:02}.png", i, size=(1, 1))
    found = paths(open_data(folder, memory_limit=0).train)
    assert found == sorted(found)
