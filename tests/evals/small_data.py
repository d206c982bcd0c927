"""Data sets and encoders of a size at which everything takes milliseconds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from frossl.data.types import Dataset, Split
from frossl.nn.encoder import EncoderSpec

OPTIONS = {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)}


def spec(size: int = 16) -> EncoderSpec:
    return EncoderSpec(
        backbone="resnet18", channels=1, size=size, stem="small", features=8, mean=(0.4,), std=(0.2,), options=OPTIONS
    )


def images(count: int, seed: int = 0, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator, dtype=torch.uint8)


def dark_and_bright(count: int, seed: int = 0) -> Split:
    """Noise below 80 is class 0, noise above 175 class 1, in turn."""
    x, labels = images(count, seed) % 80, torch.arange(count) % 2
    x[labels == 1] += 175
    return Split(x, labels)


def dataset(train: Split, test: Split) -> Dataset:
    """A data set of two classes, or of none where the images have no labels."""
    return Dataset(
        name="small",
        train=train,
        test=test,
        classes=() if train.labels is None else ("dark", "bright"),
        channels=1,
        mean=(0.4,),
        std=(0.2,),
        smallest=(16, 16),
        largest=(16, 16),
        typical=(16, 16),
        source="made here",
    )


class Lazy:
    """Images that are asked for one by one."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        return self.x[i]

    def select(self, index: np.ndarray) -> Lazy:
        return Lazy(self.x[index])


def gaussian_classes(
    per_class: int, *, width: int = 12, classes: int = 3, apart: float = 8.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Isotropic normal classes whose means lie ``apart`` along different axes; 0 makes features pure noise."""
    y = torch.arange(classes * per_class) % classes
    x = torch.randn(len(y), width, generator=torch.Generator().manual_seed(seed))
    return x + apart * torch.eye(classes, width)[y], y
