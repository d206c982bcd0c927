"""The linear theory of docs/theory.md, run: simulations against differential equations, rest, duality.

    python benchmarks/theory.py > docs/results/theory.md
    python benchmarks/theory.py --table > docs/results/theory.md

Takes about four minutes on one core and writes the figures beside the page. Of the simulations, rows keep the
eigenvalues at the times that are drawn, and what is measured over all times.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import Row, environment, heading, in_this_process, latest, parse_arguments, read_or_run, table
from linear_theory import (
    Objective,
    barlow,
    correlation,
    descend,
    duality,
    effective_rank,
    embeddings,
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
EXACT = {name: objective for name, (objective, _, _) in SIMULATED.items()} | {
    "Barlow Twins, as trained, off-diagonal 0.005": barlow(5e-3)
}
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
"""Times at which a simulation is recorded."""
DRAWN = np.unique(np.geomspace(1, RECORDS, 160).astype(int))
"""Records that figures show."""
PULLS = (1.0, 2.0, 4.0, 8.0)
SAME_ROW = ("part", "case")


def simulate(name: str) -> Row:
    """Eigenvalues under an objective: simulated from an aligned and from a random start, and by the flow."""
    objective, rate, steps = SIMULATED[name]
    views, every = toy_views(DATA, SAME), steps // RECORDS
    aligned = flat_rotation(MODES) * math.sqrt(START)
    normal = torch.randn(MODES, MODES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = np.arange(RECORDS + 1) * every * rate
    random = descend(objective, views, normal * math.sqrt(START / MODES), rate, steps, every)
    found = {
        "aligned": spectrum(descend(objective, views, aligned, rate, steps, every)),
        "finer": spectrum(descend(objective, views, aligned, rate / 2, 2 * steps, 2 * every)),
        "random": spectrum(random),
        "correlation": spectrum(correlation(random)),
        "flow": -np.sort(-flow(objective, DATA.numpy(), SAME.numpy(), START * DATA.numpy(), times)),
    }
    shares = {kind: values / values.sum(1, keepdims=True) for kind, values in found.items()}
    arrived = [times[np.argmax(track >= track[-1] / 2)] for track in found["aligned"].T]
    return {
        "times": rounded(times[DRAWN]),
        **{kind: rounded(found[kind][DRAWN]) for kind in ("aligned", "random", "correlation", "flow")},
        "deviation": {kind: float(abs(shares[kind] - shares["flow"]).max()) for kind in ("aligned", "finer")},
        "arrivals": [float(time / arrived[-1]) for time in arrived],
        "ratios": {k: [float(found[k][i][0] / found[k][i][-1]) for i in (0, -1)] for k in ("random", "correlation")},
        "flat_at": float(times[np.nonzero(effective_rank(found["aligned"]) < 0.9 * MODES)[0][-1]]),
    }


def rounded(values: np.ndarray) -> Any:
    """As a list, to six digits: what a figure shows."""
    return np.vectorize(lambda x: float(f"{x:.6g}"))(values).tolist()


def rates_of(name: str) -> Row:
    """Errors of the equations for flat rotations of 8 and 64 outputs, then random ones of 8, 64 and 512."""
    generator = torch.Generator().manual_seed(1)
    turns = [torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q for d in (8, 64, 512)]
    return {"errors": [rate_error(EXACT[name], turn) for turn in (flat_rotation(8), flat_rotation(64), *turns)]}


def noisy_flow(first: float, power: float) -> Row:
    """Effective rank over time where views of direction j correlate by ``first`` / j^power; default weights."""
    index = np.arange(1, NOISY_MODES + 1)
    data, agreement = 1.0 / index, first / index**power
    times = np.concatenate([[0], np.logspace(-5, 3, 200)])
    flows = {name: flow(objective, data, agreement, data, times) for name, objective in NOISY.items()}
    return {"times": rounded(times), "ranks": {name: rounded(effective_rank(values)) for name, values in flows.items()}}


def at_rest(pull: float) -> Row:
    """Agreement of 16 directions, and their predicted and simulated shares of the variance."""
    agreement = np.linspace(0.95, 0.1, 16)
    views = toy_views(torch.ones(16, dtype=torch.float64), torch.from_numpy(agreement))
    values = spectrum(descend(whole_frossl(pull), views, flat_rotation(16), 0.5, 4000, 4000)[-1])
    arrays = {"agreement": agreement, "predicted": steady_shares(agreement, pull), "simulated": values / values.sum()}
    return {name: array.tolist() for name, array in arrays.items()}


def steps_needed(name: str) -> Row:
    """Steps of the best learning rate for each of :data:`STARTS`."""
    rates = np.logspace(-4, 1, 101)
    # Normalised objectives do not depend on the scale of the map; their gradient grows as it shrinks.
    scales = [1.0 if name == PLAIN else start for start in STARTS]
    pairs = zip(STARTS, scales, strict=True)
    return {"steps": [fewest_steps(EXACT[name], DATA.numpy(), start, rates * scale) for start, scale in pairs]}


def jobs() -> Iterator[tuple[Row, Callable[..., Row], tuple[Any, ...]]]:
    about = environment(torch.get_num_threads(), "scipy")
    made = embeddings()
    parts: dict[str, tuple[Callable[..., Row], dict[str, tuple[Any, ...]]]] = {
        "simulation": (simulate, {name: (name,) for name in SIMULATED}),
        "rates": (rates_of, {name: (name,) for name in EXACT}),
        "steps": (steps_needed, {name: (name,) for name in SIMULATED}),
        "agreement": (noisy_flow, {f"{first:g} / j^{power:g}": (first, power) for first, power in AGREEMENTS}),
        "rest": (at_rest, {f"{pull:g}": (pull,) for pull in PULLS}),
        "duality": (duality, {name: (z_ND,) for name, z_ND in made.items()}),
    }
    for part, (function, cases) in parts.items():
        for case, args in cases.items():
            yield {"part": part, "case": case, "environment": about}, function, args


def draw(found: dict[str, dict[str, Row]], directory: Path) -> None:
    """The three figures."""
    panels = []
    for start in ("aligned", "random"):
        for name, run in found["simulation"].items():
            normalised = start == "random" and name != PLAIN
            tracks = np.array(run["correlation" if normalised else start])
            final = tracks[-1].mean()
            lines = []
            for j in range(MODES):
                colour = ramp(j / (MODES - 1))
                label = f"{j + 1}" if j in (0, MODES - 1) else ""
                for values, every in ((tracks, 1), (np.array(run["flow"]), 6)):
                    if every == 1 or start == "aligned":
                        pairs = zip(run["times"][::every], values[::every, j] / final, strict=True)
                        points = [(time, y) for time, y in pairs if y > LEAST]
                        lines.append(Line(label, points, colour, dots=every > 1))
                        label = ""
            title = f"{name}: {start} start"
            y = f"eigenvalue of the {'correlation' if normalised else 'covariance'}"
            panels.append(Panel(title, "time (learning rate x steps)", y, lines, limits=(LEAST, 30)))
    key = [(ramp(0), "largest eigenvalue"), (ramp(1), f"smallest, of {MODES}; dots: the equations")]
    save_plot(directory / "theory-eigenvalues.svg", panels, key, columns=3, size=(300, 260), right=30)

    def rank_of(run: Row) -> list[tuple[float, float]]:
        times, rank = np.array(run["times"]) / run["flat_at"], effective_rank(np.array(run["aligned"]))
        return [(time, y) for time, y in zip(times, rank, strict=True) if 1e-3 < time < 3]

    rank = [Line("", rank_of(run), COLOURS[name]) for name, run in found["simulation"].items()]
    noisy = list(found["agreement"].values())[-1]
    ranks = [
        Line("", list(zip(noisy["times"][1:], values[1:], strict=True)), COLOURS[name])
        for name, values in noisy["ranks"].items()
    ]
    steps = {
        name: [(start, steps) for start, steps in zip(STARTS, row["steps"], strict=True) if steps]
        for name, row in found["steps"].items()
    }
    needed = [Line("", points, COLOURS[name]) for name, points in steps.items()]
    save_plot(
        directory / "theory-rank.svg",
        [
            Panel("Equal views", "time / time to 90 % of it", "effective rank, of 8", rank, "x"),
            Panel("Equal views, best learning rate", "squared singular values at the start", "steps to 90 %", needed),
            Panel("Views that agree little", "time", f"effective rank, of {NOISY_MODES}", ranks, "x"),
        ],
        [(colour, name) for name, colour in COLOURS.items()],
        size=(300, 260),
        right=30,
    )
    rest = []
    for i, (pull, row) in enumerate(found["rest"].items()):
        colour = ramp(i / (len(PULLS) - 1))
        agreement, predicted, simulated = (row[name] for name in ("agreement", "predicted", "simulated"))
        rest.append(Line(f"w D / N = {pull}", list(zip(agreement[::-1], predicted[::-1], strict=True)), colour))
        rest.append(Line("", list(zip(agreement, simulated, strict=True)), colour, dots=True))
    panel = Panel("Where FroSSL rests", "correlation of the views", "share of the variance", rest, "")
    save_plot(directory / "theory-rest.svg", [panel], size=(420, 300))


def show(found: dict[str, dict[str, Row]], about: dict[str, str], out: Path) -> str:
    """The page of results."""

    def course(ranks: list[float]) -> str:
        return f"{ranks[0]:.1f}, {min(ranks):.1f}, {ranks[-1]:.1f}"

    runs = found["simulation"]
    followed = [
        [name, f"{SIMULATED[name][1]:g}", f"{SIMULATED[name][2]:,}", *(f"{x:.1e}" for x in run["deviation"].values())]
        for name, run in runs.items()
    ]
    rest = []
    for pull, row in found["rest"].items():
        p, simulated = np.array(row["predicted"]), np.array(row["simulated"])
        rest.append([pull, f"{1 / (p * p).sum():.2f}", (p > 0).sum(), f"{abs(p - simulated).max():.0e}"])
    names = [name for name in next(iter(found["duality"].values())) if name not in ("part", "case", "environment")]
    dual = [
        [case, *(f"{row[name]:.3f}" if name in ("cosine", "turned") else f"{row[name]:.0e}" for name in names)]
        for case, row in found["duality"].items()
    ]
    parts = [
        heading(
            "The linear theory, run",
            "python benchmarks/theory.py; --table",
            about,
            "docs/theory.md says what is shown. Float64; toy data, seeds 0 and 1.",
        ),
        "## The rates of the equations",
        "Largest error against the gradient of the loss, over the largest rate, at random eigenvalues and agreements.",
        table(
            ["objective", "flat rotation, D = 8", "D = 64", "random rotation, D = 8", "D = 64", "D = 512"],
            [[name, *(f"{error:.0e}" for error in row["errors"])] for name, row in found["rates"].items()],
        ),
        "## Simulation and flow",
        "Largest deviation of any eigenvalue, as a share of their sum, over the whole course.",
        table(["objective", "learning rate", "steps", "deviation", "at half the rate"], followed),
        "Largest over smallest eigenvalue at the start and at the end, from a random start:",
        table(
            ["objective", "covariance", "correlation"],
            [[name, *(f"{a:.3g} to {b:.3g}" for a, b in run["ratios"].values())] for name, run in runs.items()],
        ),
        "When each direction has half of its final eigenvalue, over when the last has:",
        table(
            ["objective", *range(1, MODES + 1)],
            [[name, *(f"{time:.2f}" for time in run["arrivals"])] for name, run in runs.items()],
        ),
        "## Steps at the best learning rate",
        "Until the effective rank stays at 90 % of its largest or more; best of 101 rates.",
        table(
            ["squared singular values at the start", *(f"{s:g}" for s in STARTS)],
            [[name, *row["steps"]] for name, row in found["steps"].items()],
        ),
        "## Views that differ",
        f"Effective rank, of {NOISY_MODES}, of the flow at the start, at its lowest and at the end, where direction j "
        "of the data has variance 1 / j. Default weights.",
        table(
            ["correlation of the views", *NOISY],
            [[case, *map(course, row["ranks"].values())] for case, row in found["agreement"].items()],
        ),
        "## Where FroSSL rests",
        table(["w D / N", "effective rank, of 16", "directions kept", "largest deviation of a share"], rest),
        "## Duality",
        table(["embeddings", "norms", "spectra", "sum", "columns", "rows", "cosine", "turned"], dual),
        "norms, spectra: Z'Z against ZZ'; sum: the identity of the two contrastive losses; columns, rows: FroSSL's "
        "regulariser under `normalise` batch and sample against the form that it should be; cosine: between the "
        "gradients of the two losses once columns are normalised; turned: change of FroSSL's regulariser when the "
        "embeddings are rotated.",
        f"Rows: `{out.name}`.",
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plots", type=Path, default=Path("docs/results"), help="where the figures go")
    args = parse_arguments(parser, "theory.jsonl")
    rows = read_or_run(args, jobs(), SAME_ROW, in_this_process)
    found: dict[str, dict[str, Row]] = {}
    for row in latest(rows, SAME_ROW):
        if "error" not in row:
            found.setdefault(row["part"], {})[row["case"]] = row
    draw(found, args.plots)
    print(show(found, rows[-1]["environment"], args.out))


if __name__ == "__main__":
    main()
