"""FroSSL as the paper's public configurations have it (arXiv 2310.02903), for one GPU; none was run to its end here.

Two views, the centred loss and batch norm view by view, which is what the published two-view runs used. Known slips
of the public files are put right: the random crop is on for CIFAR, and STL-10 has 2 views where its file asks for 8.
"""

from __future__ import annotations

from dataclasses import replace

from frossl.methods.frossl import FroSSL
from frossl.recipes import RECIPES
from frossl.train.config import Config

_PAPER = Config(
    data="cifar10",
    objective=FroSSL.Config(
        projector="2048-bn-relu-2048-bn-relu-1024", invariance_weight=1.0, view_scaling="pairs", centre=True
    ),
    views=2,
    batch=256,
    optimizer="lars",
    lr=0.3,
    weight_decay=1e-4,
    warmup="10ep",
    batch_norm="per_view",
)


@RECIPES.register("paper-cifar10")
def cifar10() -> Config:
    """CIFAR-10, 1000 epochs; published 92.8 % online linear. The paper's text has weight decay 1e-6, its file 1e-4."""
    return replace(
        _PAPER, recipe="paper-cifar10", stem="cifar", view_recipe="cifar-symmetric", length="1000ep", precision="32"
    )


@RECIPES.register("paper-cifar100")
def cifar100() -> Config:
    """CIFAR-100, 1000 epochs, as CIFAR-10."""
    return replace(cifar10(), data="cifar100", recipe="paper-cifar100")


@RECIPES.register("paper-stl10")
def stl10() -> Config:
    """STL-10 train + unlabeled, 500 epochs; published 87.3 % with 2 views, 80 % reached at epoch 290."""
    return replace(
        _PAPER,
        data="stl10",
        recipe="paper-stl10",
        objective=replace(_PAPER.objective, invariance_weight=1.4),
        stem="imagenet",
        view_recipe="stl10-symmetric-weak",
        lr=0.1,
        length="500ep",
    )


@RECIPES.register("paper-stl10-8views")
def stl10_8views() -> Config:
    """STL-10 with 8 views, 500 epochs; published 90.9 %, 80 % reached at epoch 51. Scaled as its code was then."""
    objective = replace(_PAPER.objective, invariance_weight=2.0, view_scaling="mean")
    return replace(stl10(), recipe="paper-stl10-8views", objective=objective, views=8)


@RECIPES.register("paper-tiny-imagenet")
def tiny_imagenet() -> Config:
    """Tiny ImageNet, 800 epochs, batch 512, asymmetric views."""
    return replace(
        _PAPER,
        data="tiny-imagenet",
        recipe="paper-tiny-imagenet",
        stem="imagenet",
        view_recipe="tiny-asymmetric",
        batch=512,
        length="800ep",
    )


@RECIPES.register("paper-imagenet100")
def imagenet100() -> Config:
    """ImageNet-100, 400 epochs; 79.8 % is cited for it, likely with 8 views."""
    return replace(
        _PAPER,
        data="imagenet100",
        recipe="paper-imagenet100",
        stem="imagenet",
        view_recipe="imagenet-symmetric",
        length="400ep",
    )
