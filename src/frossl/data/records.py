"""Named data sets: every fact about one in one record, and how to get its images."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frossl.core.registry import Registry
from frossl.core.types import UserError
from frossl.data.build import build, check_same_classes, measure, to_channels
from frossl.data.folder import Files, first_folder, label, list_images
from frossl.data.sources import Options
from frossl.data.types import Dataset, Split

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
APT_SECONDS = 300
STALLED_SECONDS = 60
WNID = re.compile(r"n\d{8}")
# SHA-256 of the sorted class names, one a line, of https://github.com/HobbitLong/CMC (imagenet100.txt);
# solo-learn's make_imagenet100.py has the same list.
CMC_IMAGENET100 = "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"

Pair = tuple[Tensor, Tensor]  # images (N, C, H, W) and labels (N,)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Facts about a named data set.

    ``classes`` is empty where the folder names are the classes. ``size`` is ``(H, W)``, None where it varies.
    ``mean`` and ``std`` are of images in [0, 1]. ``train`` and ``test`` are numbers of images. ``load`` gets the
    images, from the network if need be, and raises UserError that says what was tried and what to do.
    """

    name: str
    classes: tuple[str, ...]
    class_count: int
    size: tuple[int, int] | None
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    test: int
    licence: str
    homepage: str
    load: Callable[[Record, Options], Dataset]

    def open(self, options: Options) -> Dataset:
        """The data set, with the numbers of its images checked against the record."""
        data = self.load(self, replace(options, channels=options.channels or self.channels))
        found, wanted = (len(data.train), len(data.test)), (self.train, self.test)
        if found != wanted:
            odd = "{:,} training and {:,} held-out images, where {} is known to have {:,} and {:,}"
            data = replace(data, notes=(*data.notes, odd.format(*found, self.name, *wanted)))
        return data


DATASETS: Registry[Record] = Registry("data set")


def _add(record: Record) -> None:
    DATASETS.add(record.name, record)


def _in_memory(record: Record, options: Options, train: Pair, test: Pair, source: str) -> Dataset:
    channels = options.channels or record.channels
    splits = [
        Split(to_channels(images, channels), labels if options.labels else None) for images, labels in (train, test)
    ]
    same = channels == record.channels
    mean, std = (record.mean, record.std) if same else measure(splits[0].images, options)
    height, width = test[0].shape[2:]
    return Dataset(
        name=record.name,
        train=splits[0],
        test=splits[1],
        classes=record.classes if options.labels else (),
        channels=channels,
        mean=mean,
        std=std,
        smallest=(height, width),
        largest=(height, width),
        typical=(height, width),
        source=source,
    )


def _refuse_cache(record: Record, options: Options) -> None:
    if options.cache is not None:
        raise UserError(
            f"{record.name} is held in memory, decoded already: there is nothing to store, leave --cache out"
        )


# --- torchvision ------------------------------------------------------------------------------------------


@contextmanager
def _download(record: Record, root: Path) -> Iterator[None]:
    """Turn whatever a failed download raises into a UserError; give up on a connection that stalls."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED_SECONDS)
    try:
        yield
    except (OSError, RuntimeError, HTTPException, EOFError, ModuleNotFoundError) as error:
        raise UserError(
            f"cannot get {record.name} through torchvision into {root}: {error}. Check the network, or get the "
            f"files from {record.homepage} on another machine and put them there; a damaged file must be removed first."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _torchvision(class_name: str, train: dict[str, Any], test: dict[str, Any]) -> Callable[[Record, Options], Dataset]:
    """A loader for one of torchvision's in-memory data sets, with the arguments that name its two splits."""

    def load(record: Record, options: Options) -> Dataset:
        import torchvision.datasets

        _refuse_cache(record, options)
        make, root = getattr(torchvision.datasets, class_name), options.data_dir
        with _download(record, root):
            pairs = [_from_torchvision(make(str(root), download=True, **which)) for which in (train, test)]
        return _in_memory(record, options, *pairs, source=f"torchvision {class_name} in {root}")

    return load


