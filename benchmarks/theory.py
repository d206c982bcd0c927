"""The linear theory of docs/theory.md, run: simulations against differential equations, rest, duality.

    python benchmarks/theory.py > docs/results/theory.md

Takes about four minutes on one core and writes the figures beside the page.
"""

from __future__ import annotations

import argparse
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import environment, heading, table
from frossl.losses import frossl
from linear_theory import (
    Objective,
    barlow,
    correlation,
    descend,
    effective_rank,
    fewest_steps,
    flat_rotation,
    flow,
    plain_barlow,
    rate_error,
    spectrum,
    steady_shares,
    toy_views,
    whole_frossl,
)
from plot import BLUE, GREY, RED, Line, Panel, ramp, save_plot

MODES = 8
DATA = torch.logspace(0, -math.log10(64), MODES, dtype=torch.float64)
"""Eigenvalues of the toy data: each 0.55 times the one before, the last 1/64 of the first."""
SAME = torch.ones(MODES, dtype=torch.float64)
"""Agreement of equal views."""
START = 1e-3
"""Squared singular values of the map at the start."""
STARTS = (1.0, 1e-2, 1e-4, 1e-6)
PLAIN = "Barlow Twins, not normalised"
SIMULATED: dict[str, tuple[Objective, float, int]] = {
    PLAIN: (plain_barlow(), 1e-2, 12_000),
    "FroSSL": (whole_frossl(), 4e-6, 12_000),
    "Barlow Twins, as trained": (barlow(), 4e-7, 12_000),
}
"""Objectives with a learning rate small enough to follow the flow, and steps."""
LEAST = 1e-2
"""Smallest eigenvalue drawn, over the mean of the final ones."""
COLOURS = {PLAIN: GREY, "FroSSL": BLUE, "FroSSL, no logarithm": "#2b9348", "Barlow Twins, as trained": RED}
NOISY_MODES = 64
NOISY = {
    "FroSSL": whole_frossl(),
    "FroSSL, no logarithm": whole_frossl(log=False),
    "Barlow Twins, as trained": barlow(5e-3 * 1024 / NOISY_MODES),
}
"""As by default; Barlow Twins with the off-diagonal weight times width that it has at width 1024."""
AGREEMENTS = ((0.9, 0.25), (0.6, 0.5), (0.6, 1.0))
"""Correlation of the views along the first direction, and the power with which it falls."""
RECORDS = 4000
"""Times at which a simulation is looked at."""
PULLS = (1.0, 2.0, 4.0, 8.0)


