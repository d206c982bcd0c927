"""Recipes for two processor cores and a few minutes."""

from __future__ import annotations

from frossl.methods.frossl import FroSSL
from frossl.recipes import RECIPES
from frossl.train.config import Config
from frossl.views.recipes import VIEWS, View

VIEWS.add(
    "fashion",
    (View(size=28, scale=(0.5, 1.0), brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0, grayscale=0.0),),
)


@RECIPES.register("fashion-mnist-cpu")
def fashion_mnist() -> Config:
    """frossl pretrain --recipe fashion-mnist-cpu: 5 minutes."""
    return Config(
        data="fashion-mnist",
        recipe="fashion-mnist-cpu",
        objective=FroSSL.Config(projector="1024-bn-relu-1024", invariance_weight=0.5),
        backbone_options='{"channels": [32, 64, 128, 256]}',
        view_recipe="fashion",
        length="5min",
        batch=128,
        lr=2e-3,
    )
