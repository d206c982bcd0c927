"""Ablations of FroSSL on two cores: the CIFAR-10 recipe with one thing changed, at equal images; none was run here.

Compare each with ``ablation-none``, over several seeds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frossl.recipes import add_recipe
from frossl.recipes.cpu import cifar10

_BASE = replace(cifar10(), length="8ep")  # about the 10 minutes of the recipe
_WEIGHT = 0.5  # what 4 N / D, the default, comes to at its batch of 128 and width of 1024

# name: (what it is, options of the objective, of the run)
_ABLATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "none": ("nothing changed", {}, {}),
    "log-off": ("squared Frobenius norm without the logarithm", {"log": False}, {}),
    "centre-off": ("columns not centred, as in the public multiview form", {"centre": False}, {}),
    # Rows of norm 1 make the invariance term N / D times as large as columns of norm 1 do.
    "normalise-sample": (
        "each sample divided by its norm, and the weight 4 that balances the terms as before",
        {"normalise": "sample", "invariance_weight": 4.0},
        {},
    ),
    "kernel-gaussian": ("Gaussian kernel of samples", {"kernel": "gaussian"}, {}),
    "legacy": (
        "the published two-view form: weight 1.4, batch norm view by view",
        {"invariance_weight": 1.4, "view_scaling": "pairs", "centre": True},
        {"batch_norm": "per_view"},
    ),
    "4views": ("4 views, invariance scaled to be the same per view for any number", {}, {"views": 4}),
    "4views-pairs": ("4 views, invariance of all pairs", {"view_scaling": "pairs"}, {"views": 4}),
    "4views-mean": ("4 views, invariance as the distance to the mean", {"view_scaling": "mean"}, {"views": 4}),
}
_ABLATIONS |= {
    f"weight-{weight:g}": (f"invariance weight {weight:g} instead of {_WEIGHT:g}", {"invariance_weight": weight}, {})
    for weight in (0.125, 0.25, 1.0, 2.0)
}
_ABLATIONS |= {
    f"width-{width}": (f"projector of {width} instead of 1024", {"projector": f"{width}-bn-relu-{width}"}, {})
    for width in (128, 256, 512, 2048)
}

for _name, (_what, _objective, _run) in _ABLATIONS.items():
    add_recipe(
        replace(_BASE, recipe=f"ablation-{_name}", objective=replace(_BASE.objective, **_objective), **_run),
        f"CIFAR-10 on two cores: {_what}.",
    )