def simulate() -> dict[str, dict[str, np.ndarray]]:
    """Eigenvalues over time per objective: simulated from an aligned and from a random start, and by the flow."""
    views = toy_views(DATA, SAME)
    aligned = flat_rotation(MODES) * math.sqrt(START)
    normal = torch.randn(MODES, MODES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = {}
    for name, (objective, rate, steps) in SIMULATED.items():
        every = steps // RECORDS
        times = np.arange(RECORDS + 1) * every * rate
        random = descend(objective, views, normal * math.sqrt(START / MODES), rate, steps, every)
        found[name] = {
            "times": times,
            "aligned": spectrum(descend(objective, views, aligned, rate, steps, every)),
            "finer": spectrum(descend(objective, views, aligned, rate / 2, 2 * steps, 2 * every)),
            "random": spectrum(random),
            "correlation": spectrum(correlation(random)),
            "flow": -np.sort(-flow(objective, DATA.numpy(), SAME.numpy(), START * DATA.numpy(), times)),
        }
    return found


@cache
def noisy_flow(first: float, power: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Time and effective rank where views of direction j correlate by ``first`` / j^power; default weights."""
    index = np.arange(1, NOISY_MODES + 1)
    data, agreement = 1.0 / index, first / index**power
    times = np.concatenate([[0], np.logspace(-5, 3, 200)])
    return {
        name: (times, effective_rank(flow(objective, data, agreement, data, times)))
        for name, objective in NOISY.items()
    }


@cache
def at_rest() -> dict[float, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Agreement, predicted and simulated shares for each of :data:`PULLS`."""
    agreement = np.linspace(0.95, 0.1, 16)
    views = toy_views(torch.ones(16, dtype=torch.float64), torch.from_numpy(agreement))
    found = {}
    for pull in PULLS:
        values = spectrum(descend(whole_frossl(pull), views, flat_rotation(16), 0.5, 4000, 4000)[-1])
        found[pull] = agreement, steady_shares(agreement, pull), values / values.sum()
    return found


def off_diagonal(c: Tensor) -> Tensor:
    """Sum of squares off the diagonal: of Z'Z the dimension-contrastive loss, of ZZ' the sample-contrastive one."""
    return (c * c).sum() - (c.diagonal() ** 2).sum()


def duality(z_ND: Tensor) -> dict[str, float]:
    """Errors of the identities of docs/theory.md on the embeddings ``z``, and how far it is from both forms at once."""
    n, d = z_ND.shape
    gram, moment = z_ND @ z_ND.T, z_ND.T @ z_ND
    square = (moment * moment).sum()
    spectra = [torch.linalg.eigvalsh(c).flip(0)[: min(n, d)] for c in (gram, moment)]
    column_fourths, row_fourths = ((z_ND**2).sum(axis).square().sum() for axis in (0, 1))
    columns, rows = (z_ND / z_ND.norm(dim=axis, keepdim=True) for axis in (0, 1))
    turn = torch.linalg.qr(torch.randn(d, d, dtype=z_ND.dtype, generator=torch.Generator().manual_seed(0))).Q

    def entropy(z: Tensor, **options: Any) -> Tensor:
        return frossl([z, z], invariance_weight=0.0, centre=False, **options).total / 2

    gradients = []
    for form in (lambda z: off_diagonal(z.T @ z), lambda z: off_diagonal(z @ z.T)):
        leaf = z_ND.clone().requires_grad_()
        gradients += torch.autograd.grad(form(leaf / leaf.norm(dim=0, keepdim=True)), leaf)
    by_columns, by_rows = entropy(z_ND), entropy(z_ND, normalise="sample")
    return {
        "norms": ((gram * gram).sum() / square - 1).abs().item(),
        "spectra": ((spectra[0] - spectra[1]).abs().max() / spectra[0][0]).item(),
        "sum": ((off_diagonal(moment) + column_fourths - off_diagonal(gram) - row_fourths) / square).abs().item(),
        "columns": (by_columns - ((off_diagonal(columns.T @ columns) + d) / d**2).log()).abs().item(),
        "rows": (by_rows - ((off_diagonal(rows @ rows.T) + n) / n**2).log()).abs().item(),
        "cosine": torch.nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0).item(),
        "turned": (entropy(z_ND @ turn) - by_columns).item(),
    }


def embeddings() -> dict[str, Tensor]:
    """What the duality is tried on."""
    generator = torch.Generator().manual_seed(0)

    def normal(n: int, d: int) -> Tensor:
        return torch.randn(n, d, dtype=torch.float64, generator=generator)

    decay = torch.arange(1, 257, dtype=torch.float64) ** -0.5
    turn = torch.linalg.qr(normal(256, 256)).Q
    return {
        "normal, 128 x 512": normal(128, 512),
        "normal, 512 x 128": normal(512, 128),
        "power law, 512 x 256": normal(512, 256) * decay @ turn,
        "the same, rows of uneven length": (normal(512, 256) * decay @ turn) * normal(512, 1).exp(),
    }


def draw(runs: dict[str, dict[str, np.ndarray]], directory: Path) -> None:
    """The three figures."""
    panels = []
    drawn = np.unique(np.geomspace(1, RECORDS, 160).astype(int))
    for start in ("aligned", "random"):
        for name, run in runs.items():
            normalised = start == "random" and name != PLAIN
            tracks = run["correlation" if normalised else start]
            final = tracks[-1].mean()
            lines = []
            for j in range(MODES):
                colour = ramp(j / (MODES - 1))
                label = f"{j + 1}" if j in (0, MODES - 1) else ""
                for values, at in ((tracks, drawn), (run["flow"], drawn[::6])):
                    if values is tracks or start == "aligned":
                        points = [(run["times"][i], y) for i in at if (y := values[i, j] / final) > LEAST]
                        lines.append(Line(label, points, colour, dots=values is not tracks))
                        label = ""
            title = f"{name}: {start} start"
            y = f"eigenvalue of the {'correlation' if normalised else 'covariance'}"
            panels.append(Panel(title, "time (learning rate x steps)", y, lines, limits=(LEAST, 30)))
    key = [(ramp(0), "largest eigenvalue"), (ramp(1), f"smallest, of {MODES}; dots: the equations")]
    save_plot(directory / "theory-eigenvalues.svg", panels, key, columns=3, size=(300, 260), right=30)

    def rank_of(name: str) -> list[tuple[float, float]]:
        run = runs[name]
        rank = effective_rank(run["aligned"])
        late = run["times"][np.nonzero(rank < 0.9 * MODES)[0][-1]]
        return [(run["times"][i] / late, rank[i]) for i in drawn if 1e-3 < run["times"][i] / late < 3]

    rank = [Line("", rank_of(name), COLOURS[name]) for name in SIMULATED]
    noisy = [
        Line("", list(zip(times[1:], rank[1:], strict=True)), COLOURS[name])
        for name, (times, rank) in noisy_flow(*AGREEMENTS[-1]).items()
    ]
    needed = [
        Line(
            "",
            [(start, steps) for start, steps in zip(STARTS, steps_needed(name), strict=True) if steps],
            COLOURS[name],
        )
        for name in SIMULATED
    ]
    save_plot(
        directory / "theory-rank.svg",
        [
            Panel("Equal views", "time / time to 90 % of it", "effective rank, of 8", rank, "x"),
            Panel("Equal views, best learning rate", "squared singular values at the start", "steps to 90 %", needed),
            Panel("Views that agree little", "time", f"effective rank, of {NOISY_MODES}", noisy, "x"),
        ],
        [(colour, name) for name, colour in COLOURS.items()],
        size=(300, 260),
        right=30,
    )
    rest = []
    for i, (pull, (agreement, predicted, simulated)) in enumerate(at_rest().items()):
        colour = ramp(i / (len(PULLS) - 1))
        rest.append(Line(f"w D / N = {pull:g}", list(zip(agreement[::-1], predicted[::-1], strict=True)), colour))
        rest.append(Line("", list(zip(agreement, simulated, strict=True)), colour, dots=True))
    panel = Panel("Where FroSSL rests", "correlation of the views", "share of the variance", rest, "")
    save_plot(directory / "theory-rest.svg", [panel], size=(420, 300))


@cache
def steps_needed(name: str) -> list[int | None]:
    """Steps of the best learning rate for each of :data:`STARTS`."""
    objective = SIMULATED[name][0]
    rates = np.logspace(-4, 1, 101)
    # Normalised objectives do not feel the scale of the map; their gradient is the larger the smaller it is.
    scales = [1.0 if name == PLAIN else start for start in STARTS]
    return [
        fewest_steps(objective, DATA.numpy(), start, rates * scale) for start, scale in zip(STARTS, scales, strict=True)
    ]


def show(runs: dict[str, dict[str, np.ndarray]]) -> str:
    """The page of results."""
    generator = torch.Generator().manual_seed(1)
    turns = [torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q for d in (8, 64, 512)]
    exact = {f"{name}": objective for name, (objective, _, _) in SIMULATED.items()}
    exact["Barlow Twins, as trained, off-diagonal 0.005"] = barlow(5e-3)
    rates = [
        [
            name,
            *(f"{rate_error(o, flat_rotation(d)):.0e}" for d in (8, 64)),
            *(f"{rate_error(o, t):.0e}" for t in turns),
        ]
        for name, o in exact.items()
    ]

    def deviation(run: dict[str, np.ndarray], kind: str) -> str:
        a, b = (run[k] / run[k].sum(1, keepdims=True) for k in (kind, "flow"))
        return f"{abs(a - b).max():.1e}"

    def arrivals(run: dict[str, np.ndarray]) -> list[str]:
        arrived = [run["times"][np.argmax(track >= track[-1] / 2)] for track in run["aligned"].T]
        return [f"{time / arrived[-1]:.2f}" for time in arrived]

    def ends(run: dict[str, np.ndarray], kind: str) -> str:
        first, last = (run[kind][i][0] / run[kind][i][-1] for i in (0, -1))
        return f"{first:.3g} to {last:.3g}"

    followed = [
        [name, f"{SIMULATED[name][1]:g}", f"{SIMULATED[name][2]:,}", deviation(run, "aligned"), deviation(run, "finer")]
        for name, run in runs.items()
    ]

    def journey(rank: np.ndarray) -> str:
        return f"{rank[0]:.1f}, {rank.min():.1f}, {rank[-1]:.1f}"

    rest = [
        [f"{pull:g}", f"{1 / (p * p).sum():.2f}", (p > 0).sum(), f"{abs(p - simulated).max():.0e}"]
        for pull, (_, p, simulated) in at_rest().items()
    ]
    dual = [
        [
            name,
            *(f"{value:.0e}" if k not in ("cosine", "turned") else f"{value:.3f}" for k, value in duality(z).items()),
        ]
        for name, z in embeddings().items()
    ]
    modes = [str(j + 1) for j in range(MODES)]
    parts = [
        heading(
            "The linear theory, run",
            "python benchmarks/theory.py",
            environment(torch.get_num_threads(), "scipy"),
            "docs/theory.md says what is shown. Float64; toy data, seeds 0 and 1.",
        ),
        "## The rates of the equations",
        "Largest error against the gradient of the loss, over the largest rate, at random eigenvalues and agreements.",
        table(["objective", "flat rotation, D = 8", "D = 64", "random rotation, D = 8", "D = 64", "D = 512"], rates),
        "## Simulation and flow",
        "Largest deviation of any eigenvalue, as a share of their sum, over the whole course.",
        table(["objective", "learning rate", "steps", "deviation", "at half the rate"], followed),
        "Largest over smallest eigenvalue at the start and at the end, from a random start:",
        table(
            ["objective", "covariance", "correlation"],
            [[name, ends(run, "random"), ends(run, "correlation")] for name, run in runs.items()],
        ),
        "When each direction has half of its final eigenvalue, over when the last has:",
        table(["objective", *modes], [[name, *arrivals(run)] for name, run in runs.items()]),
        "## Steps at the best learning rate",
        "Until the effective rank stays at 90 % of its largest or more; best of 101 rates.",
        table(
            ["squared singular values at the start", *(f"{s:g}" for s in STARTS)],
            [[name, *steps_needed(name)] for name in SIMULATED],
        ),
        "## Views that differ",
        f"Effective rank, of {NOISY_MODES}, of the flow at the start, at its lowest and at the end, where direction j "
        "of the data has variance 1 / j. Default weights.",
        table(
            ["correlation of the views", *NOISY],
            [[f"{a:g} / j^{b:g}", *(journey(rank) for _, rank in noisy_flow(a, b).values())] for a, b in AGREEMENTS],
        ),
        "## Where FroSSL rests",
        table(["w D / N", "effective rank, of 16", "directions kept", "largest deviation of a share"], rest),
        "## Duality",
        table(["embeddings", "norms", "spectra", "sum", "columns", "rows", "cosine", "turned"], dual),
        "norms, spectra: Z'Z against ZZ'; sum: the identity of the two contrastive losses; columns, rows: FroSSL's "
        "regulariser under `normalise` batch and sample against the form that it should be; cosine: between the "
        "gradients of the two losses once columns are normalised; turned: change of FroSSL's regulariser when the "
        "embeddings are rotated.",
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plots", type=Path, default=Path("docs/results"), help="where the figures go")
    args = parser.parse_args()
    runs = simulate()
    draw(runs, args.plots)
    print(show(runs))


if __name__ == "__main__":
    main()
