"""Every image under its path, in the order of its source, whatever is held out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from frossl.data import open_data
from frossl.data.decode import UnreadableError
from frossl.data.whole import Squares, square_batches, whole


def write(path, value: int = 0, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def opened(place, **how):
    return whole(open_data(str(place), check="on-read", memory_limit=0, **how))


def test_without_splits_of_their_own_images_are_in_order_and_of_none(tmp_path):
    for i in range(12):
        write(tmp_path / f"{'ba'[i % 2]}" / f"{i:02}.png", i)
    images = opened(tmp_path, held_out=0.5)
    names = [f"a/{i:02}.png" for i in range(1, 12, 2)] + [f"b/{i:02}.png" for i in range(0, 12, 2)]
    assert [images.name(i) for i in range(12)] == names
    assert images.splits() == [""] * 12
    assert images.labels() == ["a"] * 6 + ["b"] * 6
    assert [int(images[i][0, 0, 0]) for i in range(12)] == [*range(1, 12, 2), *range(0, 12, 2)]
    assert [images.select(np.array([3, 1])).name(i) for i in range(2)] == ["a/07.png", "a/03.png"]


def test_their_own_splits_are_told(tmp_path):
    for split in ("train", "test"):
        for i in range(3):
            write(tmp_path / split / "x" / f"{i}.png", i)
            write(tmp_path / split / "y" / f"{i}.png", i)
    images = opened(tmp_path)
    assert images.splits() == ["train"] * 6 + ["held-out"] * 6
    assert len({images.name(i) for i in range(12)}) == 12


def test_images_of_arrays_are_named_by_their_place(tmp_path):
    np.savez(
        tmp_path / "a.npz", train_images=np.zeros((3, 8, 8, 3), "uint8"), test_images=np.ones((2, 8, 8, 3), "uint8")
    )
    images = opened(tmp_path / "a.npz")
    assert [images.name(i) for i in range(5)] == ["train:0", "train:1", "train:2", "held-out:0", "held-out:1"]
    assert images.labels()[0] is None


def test_the_digest_is_of_what_the_files_are(tmp_path):
    for i in range(5):
        write(tmp_path / f"{i}.png", i)

    def digest() -> str:
        images = opened(tmp_path)
        return images.digest(images.names())

    before = digest()
    assert digest() == before
    write(tmp_path / "2.png", 9, (9, 6))
    assert digest() != before


@pytest.mark.parametrize("workers", [0, 2])
def test_what_becomes_unreadable_has_a_reason_and_no_other_in_its_place(tmp_path, workers):
    for i in range(6):
        write(tmp_path / f"{i}.png", 10 * i)
    images = opened(tmp_path)
    (tmp_path / "4.png").write_bytes(b"none")
    found = list(square_batches(Squares(images, 4), 4, workers))
    assert [x.shape for x, _ in found] == [(4, 3, 4, 4), (2, 3, 4, 4)]
    assert [x[:, 0, 0, 0].tolist() for x, _ in found] == [[0, 10, 20, 30], [0, 50]]
    assert [bool(reason) for _, reasons in found for reason in reasons] == [False] * 4 + [True, False]
    with pytest.raises(UnreadableError):
        images[4]
