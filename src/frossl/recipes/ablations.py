"""Ablations of FroSSL on two cores: the CIFAR-10 recipe with one thing changed, at equal images; none was run here.

Compare each with ``ablation-none``, over several seeds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frossl.nn.mlp import output_width
from frossl.recipes import add_recipe
from frossl.recipes.cpu import cifar10

_BASE = replace(cifar10(), length="8ep")  # about the 10 minutes of the recipe
_WIDTH = output_width(512, _BASE.objective.projector)
_BATCH = _BASE.batch or 128
_WEIGHT = _BASE.objective.invariance_weight or 4 * _BATCH / _WIDTH

# name: (what it is, options of the objective, of the run)
_ABLATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "none": ("nothing changed", {}, {}),
    "log-off": ("squared Frobenius norm without the logarithm", {"log": False}, {}),
    "centre-off": ("columns not centred, as in the public multiview form", {"centre": False}, {}),
    # Rows of norm 1 make the invariance term N / D times as large as columns of norm 1 do.
    "normalise-sample": (
        "each sample divided by its norm, with the weight that keeps the balance of the terms",
        {"normalise": "sample", "invariance_weight": _WEIGHT * _WIDTH / _BATCH},
        {},
    ),
    "kernel-gaussian": ("Gaussian kernel, not the linear one", {"kernel": "gaussian"}, {}),
    "legacy": (
        "the published two-view form, invariance weight 1.4 and batch norm view by view",
        {"invariance_weight": 1.4, "view_scaling": "pairs", "centre": True},
        {"batch_norm": "per_view"},
    ),
    "4views": ("4 views, invariance weighed as with 2", {"view_scaling": "unbiased"}, {"views": 4}),
    "4views-pairs": ("4 views, invariance of all pairs", {"view_scaling": "pairs"}, {"views": 4}),
    "4views-mean": ("4 views, plain distance to the mean view", {"view_scaling": "mean"}, {"views": 4}),
}
_ABLATIONS |= {
    f"weight-{name}": (f"invariance weight {weight:g}, not {_WEIGHT:g}", {"invariance_weight": weight}, {})
    for name, weight in (
        ("quarter", _WEIGHT / 4),
        ("half", _WEIGHT / 2),
        ("double", _WEIGHT * 2),
        ("fourfold", _WEIGHT * 4),
    )
}
_ABLATIONS |= {
    f"width-{width}": (f"projector {width} wide, not {_WIDTH}", {"projector": f"{width}-bn-relu-{width}"}, {})
    for width in (128, 256, 512, 2048)
}

for _name, (_what, _objective, _run) in _ABLATIONS.items():
    add_recipe(
        replace(_BASE, recipe=f"ablation-{_name}", objective=replace(_BASE.objective, **_objective), **_run),
        f"FroSSL on CIFAR-10, two cores: {_what}.",
    )
