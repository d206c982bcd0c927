"""Comparison of the encoder with the one that training began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frossl.core.types import known
from frossl.evals.verdict import clearly_more_right
from frossl.nn.encoder import load_encoder
from frossl.runs.encoders import START_FILE
from frossl.train.health import Finding

BELOW_START, FAR_FROM_START = "Worse than the start", "Far from the start"
NEIGHBOURS = 10
KEPT_NEIGHBOURS, KEPT_RANK = 0.2, 0.5
"""Fractions of the nearest held-out images and of the effective rank at the start, below which features without labels
count as far from the start. They need not be worse: those of encoders that improved much were (docs/encoders.md)."""
REMEDY = "Lower --lr, begin with --freeze 5%, or stay nearer to the start with --anchor 1 or --layer-decay 0.75."


def start_of_run(run: Path) -> nn.Module | None:
    """The encoder that ``run`` began with, from its own copy; None if weights were random."""
    path = run / START_FILE
    return load_encoder(path)[0] if path.exists() else None


class StartWatch:
    """Monitor figures of the start; finds whether later ones are worse or, without labels, far from them.

    ``labels`` are those of the held-out images; ``history`` are rows of the log of a resumed run.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        held_out_NF: Tensor,
        labels: Tensor | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.values = dict(values)
        self.nearest = nearest(held_out_NF)
        self.counts = torch.zeros(0) if labels is None else labels[known(labels)].unique(return_counts=True)[1]
        self.score = next((name for name in ("knn_balanced", "knn") if name in values), None)
        self.state = BELOW_START if self.score else FAR_FROM_START
        found = [row for row in history if row["kind"] == "health" and row["state"] == self.state]
        self.standing = bool(found) and not found[-1].get("over", False)

    def compare(self, held_out_NF: Tensor) -> dict[str, float]:
        """The fraction of nearest neighbours of held-out images that are the same as at the start."""
        now = nearest(held_out_NF)
        same = (now[:, :, None] == self.nearest[:, None, :]).any(2)
        return {"start_neighbours": same.double().mean().item()}

    def judge(self, values: Mapping[str, float]) -> dict[str, Any] | None:
        """The row of a finding that is new, or of one that is over."""
        message = self._worse(values)
        if bool(message) == self.standing:
            return None
        self.standing = bool(message)
        return Finding(self.state, message, REMEDY).row() if message else {"state": self.state, "over": True}

    def _worse(self, values: Mapping[str, float]) -> str:
        """How the encoder is worse than the start or far from it; empty if it is not."""
        if self.score is not None and self.score in values:
            before, now = self.values[self.score], values[self.score]
            # The number of images with evenly many per class whose accuracy has the same standard error.
            even = len(self.counts) ** 2 / (1 / self.counts).sum().item()
            images = round(even if self.score == "knn_balanced" else self.counts.sum().item())
            if clearly_more_right(now, before, images, 0.0) < 0:
                return f"kNN on held-out images is {now:.3f}, that of the encoder it began with {before:.3f}."
            return ""
        if "effective_rank" not in values:
            return "Features of held-out images are no finite numbers any more."
        kept, rank = values["start_neighbours"], values["effective_rank"]
        before = self.values.get("effective_rank", 0.0)
        if kept < KEPT_NEIGHBOURS:
            change = f"Of the {NEIGHBOURS} nearest neighbours of a held-out image {kept:.0%} are those of the start."
        elif rank < KEPT_RANK * before:
            change = f"The effective rank of held-out features is {rank:.1f}, at the start {before:.1f}."
        else:
            return ""
        return f"{change} No label says whether that is better or worse."


def nearest(h_NF: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """``(N, count)`` indices of the images nearest to each, by cosine."""
    z = torch.nn.functional.normalize(h_NF.double(), dim=1)
    similar = z @ z.T
    similar.fill_diagonal_(-2)
    return similar.topk(min(count, len(z) - 1), dim=1).indices
