"""Telemetry of the features that training makes, at steps that are known in advance.

It does not change the run: it draws no random number, moves no statistic of a batch norm, and waits for the device at
those steps only. :mod:`frossl.train.probe` measures held-out images.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from frossl.core.axes import fold
from frossl.data.loader import epoch_order, views_of
from frossl.data.types import Dataset
from frossl.evals.spectral import Moments
from frossl.evals.verdict import COLLAPSES
from frossl.methods import Method
from frossl.nn.modes import eval_mode
from frossl.report.pictures import shown
from frossl.train.batch_statistics import batch_statistics, leading, spectrum_of
from frossl.train.health import Context, diagnose
from frossl.train.plan import Plan
from frossl.train.step import read
from frossl.views.recipes import Recipe

STEPS = 12
"""Most steps whose features go into the moments of one spectrum."""
SAMPLES, KEPT = 1024, 4
"""Most samples (views counted) and steps kept for figures that need more than moments."""
WIDEST = 2048
"""Widest features whose moments are taken; the spectrum of wider ones is of the kept samples."""
HELD_OUT_PER_INTERVAL = 5
"""Most spectra of held-out images per interval between spectra."""
TRACKED = 14
"""Eigenvalues that are tracked step by step (arXiv 2310.02903, the figure of eigenvalue dynamics)."""
CLEAR_ROWS = 3
"""Diagnostics in a row without a finding after which it is over."""
Row = tuple[str, dict[str, Any]]


class Telemetry:
    """Rows of features h and embeddings z: ``spectrum``, ``diagnostics``, ``health``, ``eigenvalues``.

    ``every``: steps between spectra; before that they are taken at steps 1, 2, 5, 10, 20, 50 and so on. Diagnostics
    are taken 25 times as often up to step ``every`` and 5 times as often later. 0 turns both off. Eigenvalues are
    followed step by step for the first ``track`` steps.
    """

    def __init__(self, method: Method, context: Context, every: int, track: int = 0) -> None:
        self.method, self.context, self.every, self.track = method, context, every, track
        self.moments: dict[str, Moments] = {}
        self.kept: dict[str, list[Tensor]] = {}
        self.monitored = 0
        self.rows: list[Row] = []
        self.diagnostics: list[dict[str, Any]] = []
        self.standing: set[str] = set()

    @torch.no_grad()
    def observe(self, step: int, h_VNF: Tensor, values: dict[str, Tensor]) -> None:
        """Reads the features of ``step`` (from 1), before the update; ``values`` are its loss, terms and norm."""
        due, spacing, count = self.next_spectrum(step)
        gathered = due - step in range(0, count * spacing, spacing)
        diagnostics, tracked = self.diagnostics_due(step), step <= self.track
        if not (diagnostics or tracked or gathered):
            return
        features = self.features(h_VNF)
        if tracked:
            self.rows += [("eigenvalues", {"where": k, **leading(x, TRACKED)}) for k, x in features.items()]
        if diagnostics:
            row = read(values)
            if not math.isfinite(row.get("grad_norm", 0.0)):  # the step is skipped
                del row["grad_norm"]
            row |= {f"{k}_{name}": v for k, x in features.items() for name, v in batch_statistics(x).items()}
            self.rows.append(("diagnostics", row))
            self.judge({"step": step} | row)
        if gathered:
            for name, x in features.items():
                self.gather(name, x)
        if step == due:
            for name, parts in self.kept.items():
                self.spectrum(name, "views", torch.cat(parts, dim=1), self.moments.get(name))
            self.moments, self.kept = {}, {}

    def gather(self, name: str, x_VNF: Tensor) -> None:
        """Adds the features of one step, of all ranks, to the moments; keeps some of this rank's own of the last."""
        some = x_VNF[:, : max(2, SAMPLES // KEPT // len(x_VNF))].clone()
        self.kept[name] = [*self.kept.get(name, []), some][-KEPT:]
        if x_VNF.shape[2] <= WIDEST:
            part = Moments.of(fold(x_VNF)).over_ranks()
            self.moments[name] = self.moments[name] + part if name in self.moments else part

    @torch.no_grad()
    def held_out(self, step: int, h_NF: Tensor, last: bool) -> None:
        """Adds spectra of held-out images after ``step``, unless one was taken shortly before and it is not the last.

        The heads make embeddings in eval mode.
        """
        spacing = self.every // HELD_OUT_PER_INTERVAL
        if not self.every or (self.monitored and not last and step - self.monitored < spacing):
            return
        self.monitored = step
        with eval_mode(self.method):
            for name, x_VNF in self.features(h_NF[None].to(_device(self.method))).items():
                self.spectrum(name, "held_out", x_VNF)

    def features(self, h_VNF: Tensor) -> dict[str, Tensor]:
        """Features and embeddings by name, detached, on a device with float64."""
        h_VNF = h_VNF.detach()
        both = {"backbone": h_VNF, "projector": self.method.embed(h_VNF)}
        return {k: x.to(_exact(x.device)) for k, x in both.items() if x is not None}

    def spectrum(self, where: str, on: str, x_VNF: Tensor, moments: Moments | None = None) -> None:
        """Adds the row of one spectrum, of the samples alone if the moments are of no more."""
        more = moments is not None and moments.count > x_VNF.shape[0] * x_VNF.shape[1]
        self.rows.append(("spectrum", {"where": where, "on": on, **spectrum_of(x_VNF, moments if more else None)}))

    def judge(self, diagnostics: dict[str, Any]) -> None:
        """Adds a row for each new finding, and for each that was absent from :data:`CLEAR_ROWS` diagnostics."""
        self.diagnostics.append(diagnostics)
        recent = [diagnose(self.diagnostics[: len(self.diagnostics) - i], self.context) for i in range(CLEAR_ROWS)]
        self.rows += [("health", f.row()) for f in recent[0] if f.state not in self.standing]
        over = self.standing - {f.state for found in recent for f in found}
        for state in sorted(over):
            instead = [f.state for f in recent[0] if {f.state, state} <= COLLAPSES]
            now = {"now": instead[0]} if instead else {}
            self.rows.append(("health", {"state": state, "over": True, **now}))
        self.standing = self.standing - over | {f.state for f in recent[0]}

    def drain(self) -> list[Row]:
        """The rows since the last call."""
        rows, self.rows = self.rows, []
        return rows

    def diagnostics_due(self, step: int) -> bool:
        spacing = max(1, self.every // (25 if step <= self.every else 5))
        return self.every > 0 and (step == 1 or step % spacing == 0)

    def next_spectrum(self, step: int) -> tuple[int, int, int]:
        """The step of the next spectrum, ``step`` or later; the spacing and number of steps that go into it."""
        if not self.every:
            return -1, 1, 0
        early = [n for e in range(9) for n in (10**e, 2 * 10**e, 5 * 10**e) if step <= n < self.every]
        due = min([*early, -(-step // self.every) * self.every])
        window = max(1, min(due, self.every) // 10)
        spacing = -(-window // STEPS)
        return due, spacing, window // spacing

    def state_dict(self) -> dict[str, Any]:
        """Moments and samples that have not become rows yet."""
        return {"moments": {name: vars(m) for name, m in self.moments.items()}, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = _exact(_device(self.method))
        self.moments = {name: Moments(**m).to(device) for name, m in state["moments"].items()}
        self.kept = {name: [x.to(device) for x in parts] for name, parts in state["kept"].items()}

    def read_log(self, history: list[dict[str, Any]]) -> None:
        """Goes on from the rows of the log of a run that is resumed."""
        self.diagnostics = [row for row in history if row["kind"] == "diagnostics"]
        for row in history:
            if row["kind"] == "health":
                (self.standing.discard if row.get("over") else self.standing.add)(row["state"])
            if row.get("on") == "held_out":
                self.monitored = row["step"]


def picture_of_views(data: Dataset, recipe: Recipe, seed: int) -> Tensor:
    """The views that a run makes of its first image side by side, uint8 ``(3, H, W)``."""
    from torchvision.utils import make_grid

    first = epoch_order(len(data.train), seed, 0)[:1]
    groups = views_of(data.train, recipe, first, [0.0] * data.channels, [1.0] * data.channels, seed=seed)
    side = max(x.shape[-1] for x in groups)
    views = [pad(shown(v), (0, side - v.shape[-1], 0, side - v.shape[-2])) for x in groups for v in x[:, 0]]
    return make_grid(views, nrow=8).mul(255).round().clamp(0, 255).byte()


def context_of(plan: Plan) -> Context:
    """The context of a run for the rules of :mod:`frossl.train.health`."""
    first = "the start" if plan.config.init else "the untrained encoder"
    return Context(plan.config.method, plan.batch, getattr(plan.config.objective, "prototypes", 0), first)


def _device(method: Method) -> torch.device:
    return next((p.device for p in method.parameters()), torch.device("cpu"))


def _exact(device: torch.device) -> torch.device:
    """``device``, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