def _from_torchvision(data: Any) -> Pair:
    images = torch.as_tensor(data.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    labels = data.targets if hasattr(data, "targets") else data.labels
    return images, torch.as_tensor(labels, dtype=torch.int64)


# --- fashion-mnist ----------------------------------------------------------------------------------------


def read_idx(images: Path, labels: Path) -> Pair:
    """A pair of gzipped IDX files (the MNIST format) as images ``(N, 1, H, W)`` and labels; UserError if damaged."""
    pixels, numbers = _idx(images, 3), _idx(labels, 1)
    if len(pixels) != len(numbers):
        raise UserError(f"{images} holds {len(pixels):,} images, but {labels} {len(numbers):,} labels")
    return torch.from_numpy(pixels)[:, None], torch.from_numpy(numbers).long()


def _idx(path: Path, dimensions: int) -> np.ndarray:
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    start = 4 + 4 * dimensions
    if len(raw) < start or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(
            f"{path} is not an IDX file of bytes in {dimensions} dimensions: it begins with {raw[:4].hex()}"
        )
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", dimensions, 4))
    if len(raw) - start != np.prod(shape):
        raise UserError(f"{path} announces {shape} bytes, but holds {len(raw) - start:,}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def _fashion_mnist(record: Record, options: Options) -> Dataset:
    _refuse_cache(record, options)

    def debian() -> Dataset:
        train, test = (
            read_idx(DEBIAN_DIR / f"{part}-images-idx3-ubyte.gz", DEBIAN_DIR / f"{part}-labels-idx1-ubyte.gz")
            for part in ("train", "t10k")
        )
        return _in_memory(record, options, train, test, source=f"Debian package {DEBIAN_PACKAGE} in {DEBIAN_DIR}")

    def apt() -> Dataset:
        _install_debian_package(options)
        return debian()

    def download() -> Dataset:
        return _torchvision("FashionMNIST", {"train": True}, {"train": False})(record, options)

    failures = []
    for way in (debian, apt, download):
        try:
            return way()
        except UserError as error:
            failures.append(f"\n  {len(failures) + 1}. {error}")
    raise UserError(
        f"cannot get {record.name}; three ways were tried:{''.join(failures)}\n"
        f"Install it (sudo apt-get install {DEBIAN_PACKAGE}), or try again with a network, or give a folder of images."
    )


def _install_debian_package(options: Options) -> None:
    apt_get = shutil.which("apt-get")
    if apt_get is None or os.geteuid() != 0:
        raise UserError(f"cannot install {DEBIAN_PACKAGE}: {'not root' if apt_get else 'no apt-get here'}")
    options.log(f"installing the Debian package {DEBIAN_PACKAGE} with apt-get")
    try:
        subprocess.run(
            [apt_get, "install", "-y", "-qq", "--no-install-recommends", DEBIAN_PACKAGE],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=APT_SECONDS,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"apt-get install {DEBIAN_PACKAGE} failed: {said[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"apt-get install {DEBIAN_PACKAGE} failed: {error}") from error


# --- folders named after ImageNet classes ------------------------------------------------------------------


def _imagenette(record: Record, options: Options) -> Dataset:
    import torchvision.datasets

    root, folder = options.data_dir, options.data_dir / "imagenette2-160"
    if not folder.exists():
        with _download(record, root):
            torchvision.datasets.Imagenette(str(root), size="160px", download=True)
    data = _wnid_folder(record, options, folder)
    return replace(data, classes=record.classes if options.labels else ())


def _prepared(folder_name: str) -> Callable[[Record, Options], Dataset]:
    """A loader for a folder that a person has to prepare, because it may not be downloaded freely."""

    def load(record: Record, options: Options) -> Dataset:
        folder = options.data_dir / folder_name
        if not folder.is_dir():
            raise UserError(
                f"{record.name} must be prepared by hand, and {folder} does not exist. Get it from {record.homepage} "
                f"and lay it out as {folder}/train/<class>/ and {folder}/val/<class>/, or link that name to it."
            )
        return _wnid_folder(record, options, folder)

    return load


def _wnid_folder(record: Record, options: Options, folder: Path) -> Dataset:
    files, _ = list_images(folder)
    train, test = files.below("train/"), files.below("val/")
    train_names = [first_folder(path, "train/") for path in train.paths]
    test_names, notes = _val_names(folder, test)
    classes = tuple(sorted(set(train_names)))
    strange = [name for name in classes if not WNID.fullmatch(name)]
    if strange or len(classes) != record.class_count:
        raise UserError(
            f"{folder}/train should hold the {record.class_count} class folders of {record.name}, called like "
            f"n01440764; it holds {len(classes)}, {len(strange)} of them called otherwise {strange[:5]}. "
            "Put the right classes there, or open the folder by its path."
        )
    check_same_classes(classes, tuple(sorted(set(test_names))), (f"{folder}/train", f"{folder}/val"))
    shown = classes if options.labels else ()
    return build(
        record.name,
        f"folder {folder}",
        label(train, train_names, shown),
        label(test, test_names, shown),
        shown,
        options,
        [*notes, _fingerprint(classes)],
        (record.mean, record.std),
    )


def _val_names(folder: Path, files: Files) -> tuple[list[str], list[str]]:
    """The class of each file in ``val/``: its sub-folder, or what Tiny ImageNet's annotations say; and notes."""
    names = [first_folder(path, "val/") for path in files.paths]
    annotations = folder / "val" / "val_annotations.txt"
    if set(names) != {"images"} or not annotations.is_file():
        return names, []
    rows = [line.split("\t") for line in annotations.read_text().splitlines()]
    of_file = {row[0]: row[1] for row in rows if len(row) > 1}
    names = [of_file.get(os.path.basename(path), "") for path in files.paths]
    if "" in names:
        raise UserError(f"{annotations} does not name the class of {files.paths[names.index('')]}; get the file again")
    return names, ["held-out labels come from val/val_annotations.txt"]


def _fingerprint(classes: tuple[str, ...]) -> str:
    digest = sha256("\n".join(classes).encode()).hexdigest()
    known = " (the ImageNet-100 list of CMC and solo-learn)" if digest == CMC_IMAGENET100 else ""
    return f"SHA-256 of the {len(classes)} sorted class names: {digest}{known}"


# --- the records ------------------------------------------------------------------------------------------

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_LICENCE = "ImageNet terms: non-commercial research and education; image owners keep their copyright"

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower
sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

_add(
    Record(
        name="fashion-mnist",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        class_count=10,
        size=(28, 28),
        channels=1,
        mean=(0.2860,),
        std=(0.3530,),
        train=60_000,
        test=10_000,
        licence="MIT",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        load=_fashion_mnist,
    )
)
_add(
    Record(
        name="cifar10",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        class_count=10,
        size=(32, 32),
        channels=3,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        train=50_000,
        test=10_000,
        licence="no formal licence; the authors ask to be cited",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        load=_torchvision("CIFAR10", {"train": True}, {"train": False}),
    )
)
_add(
    Record(
        name="cifar100",
        classes=tuple(_CIFAR100.split()),
        class_count=100,
        size=(32, 32),
        channels=3,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        train=50_000,
        test=10_000,
        licence="no formal licence; the authors ask to be cited",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        load=_torchvision("CIFAR100", {"train": True}, {"train": False}),
    )
)
_add(
    Record(
        name="stl10",
        classes=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        class_count=10,
        size=(96, 96),
        channels=3,
        mean=(0.4914, 0.4823, 0.4466),
        std=(0.247, 0.243, 0.261),
        train=105_000,
        test=8_000,
        licence="no formal licence; images from ImageNet, under its terms; the authors ask to be cited",
        homepage="https://cs.stanford.edu/~acoates/stl10/",
        load=_torchvision("STL10", {"split": "train+unlabeled"}, {"split": "test"}),
    )
)
_add(
    Record(
        name="svhn",
        classes=tuple("0123456789"),
        class_count=10,
        size=(32, 32),
        channels=3,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        train=73_257,
        test=26_032,
        licence="non-commercial use only",
        homepage="http://ufldl.stanford.edu/housenumbers/",
        load=_torchvision("SVHN", {"split": "train"}, {"split": "test"}),
    )
)
_add(
    Record(
        name="imagenette",
        classes=(
            "tench",
            "English springer",
            "cassette player",
            "chain saw",
            "church",
            "French horn",
            "garbage truck",
            "gas pump",
            "golf ball",
            "parachute",
        ),
        class_count=10,
        size=None,
        channels=3,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        train=9_469,
        test=3_925,
        licence=_IMAGENET_LICENCE,
        homepage="https://github.com/fastai/imagenette",
        load=_imagenette,
    )
)
_add(
    Record(
        name="tiny-imagenet",
        classes=(),
        class_count=200,
        size=(64, 64),
        channels=3,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        train=100_000,
        test=10_000,
        licence=_IMAGENET_LICENCE,
        homepage="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        load=_prepared("tiny-imagenet-200"),
    )
)
_add(
    Record(
        name="imagenet100",
        classes=(),
        class_count=100,
        size=None,
        channels=3,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        train=126_689,
        test=5_000,
        licence=_IMAGENET_LICENCE,
        homepage="https://image-net.org (classes: https://github.com/HobbitLong/CMC/blob/master/imagenet100.txt)",
        load=_prepared("imagenet100"),
    )
)
