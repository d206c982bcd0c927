"""Values and gradients of the objectives beside lightly's losses of the same name.

    python benchmarks/agreement.py [--threads 2] > docs/results/agreement.md

Options are set so that both compute the same thing, which the table says; what cannot be set, or is not the default on
one side, is in the second table. Both get the same related views, in float64 and float32. Ends with code 1 if a pair
that should agree differs by more than 1e-4.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightly.loss as theirs
import torch
from lightly.loss.lejepa_loss import LeJEPALoss
from torch import Tensor
from torch.nn.functional import normalize

import frossl.losses
from common import Row, environment, heading, parse_arguments, table, write_rows
from frossl.core.types import Loss
from frossl.losses import LOSSES
from frossl.losses.barlow_twins import barlow_twins
from frossl.losses.byol import byol
from frossl.losses.dcl import dcl
from frossl.losses.dino import dino
from frossl.losses.empssl import empssl
from frossl.losses.mmcr import mmcr
from frossl.losses.moco import moco
from frossl.losses.ntxent import ntxent
from frossl.losses.sigreg import sigreg
from frossl.losses.simsiam import simsiam
from frossl.losses.swav import sinkhorn, swav
from frossl.losses.vicreg import vicreg
from frossl.losses.wmse import wmse
from frossl.runs.log import read_rows

LIMIT = 1e-4
SEED = 0
TWO = [(2, 128, 64), (2, 64, 128)]
MANY = [*TWO, (4, 64, 128)]


@dataclass(frozen=True)
class Pair:
    """Ours and lightly's as functions of views ``(V, N, D)``, and what was set so that they are the same."""

    loss: str
    lightly: str
    setting: str
    shapes: list[tuple[int, int, int]]
    ours: Callable[[Tensor], Loss]
    theirs: Callable[[Tensor], Tensor]


