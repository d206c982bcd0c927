"""The comparison of the FroSSL paper (arXiv 2310.02903) as a table: every method on every data set.

The numbers are those of the public configurations: of the paper where it has its own, else of solo-learn, on which it
builds. Recipes are called ``paper-<data>-<method>``; ``--data`` and all other flags change them as usual. They are
meant for one GPU and none was run to its end here. Known slips of the files are put right, and the recipe
says so; a pair of method and data set for which there is no file has no recipe. Not as in the files:

- Warm-ups start at 0, there at 3e-5. Biases and norms are not decayed, there they are with SGD, Adam and the original
  LARS. Mixed precision is bfloat16, there float16.
- The online classifier has an optimiser of its own (:mod:`frossl.train.probe`).
- ImageNet-100 takes 256 images a step, there 128 on each of two GPUs (256 on each for some files of the paper's own).
- FroSSL is the centred loss that the published two-view runs used; the public code now calls the uncentred one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from frossl.methods import METHODS
from frossl.recipes import add_recipe
from frossl.runs.config import Config

_DEEP, _BN, _PLAIN = "{0}-bn-relu-{0}-bn-relu-{1}", "{0}-bn-relu-{1}", "{0}-relu-{1}"

# method: (how it is written, head of a hidden and an output width, what is the same on all data sets)
_METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "frossl": ("FroSSL", _DEEP, {"invariance_weight": 1.0, "view_scaling": "pairs", "centre": True}),
    "mmcr": ("MMCR", _DEEP, {}),
    "ivne": ("I-VNE", _DEEP, {"entropy_weight": 1.0, "similarity_weight": 4.16}),
    "corinfomax": ("CorInfoMax", _DEEP, {
        "invariance_weight": 500.0, "forgetting": 0.01, "initial_covariance": 1.0, "epsilon": 1e-6}),
    "barlow": ("Barlow Twins", _DEEP, {"off_diagonal_weight": 0.0051, "scale": 0.1}),
    "vicreg": ("VICReg", _DEEP, {"invariance_weight": 25.0, "variance_weight": 25.0, "covariance_weight": 1.0}),
    "simclr": ("SimCLR", _PLAIN, {}),
    "byol": ("BYOL", _BN, {"predictor_width": 4096, "momentum": 0.99, "final_momentum": 1.0}),
    "simsiam": ("SimSiam", _DEEP + "-standardise", {"predictor_width": 512}),
    "mocov2plus": ("MoCo v2+", _PLAIN, {
        "temperature": 0.2, "queue": 32768, "momentum": 0.99, "final_momentum": 0.999}),
    "swav": ("SwAV", _BN, {
        "prototypes": 3000, "temperature": 0.1, "epsilon": 0.05, "iterations": 3, "freeze": 2.0,
        "queue": 3840, "queue_from": 50.0}),
    "dino": ("DINO", "{0}-gelu-{0}-gelu-{1}", {
        "prototypes": 4096, "student_temperature": 0.1, "teacher_temperature": 0.07,
        "first_teacher_temperature": 0.04, "teacher_warmup": 0.0, "centre_momentum": 0.9, "freeze": 1.0,
        "momentum": 0.9995, "final_momentum": 1.0}),
    # The public code treats the second view as a constant, which W-MSE's own paper does not.
    "wmse": ("W-MSE", _BN, {"epsilon": 0.0, "stop_gradient": True}),
    "empssl": ("EMP-SSL", _BN, {"invariance_weight": 200.0, "coding_rate_weight": 1.0, "distortion": 0.2}),
    # Scaled as the public code was when this was written, January 2024: "pairs", of today, is 200 times as much here.
    "emp_frossl": ("EMP-FroSSL", _BN, {"invariance_weight": 1.0, "view_scaling": "mean", "centre": True}),
}  # fmt: skip

# data set: (how it is written, its view recipes begin with, what is the same for all methods)
_DATA: dict[str, tuple[str, str, dict[str, Any]]] = {
    "cifar10": ("CIFAR-10", "cifar", {"stem": "cifar", "batch": 256, "length": "1000ep"}),
    "cifar100": ("CIFAR-100", "cifar", {"stem": "cifar", "batch": 256, "length": "1000ep"}),
    "stl10": ("STL-10", "stl10", {"stem": "imagenet", "batch": 256, "length": "500ep"}),
    "tiny-imagenet": ("Tiny ImageNet", "tiny", {"stem": "imagenet", "batch": 512, "length": "800ep"}),
    "imagenet100": ("ImageNet-100", "imagenet", {"stem": "imagenet", "batch": 256, "length": "400ep", "size": 224}),
}

# Top-1 accuracy of linear probes in per cent; the recipe's name without "paper-".
_PUBLISHED = {
    "cifar10-frossl": 92.8,
    "stl10-frossl": 87.3,
    "stl10-frossl-8views": 90.9,
    "stl10-mmcr": 84.3,
    "stl10-corinfomax": 83.1,
    "stl10-barlow": 85.0,
    "stl10-vicreg": 85.9,
    "stl10-simclr": 85.9,
    "stl10-byol": 88.7,
    "stl10-simsiam": 88.5,
    "stl10-mocov2plus": 83.2,
    "stl10-swav": 82.6,
    "stl10-dino": 78.9,
    "stl10-wmse": 72.4,
}

_CORRECTED_VIEWS = {
    "cifar-symmetric": "random crop on",
    "stl10-symmetric": "2 views, not 8",
    "imagenet-wmse-large": "no small views, which its loss never sees",
}


@dataclass(frozen=True)
class Cell:
    """One method on one data set: what differs from the rest of its row and column."""

    method: str
    hidden: int
    width: int
    lr: float
    weight_decay: float
    views: str
    """name of the view recipe after that of the data"""
    objective: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    note: str = ""
    corrected: str = ""
    """what is wrong in the public file and right here"""


_FULL = {"precision": "32"}
_SGD, _ADAM = {"optimizer": "sgd"}, {"optimizer": "adam"}
_SLOW_LARS = {"optimizer": "lars-original"}  # their files give LARS none of the options that all others give it
_EMP = {"length": "30ep", "warmup": "0ep", "batch_norm": "joint", **_FULL}
_MOVING = "momentum below 1, so that the averaged network moves"
_OWN_TEST = "held-out images its own, not ImageNet-100's"

# fmt: off
_CIFAR = [
    Cell("frossl",     2048, 1024, 0.3,  1e-4, "symmetric", {}, _FULL, note="the paper's text has weight decay 1e-6"),
    Cell("mmcr",       2048, 512,  0.3,  1e-4, "symmetric-weak"),
    Cell("ivne",       2048, 1024, 0.3,  1e-4, "symmetric"),
    Cell("barlow",     2048, 2048, 0.3,  1e-4, "asymmetric"),
    Cell("vicreg",     2048, 2048, 0.3,  1e-4, "vicreg", corrected=_OWN_TEST),
    Cell("simclr",     2048, 128,  0.3,  1e-4, "symmetric", {"temperature": 0.3}),
    Cell("byol",       4096, 256,  1.0,  1e-5, "asymmetric"),
    Cell("simsiam",    2048, 2048, 0.5,  1e-5, "symmetric-weak", {}, _SGD, corrected=_OWN_TEST),
    Cell("mocov2plus", 2048, 256,  0.3,  1e-4, "symmetric-weak", {}, _SGD),
    Cell("swav",       2048, 128,  0.6,  1e-6, "symmetric", corrected=_OWN_TEST),
    Cell("dino",       2048, 256,  0.3,  1e-6, "asymmetric"),
    Cell("wmse",       1024, 64,   2e-3, 1e-6, "wmse", {"size": 128, "iterations": 1}, _ADAM, corrected=_OWN_TEST),
    Cell("empssl",     4096, 512,  0.3,  1e-4, "emp", {}, {"batch": 100, **_EMP}),
    Cell("emp_frossl", 4096, 512,  0.3,  1e-4, "emp", {}, {"batch": 100, **_EMP}),
]
TABLE: dict[str, list[Cell]] = {
    "cifar10": [
        *_CIFAR,
        Cell("corinfomax", 2048, 64, 0.3, 1e-4, "asymmetric", {"invariance_weight": 250.0}, _FULL),
    ],
    "cifar100": [
        *_CIFAR,
        Cell("corinfomax", 4096, 128, 0.3, 1e-4, "asymmetric", {"invariance_weight": 1000.0}, _FULL),
    ],
    "stl10": [
        Cell("frossl",     2048, 1024, 0.1, 1e-4, "symmetric-weak", {"invariance_weight": 1.4},
             note="80 % at epoch 290"),
        Cell("frossl",     2048, 1024, 0.1, 1e-4, "symmetric-weak", {"invariance_weight": 2.0, "view_scaling": "mean"},
             {"views": 8}, "8views", note="80 % at epoch 51; scaled as the code was then"),
        Cell("mmcr",       2048, 512,  0.3, 1e-4, "symmetric"),
        Cell("ivne",       2048, 1024, 0.3, 1e-4, "symmetric-weak"),
        Cell("corinfomax", 4096, 256,  0.5, 1e-4, "symmetric", {}, _FULL),
        Cell("barlow",     2048, 2048, 0.3, 1e-4, "symmetric"),
        Cell("vicreg",     2048, 1024, 0.3, 1e-4, "symmetric", {}, _FULL),
        Cell("simclr",     2048, 512,  0.3, 1e-4, "symmetric", {"temperature": 0.5}),
        Cell("byol",       4096, 256,  1.0, 1e-5, "symmetric", {}, _FULL),
        Cell("simsiam",    2048, 2048, 0.5, 1e-5, "symmetric-weak", {}, _SGD),
        Cell("mocov2plus", 2048, 256,  0.3, 1e-4, "symmetric-weak", {}, _SLOW_LARS, corrected=_MOVING),
        Cell("swav",       2048, 128,  0.6, 1e-6, "symmetric"),
        Cell("dino",       2048, 256,  0.3, 1e-6, "asymmetric", corrected="images its own, not CIFAR-10's"),
        Cell("wmse",       1024, 128,  0.1, 1e-4, "symmetric", {"size": 256, "iterations": 4},
             {"warmup": "0ep", **_SLOW_LARS, **_FULL}),
        Cell("empssl",     4096, 512,  0.3, 1e-4, "emp", {}, {"size": 64, **_EMP}),
    ],
    "tiny-imagenet": [
        Cell("frossl",     2048, 1024, 0.3, 1e-4, "asymmetric"),
        Cell("mmcr",       2048, 1024, 0.3, 1e-4, "asymmetric"),
        Cell("ivne",       2048, 1024, 0.3, 1e-4, "asymmetric"),
        Cell("corinfomax", 2048, 64,   0.5, 1e-4, "asymmetric"),
        Cell("barlow",     2048, 2048, 0.3, 1e-4, "asymmetric", {"scale": 0.005}),
        Cell("vicreg",     2048, 1024, 0.3, 1e-4, "asymmetric"),
        Cell("simclr",     4096, 512,  0.3, 1e-4, "asymmetric", {"temperature": 0.5}),
        Cell("byol",       4096, 256,  1.0, 1e-5, "asymmetric"),
        Cell("simsiam",    2048, 2048, 0.5, 1e-5, "asymmetric", {}, _SGD),
        Cell("mocov2plus", 2048, 256,  0.3, 1e-4, "asymmetric", {}, _SLOW_LARS, corrected=_MOVING),
        Cell("swav",       2048, 128,  0.6, 1e-6, "asymmetric"),
        Cell("dino",       2048, 256,  0.3, 1e-6, "asymmetric"),
        Cell("wmse",       1024, 128,  0.1, 1e-4, "asymmetric", {"size": 256, "iterations": 4},
             {"warmup": "0ep", **_SLOW_LARS}),
    ],
    "imagenet100": [
        Cell("frossl",     2048, 1024, 0.3,  1e-4, "symmetric", note="79.8 % is cited for it, likely with 8 views"),
        Cell("mmcr",       2048, 512,  0.3,  1e-4, "symmetric"),
        Cell("ivne",       2048, 1024, 0.3,  1e-4, "symmetric"),
        Cell("corinfomax", 4096, 256,  0.5,  1e-4, "symmetric"),
        Cell("barlow",     2048, 2048, 0.3,  1e-4, "asymmetric"),
        Cell("vicreg",     2048, 2048, 0.3,  1e-4, "vicreg"),
        Cell("simclr",     4096, 512,  0.3,  1e-4, "symmetric", {"temperature": 0.2}),
        Cell("byol",       4096, 256,  0.5,  1e-6, "asymmetric", {"predictor_width": 8192}),
        Cell("simsiam",    2048, 2048, 0.5,  1e-5, "asymmetric", {}, _SGD),
        Cell("mocov2plus", 2048, 256,  0.3,  1e-4, "symmetric-weak", {"queue": 65536}, _SGD),
        Cell("swav",       2048, 128,  0.6,  1e-6, "symmetric"),
        Cell("dino",       2048, 256,  0.3,  1e-6, "asymmetric", {"teacher_warmup": 50.0}),
        Cell("wmse",       1024, 64,   2e-3, 1e-6, "wmse-large", {"size": 128, "iterations": 1}, _ADAM),
    ],
}
# fmt: on


def _add(data: str, cell: Cell) -> None:
    title, head, shared = _METHODS[cell.method]
    place, prefix, everywhere = _DATA[data]
    name = "-".join(filter(None, (data, cell.method, cell.variant)))
    views = f"{prefix}-{cell.views}"
    projector = head.format(cell.hidden, cell.width)
    training: dict[str, Any] = {"optimizer": "lars", "warmup": "10ep", "batch_norm": "per_view"}
    config = Config(
        data=data,
        method=cell.method,
        objective=METHODS[cell.method].Config(projector=projector, **shared | cell.objective),
        recipe=f"paper-{name}",
        view_recipe=views,
        lr=cell.lr,
        weight_decay=cell.weight_decay,
        **training | everywhere | cell.training,
    )
    corrected = ", ".join(filter(None, (_CORRECTED_VIEWS.get(views), cell.corrected)))
    facts = (
        f"{title} on {place}, {config.length.removesuffix('ep')} epochs",
        f"published {_PUBLISHED[name]} %" if name in _PUBLISHED else "",
        cell.note,
        f"corrected: {corrected}" if corrected else "",
    )
    add_recipe(config, f"{'; '.join(filter(None, facts))}.")


for _data, _cells in TABLE.items():
    for _cell in _cells:
        _add(_data, _cell)
