"""Recipes for two processor cores and a few minutes."""

from __future__ import annotations

from frossl.methods.frossl import FroSSL
from frossl.recipes import RECIPES
from frossl.train.config import Config
from frossl.views.recipes import VIEWS, View

VIEWS.add(
    "fashion",
    (
        View(
            size=28,
            scale=(0.5, 1.0),
            brightness=0.8,
            contrast=0.8,
            saturation=0.0,
            hue=0.0,
            grayscale=0.0,
            blur=0.5,
            solarize=0.2,
        ),
    ),
)


@RECIPES.register("fashion-mnist-cpu")
def fashion_mnist() -> Config:
    """frossl pretrain --recipe fashion-mnist-cpu: 5 minutes."""
    return Config(
        data="fashion-mnist",
        recipe="fashion-mnist-cpu",
        objective=FroSSL.Config(projector="1024-bn-relu-1024", invariance_weight=0.5),
        backbone_options='{"channels": [32, 64, 128, 256], "layers": [1, 1, 1, 1]}',
        view_recipe="fashion",
        length="5min",
        batch=128,
        lr=4e-3,
    )


VIEWS.add(
    "cifar-cpu",
    (View(size=32, scale=(0.25, 1.0), brightness=0.6, contrast=0.6, saturation=0.4, hue=0.15),),
)


@RECIPES.register("cifar10-cpu")
def cifar10() -> Config:
    """frossl pretrain --recipe cifar10-cpu: 10 minutes."""
    return Config(
        data="cifar10",
        recipe="cifar10-cpu",
        objective=FroSSL.Config(projector="1024-bn-relu-1024", invariance_weight=0.5),
        backbone_options='{"channels": [32, 64, 128, 256], "layers": [1, 1, 1, 1]}',
        view_recipe="cifar-cpu",
        length="10min",
        batch=128,
        lr=4e-3,
    )