def noise(*shape: int, seed: int = SEED + 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(shape: tuple[int, int, int]) -> Tensor:
    """Related views: what they share, and as much noise, off centre."""
    return noise(*shape[1:], seed=SEED) + noise(*shape) + 0.3


def cosine(z: Tensor) -> Tensor:
    """The symmetrised negative cosine of view 0, as the prediction, with view 1, and the other way round."""
    criterion = theirs.NegativeCosineSimilarity()
    target = targets_like(z)
    return (criterion(z[0], target[1]) + criterion(z[1], target[0])) / 2


def targets_like(z: Tensor, count: int | None = None) -> Tensor:
    """Stopped targets for the first ``count`` views."""
    return (z.detach() + 0.5 * noise(*z.shape, seed=SEED + 2).to(z))[:count]


def prototypes_scores(z: Tensor) -> Tensor:
    return normalize(z, dim=-1)


def swav_ours(z: Tensor) -> Loss:
    scores = prototypes_scores(z)
    return swav(scores, sinkhorn(scores.detach()[:2]))


def swav_theirs(z: Tensor) -> Tensor:
    scores = list(prototypes_scores(z))
    return theirs.SwaVLoss()(scores[:2], scores[2:]).squeeze()


def dino_centre(z: Tensor) -> Tensor:
    return 0.1 * noise(z.shape[2], seed=SEED + 3).to(z)


def dino_theirs(z: Tensor) -> Tensor:
    criterion = theirs.DINOLoss(z.shape[2])
    criterion.center = dino_centre(z)[None, None]
    return criterion(list(targets_like(z, 2)), list(z))


def moco_queue(z: Tensor) -> Tensor:
    return normalize(noise(512, z.shape[2], seed=SEED + 4), dim=1).to(z)


def moco_theirs(z: Tensor) -> Tensor:
    """View 1 asks for the key of view 0; one direction, one queue."""
    criterion = theirs.NTXentLoss(temperature=0.2, memory_bank_size=(512, z.shape[2]))
    criterion.memory_bank.bank = moco_queue(z)
    return criterion(z[1], targets_like(z)[0])


def mmcr_theirs(z: Tensor) -> Tensor:
    unit = normalize(z, dim=2).transpose(0, 1)
    half = len(z) // 2
    return theirs.MMCRLoss(lmda=0.0)(unit[:, :half], unit[:, half:])


def wmse_orders(z: Tensor) -> Tensor:
    torch.manual_seed(SEED)
    return torch.stack([torch.randperm(z.shape[1]) for _ in range(2)])


def wmse_theirs(z: Tensor) -> Tensor:
    torch.manual_seed(SEED)
    criterion = theirs.WMSELoss(z.shape[2], w_iter=2, w_size=64, num_samples=len(z), track_running_stats=False)
    return criterion(z.flatten(0, 1))


def lejepa_ours(z: Tensor) -> Loss:
    torch.manual_seed(SEED)
    directions = torch.randn(z.shape[2], 256, dtype=z.dtype)
    return sigreg(z, directions, weight=0.05, large=len(z) // 2)


def lejepa_theirs(z: Tensor) -> Tensor:
    torch.manual_seed(SEED)
    criterion = LeJEPALoss(lambda_param=0.05, sigreg_num_vectors=256)
    return criterion(global_proj=z[: len(z) // 2], local_proj=z[len(z) // 2 :])


def frossl_ours(z: Tensor) -> Loss:
    return frossl.losses.frossl(z, invariance_weight=1.4 * len(z), view_scaling="mean", centre=False)


PAIRS = [
    Pair(
        "frossl", "FroSSLLoss", "not centred; `mean` with V times the weight",
        MANY, frossl_ours, lambda z: theirs.FroSSLLoss(1.4)(list(z)),
    ),
    Pair(
        "ntxent", "NTXentLoss", "same temperature",
        TWO, lambda z: ntxent(z, temperature=0.1), lambda z: theirs.NTXentLoss(0.1)(z[0], z[1]),
    ),
    Pair(
        "moco", "NTXentLoss with memory bank", "same queue; one direction",
        TWO, lambda z: moco(z, targets_like(z, 1), moco_queue(z)[None]), moco_theirs,
    ),
    Pair("dcl", "DCLLoss", "same temperature", TWO, dcl, lambda z: theirs.DCLLoss(0.1)(z[0], z[1])),
    Pair(
        "byol", "NegativeCosineSimilarity", "4 + 4 times the mean of both directions",
        TWO, lambda z: byol(z, targets_like(z)), lambda z: 4 + 4 * cosine(z),
    ),
    Pair(
        "simsiam", "NegativeCosineSimilarity", "the mean of both directions",
        TWO, lambda z: simsiam(z, targets_like(z)), cosine,
    ),
    Pair(
        "swav", "SwaVLoss", "2 views assigned, all V predicted; Sinkhorn included, no queue",
        MANY, swav_ours, swav_theirs,
    ),
    Pair(
        "dino", "DINOLoss", "2 teacher views, all V of the student; same centre, teacher temperature 0.04",
        MANY, lambda z: dino(z, targets_like(z, 2), dino_centre(z)), dino_theirs,
    ),
    Pair(
        "barlow_twins", "BarlowTwinsLoss", "scale 1 and lambda 0.005, the defaults of both",
        TWO, barlow_twins, lambda z: theirs.BarlowTwinsLoss()(z[0], z[1]),
    ),
    Pair(
        "vicreg", "VICRegLoss", "variance weight 12.5 for their 25",
        TWO, lambda z: vicreg(z, variance_weight=12.5), lambda z: theirs.VICRegLoss()(z[0], z[1]),
    ),
    Pair(
        "wmse", "WMSELoss", "same permutations: 2, sub-batches of 64, D = 32",
        [(2, 128, 32), (4, 128, 32)], lambda z: wmse(z, size=64, permutations=wmse_orders(z)), wmse_theirs,
    ),
    Pair(
        "mmcr", "MMCRLoss", "unit rows given to theirs, its lambda 0",
        MANY, mmcr, mmcr_theirs,
    ),
    Pair(
        "empssl", "EMPSSLLoss", "unit rows given to theirs, coding rate weight -1 for its +",
        MANY, lambda z: empssl(z, coding_rate_weight=-1.0), lambda z: theirs.EMPSSLLoss()(list(normalize(z, dim=2))),
    ),
    Pair(
        "sigreg", "LeJEPALoss", "same directions, weight 0.05; half of the views are large",
        MANY, lejepa_ours, lejepa_theirs,
    ),
]  # fmt: skip

DIFFERENT = [
    ("frossl", "ours centres by default, theirs cannot; theirs multiplies the weight by V, ours by V / (V - 1)"),
    ("ntxent, dcl, barlow_twins, vicreg", "theirs take two views"),
    ("moco", "theirs is one direction with one queue; ours takes the mean of both directions, a queue each"),
    ("byol", "theirs leaves the constant, the factor and the second direction to the caller"),
    ("vicreg", "theirs halves the variance term, as the paper's code does; ours is the paper's formula"),
    ("mmcr", "theirs adds 0.005 times the nuclear norms within images; ours has none, and makes the rows unit length"),
    ("empssl", "theirs adds the coding rate where the paper and its code subtract it: minimising it rewards collapse"),
    ("sigreg", "default weights: 0.05 in theirs, 0.02 in ours"),
    ("wmse", "theirs draws its permutations and needs sub-batches of at least 2 D that divide the batch"),
    ("supcon, corinfomax, ivne, cross_entropy", "lightly has none"),
]


def value_and_gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().requires_grad_()
    value = function(z)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach().double(), gradient.double()


def differences(pair: Pair, z: Tensor) -> tuple[float, float]:
    """Of the value, relative to the sizes of its terms, and of the gradient, relative to its norm."""
    value, gradient = value_and_gradient(lambda x: pair.ours(x).total, z)
    their_value, their_gradient = value_and_gradient(pair.theirs, z)
    size = sum(abs(float(term)) for term in pair.ours(z).terms.values())
    return float((value - their_value).abs()) / size, float((gradient - their_gradient).norm() / their_gradient.norm())


def measured() -> list[Row]:
    """A row for each pair and shape."""
    rows = []
    for pair in PAIRS:
        for shape in pair.shapes:
            wide, narrow = differences(pair, views(shape)), differences(pair, views(shape).float())
            rows.append(
                {"loss": pair.loss, "lightly": pair.lightly, "shape": shape, "float64": wide, "float32": narrow}
            )
    return rows


def agrees(row: Row) -> bool:
    return max(*row["float64"], *row["float32"]) <= LIMIT


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    settings = {(pair.loss, pair.lightly): pair.setting for pair in PAIRS}
    lines = []
    for row in rows:
        numbers = [", ".join(f"{x:.0e}" for x in row[name]) for name in ("float64", "float32")]
        shown = [f"`{row['loss']}`", row["lightly"], settings[row["loss"], row["lightly"]]]
        lines.append([*shown, ", ".join(map(str, row["shape"])), *numbers, "yes" if agrees(row) else "**no**"])
    note = (
        "Relative differences of ours and lightly's on the same V views of N images in D dimensions (seed "
        f"{SEED}): of the value, to the sum of the sizes of its terms, and of the gradient, to its norm. They agree "
        f"if all four are at most {LIMIT:g}. DINO's float64 differs because lightly rounds the temperature to float32, "
        "LeJEPA's because it rounds its knots."
    )
    headings = ["loss", "lightly", "set so that they coincide", "V, N, D", "float64", "float32", "agree"]
    different = [(f"`{'`, `'.join(name.split(', '))}`", how) for name, how in DIFFERENT]
    return "\n\n".join(
        [
            heading("Agreement with lightly", "python benchmarks/agreement.py; --table", rows[-1]["environment"], note),
            table(headings, lines),
            "## Where defaults or definitions differ",
            table(["loss", "how"], different),
            f"Rows: `{out.name}`.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    args = parse_arguments(parser, "agreement.jsonl", threads=torch.get_num_threads())
    torch.set_num_threads(args.threads)
    named = {name for pair in PAIRS for name in [pair.loss]} | {n for names, _ in DIFFERENT for n in names.split(", ")}
    assert named >= set(LOSSES), f"say how these compare with lightly's: {', '.join(set(LOSSES) - named)}"
    if not args.table:
        write_rows(args.out, measured(), environment(args.threads, "lightly"))
    rows = read_rows(args.out)
    print(show(rows, args.out))
    if bad := [f"{row['loss']} {tuple(row['shape'])}" for row in rows if not agrees(row)]:
        sys.exit(f"differ by more than {LIMIT:g}: {'; '.join(bad)}")


if __name__ == "__main__":
    main()
