"""Classes of ImageNet by their WordNet ids (n01440764): lists of them, and files with the class of held-out images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from frossl.core.types import UserError

WNID = re.compile(r"n\d{8}")
HELD_OUT = "ILSVRC2012_val_{:08}"
"""Name of a held-out image of ImageNet, by its number from 1, without extension."""
FIRST = "n01751748"
"""Class of the first held-out image of ImageNet, which tells whether numbers of classes are read right."""
LISTED = 5


def read_ids(path: Path) -> tuple[str, ...]:
    """The WordNet ids in a text file, sorted; what follows # in a line is a comment.

    Raises:
        UserError: it cannot be read, holds something else, or one of them twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot read the list of classes {path}: {error}") from None
    words = [word for line in lines for word in line.partition("#")[0].split()]
    strange = [word for word in words if not WNID.fullmatch(word)]
    if strange or len(set(words)) < len(words):
        what = f"{strange[0]!r}" if strange else f"{max(words, key=words.count)} twice"
        raise UserError(f"{path} holds {what}; give WordNet ids such as n01440764, each once, with space between")
    return tuple(sorted(words))


def fingerprint(classes: tuple[str, ...], known: tuple[str, ...] = (), called: str = "") -> str:
    """The SHA-256 of sorted ``classes``, one a line, and how they differ from those that are ``known``, if any."""
    digest = sha256("\n".join(classes).encode()).hexdigest()
    other = [name for name in classes if name not in known]
    said = f" ({called})" if known == classes else f"; not in {called}: {listed(other)}" if known else ""
    return f"SHA-256 of the {len(classes)} sorted class names: {digest}{said}"


def listed(names: list[str]) -> str:
    """How many names there are, and the first of them."""
    return f"{len(names):,} ({', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''})"


def label_table(text: str, place: str, devkit: Callable[[], Mapping[int, str]] = dict) -> dict[str, str]:
    """The WordNet id of each image, by its name without folder and extension.

    A line has the image and, after a tab, comma or space, its WordNet id (``val_annotations.txt`` of Tiny ImageNet,
    ``LOC_val_solution.csv`` of Kaggle) or the number of its class among the sorted 1,000 of ImageNet from 0
    (``val.txt`` of Caffe); or it has no image but the k-th line is of the k-th image of ImageNet, with the id or with
    the number of its class in ``devkit()`` (``ILSVRC2012_validation_ground_truth.txt``).

    Raises:
        UserError: a line is none of these, or the first image of ImageNet has another class than there.
    """
    rows = [re.split(r"[\s,;]+", line.strip()) for line in text.splitlines() if line.strip()]
    if rows and not any(WNID.fullmatch(word) or word.isdecimal() for word in rows[0][1:2] or rows[0]):
        rows = rows[1:]  # the names of columns
    named = all(len(row) > 1 for row in rows)
    if named:
        words = {Path(row[0]).stem: row[1] for row in rows}
    else:
        words = {HELD_OUT.format(i): row[0] for i, row in enumerate(rows, 1)}
    if any(word.isdecimal() for word in words.values()):
        ids = imagenet_ids() if named else devkit()
        words = {image: ids.get(int(word), word) if word.isdecimal() else word for image, word in words.items()}
    strange = next(((image, word) for image, word in words.items() if not WNID.fullmatch(word)), None)
    if strange or not words:
        said = f"gives {strange[0]} the class {strange[1]!r}" if strange else "is empty"
        raise UserError(
            f"{place} {said}. Expected are lines of an image and its WordNet id such as n01440764, or its number from "
            "0 among the sorted classes of ImageNet; or the file of ImageNet's development kit, with its meta.mat "
            "beside it"
        )
    if words.get(HELD_OUT.format(1), FIRST) != FIRST:
        raise UserError(
            f"{place} gives the first held-out image of ImageNet the class {words[HELD_OUT.format(1)]}, but it is of "
            f"{FIRST}: its classes are numbered in another order. Give a file with WordNet ids"
        )
    return words


def imagenet_ids() -> dict[int, str]:
    """The 1,000 classes of ImageNet by their number from 0 in sorted order."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return {i: info.index_to_label_name(i) for i in range(info.num_classes())}


def devkit_ids(content: bytes, place: str) -> dict[int, str]:
    """The WordNet id of each number of a class in ImageNet's development kit, from its ``meta.mat``.

    Raises:
        UserError: it is another file, or damaged.
    """
    from scipy.io import loadmat

    try:
        synsets = loadmat(BytesIO(content), squeeze_me=True)["synsets"]
        return {int(number): str(wnid) for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except Exception as error:  # whatever SciPy's reader meets in a file that is another or cut off
        raise UserError(f"cannot read {place}: {error}; unpack ILSVRC2012_devkit_t12.tar.gz again") from None
