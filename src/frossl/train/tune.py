"""The learning rate of each arm of a comparison, chosen by short runs on a part of the training images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from frossl.core.length import Length
from frossl.core.types import UserError
from frossl.evals import find_metrics
from frossl.methods import find_method
from frossl.report.study import measures
from frossl.runs.record import read_record
from frossl.train.plan import peak_rate
from frossl.train.planned import OVER, TRIALS, Run, names_in, read_plan

FACTOR = 3.0
"""Between a learning rate that is tried and the next."""
PART = 0.25
"""Length of a trial as a share of the first budget, if none is given."""
HOW = ("budget", "measure", "factor")
"""What is the same for all arms whose rates are chosen in a comparison."""
SEED = 1000
"""Of all trials; comparisons count theirs from 0."""


def plan_trials(runs: Sequence[Run], count: int, budget: str | None, protocols: Sequence[str]) -> list[Run]:
    """A short run for each of ``count`` learning rates of each arm of ``runs`` that learns, to choose one.

    The rates are the arm's own, and :data:`FACTOR` times more and less for each on either side.

    Raises:
        UserError: ``count`` has no middle, nothing is measured that could choose, or other arms of the comparison had
            trials of another length.
    """
    if count < 3 or count % 2 == 0:
        raise UserError(f"--tune-lr {count}: give an odd number of rates, 3 or more; the middle one is the arm's own")
    if not trial_protocols(protocols):
        raise UserError("--tune-lr needs a --protocol that has an accuracy, such as knn or linear, to choose by")
    length = Length.parse(runs[0].budget)
    budget = str(Length.parse(budget or str(replace(length, amount=length.amount * PART))))
    out, trials = runs[0].config.out / TRIALS, []
    taken = names_in(out)
    arms = {run.arm: run.config for run in runs if find_method(run.config.method).trains}
    check_tuning(runs[0].config.out, arms, {"budget": budget, "factor": FACTOR})
    for arm, config in arms.items():
        for step in range(-(count // 2), count // 2 + 1):
            rate = float(f"{peak_rate(config) * FACTOR**step:.3g}")
            short = replace(config, lr=rate, length=budget, seed=SEED, monitor_every="100%", monitor_ridge=False)
            title = f"{arm} lr {rate:g}"
            trials.append(Run.plan(title, arm, budget, short, out, taken, validation=True, trial=True))
    return trials


def trial_protocols(protocols: Sequence[str]) -> tuple[str, ...]:
    """What of ``protocols`` is measured of a trial: accuracies."""
    return tuple(name for name, m in find_metrics(protocols).items() if any(c.score for c in m.columns.values()))


def choose_rates(trials: Sequence[Run], protocols: Sequence[str]) -> dict[str, Any]:
    """The ``chosen`` rate of each arm, and what it was chosen from, for ``comparison.json``.

    Raises:
        UserError: a trial is not over, or none of an arm has an accuracy.
    """
    left = [trial.name for trial in trials if trial.state(trial_protocols(protocols)) not in OVER]
    if left:
        raise UserError(f"learning rates are not chosen yet: {', '.join(left)} not finished")
    rows, measured = [], set()
    for trial in trials:
        evaluation = read_record(trial.path).evaluation if trial.state(()) != "diverged" else None
        values = evaluation.shown()["pretrained"] if evaluation else {}
        name = next((name for name in measures() if name in values), None)
        measured.add(name)
        images = evaluation.held_out if evaluation else None
        rows.append({"arm": trial.arm, "lr": trial.config.lr, "score": values.get(name or ""), "images": images})
    chosen = {}
    for arm in dict.fromkeys(trial.arm for trial in trials):
        scored = {row["lr"]: row["score"] for row in rows if row["arm"] == arm}
        if not any(score is not None for score in scored.values()):
            logs = trials[0].config.out / "logs"
            raise UserError(f"{arm}: no learning rate can be chosen, as no trial has an accuracy; see {logs}")
        chosen[arm] = best_rate(scored)
    about = {"measure": next(iter(measured - {None}), None), "budget": trials[0].budget, "factor": FACTOR}
    return about | {"images": max(row["images"] or 0 for row in rows), "trials": rows, "chosen": chosen}


def check_tuning(out: Path, arms: Iterable[str], new: dict[str, Any]) -> None:
    """Raises UserError if rates of other arms than ``arms`` in ``out`` were chosen in another way than ``new`` says."""
    before = read_plan(out).get("tuning", {"chosen": {}})
    others = ", ".join(before["chosen"].keys() - set(arms))
    for name in HOW:
        if others and name in new and before[name] != new[name]:
            raise UserError(
                f"learning rates of {out} were chosen with the {name} {before[name]} ({others}), and others cannot be "
                f"with {new[name]}. Leave --tune-budget and --protocol as they were, or start another comparison with "
                "--out"
            )


def join_tuning(out: Path, new: dict[str, Any]) -> dict[str, Any]:
    """What :func:`choose_rates` gave, with the arms whose rates ``comparison.json`` in ``out`` has already.

    Raises:
        UserError: see :func:`check_tuning`.
    """
    check_tuning(out, new["chosen"], new)
    before = read_plan(out).get("tuning", new)
    if any(before[name] != new[name] for name in HOW):
        return new  # all arms were measured again
    chosen = before["chosen"] | new["chosen"]
    rows = {(row["arm"], row["lr"]): row for row in (*before["trials"], *new["trials"])}
    trials = sorted(rows.values(), key=lambda row: (list(chosen).index(row["arm"]), row["lr"]))
    return new | {"trials": trials, "chosen": chosen}


def best_rate(scores: dict[float, float | None]) -> float:
    """The learning rate with the best score, of equals the one nearest to the middle of all that were tried.

    >>> best_rate({1.0: 0.5, 3.0: 0.5, 9.0: None}), best_rate({1.0: 0.5, 3.0: 0.5, 9.0: 0.6})
    (3.0, 9.0)
    """
    order = sorted(scores)
    steps = {rate: abs(i - len(order) // 2) for i, rate in enumerate(order)}
    return max((score, -steps[rate], rate) for rate, score in scores.items() if score is not None)[2]


def with_rates(runs: Sequence[Run], chosen: dict[str, float]) -> list[Run]:
    """``runs`` with the learning rate that was chosen for their arm, if one was."""
    return [replace(r, config=replace(r.config, lr=chosen.get(r.arm, r.config.lr))) for r in runs]
