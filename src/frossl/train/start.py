"""The encoder that training began with, as the trained one is compared with it while it trains."""

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
"""Share of the nearest held-out images that are still the same, and of the effective rank, below which features are
told to be far from the start where no label says whether that is worse. It need not be: encoders that gained much have
been so far (docs/encoders.md)."""
REMEDY = "Lower --lr, begin with --freeze 5%, or stay nearer to the start with --anchor 1 or --layer-decay 0.75."


def start_of_run(run: Path) -> nn.Module | None:
    """The encoder that ``run`` began with, from its own copy; None if weights were random."""
    path = run / START_FILE
    return load_encoder(path)[0] if path.exists() else None


class StartWatch:
    """Monitor figures of the start, and whether later ones are worse or, without labels, far from them.

    ``labels`` are those of the held-out images; ``history`` are rows of a log to go on from.
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
        said = [row for row in history if row["kind"] == "health" and row["state"] == self.state]
        self.standing = bool(said) and not said[-1].get("over", False)

    def compare(self, held_out_NF: Tensor) -> dict[str, float]:
        """What share of the nearest neighbours of held-out images are those that they had at the start."""
        now = nearest(held_out_NF)
        same = (now[:, :, None] == self.nearest[:, None, :]).any(2)
        return {"start_neighbours": same.double().mean().item()}

    def judge(self, values: Mapping[str, float]) -> dict[str, Any] | None:
        """The row of a finding that is new, or of one that is over."""
        words = self._worse(values)
        if bool(words) == self.standing:
            return None
        self.standing = bool(words)
        if not words:
            return {"state": self.state, "over": True}
        return Finding(self.state, words, REMEDY).row()

    def _worse(self, values: Mapping[str, float]) -> str:
        """What says that the encoder is worse than the start or far from it; nothing if it is not."""
        if self.score is not None and self.score in values:
            before, now = self.values[self.score], values[self.score]
            # The mean over classes of shares is as sure as the share of so many images.
            even = len(self.counts) ** 2 / (1 / self.counts).sum().item()
            images = round(even if self.score == "knn_balanced" else self.counts.sum().item())
            if clearly_more_right(now, before, images, 0.0) < 0:
                return f"kNN on held-out images is {now:.3f}, that of the encoder it began with {before:.3f}."
            return ""
        if "effective_rank" not in values:
            return "Features of held-out images are no finite numbers any more."
        kept, rank, before = (
            values["start_neighbours"],
            values["effective_rank"],
            self.values.get("effective_rank", 0.0),
        )
        untold = "No label says whether that is better or worse."
        if kept < KEPT_NEIGHBOURS:
            of = f"Of the {NEIGHBOURS} nearest neighbours of a held-out image {kept:.0%}"
            return f"{of} are those of the start. {untold}"
        if rank < KEPT_RANK * before:
            return f"The effective rank of held-out features is {rank:.1f}, at the start {before:.1f}. {untold}"
        return ""


def nearest(h_NF: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """``(N, count)`` indices of the images nearest to each, by cosine."""
    z = torch.nn.functional.normalize(h_NF.double(), dim=1)
    similar = z @ z.T
    similar.fill_diagonal_(-2)
    return similar.topk(min(count, len(z) - 1), dim=1).indices
