"""The charts of a comparison: final scores, curves, and scores against figures that need no labels."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from frossl.evals import columns, label_free, noun
from frossl.report.comparison_tables import arm_name, in_order
from frossl.report.figures import COLOURS, Figure, axis, figure, heading, plain, points
from frossl.report.study import BudgetResult, Study, measures
from frossl.report.table import minus
from frossl.report.trial import AXES, Trial

_DASHES = ("solid", "dash", "dot")


def arm_lines(study: Study) -> dict[str, Figure]:
    """The line of each arm, the same in every chart: ten colours, then the same dashed."""
    arms = dict.fromkeys(t.arm for t in study.trials)
    return {arm: {"color": COLOURS[i % 10], "dash": _DASHES[i // 10 % 3], "width": 2} for i, arm in enumerate(arms)}


def _trace(arm: str, x: Sequence[float], y: Sequence[float], hover: str = "%{y:.3f}", **more: Any) -> Figure:
    """Points of an arm, with ``hover`` and its name when pointed at."""
    hover += "<extra>%{fullData.name}</extra>"
    return points(arm_name(arm), x, y, hovertemplate=hover, **({"mode": "markers"} | more))


def ending_figures(result: BudgetResult, lines: dict[str, Figure]) -> list[Figure]:
    """Final accuracy of every arm: its seeds, their mean, and a bar that overlaps another's unless they are apart."""
    figures = []
    for measure in measures():
        arms = [arm for arm in in_order(result)[::-1] if arm.values.get(measure)]
        if not arms:
            continue
        ranking, traces = result.rankings.get(measure), []
        for row, arm in enumerate(arms):
            values, color = arm.values[measure], {"color": lines[arm.arm]["color"]}
            mean, more = statistics.fmean(values), {"marker": color | {"size": 11}}
            if ranking is not None and arm.arm in ranking.means:
                mean = ranking.means[arm.arm]
                if (widest := ranking.widest) is not None:
                    more["error_x"] = color | {"type": "data", "array": [widest / 2], "thickness": 2, "width": 5}
            seeds = {"marker": color | {"size": 7, "symbol": "circle-open"}}
            traces.append(_trace(arm.arm, values, [row] * len(values), "%{x:.3f}, one seed", **seeds))
            traces.append(_trace(arm.arm, [mean], [row], "%{x:.3f}, mean", **more))
        names = [plain(arm_name(arm.arm)) for arm in arms]
        yaxis = {"tickvals": list(range(len(arms))), "ticktext": names, "range": [-0.6, len(arms) - 0.4]}
        layout = {"xaxis": axis(noun([measure])), "yaxis": yaxis | {"zeroline": False}}
        layout |= {"title": {"text": heading(measure)}, "showlegend": False}
        figures.append(figure(f"Final {measure}", traces, height=120 + 30 * len(arms), **layout))
    return figures


def curve_figures(trials: Sequence[Trial], lines: dict[str, Figure]) -> list[Figure]:
    """Accuracy while training: the mean over seeds, and a band from the lowest to the highest."""
    found = []
    for name in ("knn", "knn_balanced", "probe", "ridge"):
        if traces := [trace for arm, line in lines.items() for trace in _curve(name, arm, trials, line)]:
            title = {"text": heading(name)}
            found.append(figure(f"{name} while training", traces, curves=True, height=400, title=title))
    return found


def _curve(name: str, arm: str, trials: Sequence[Trial], line: Figure) -> list[Figure]:
    """The band, if there are several seeds, and the mean of an arm; none without a finished run."""
    found = [t.curve(name) for t in trials if t.arm == arm and t.state == "done"]
    curves = [curve for curve in found if curve[1]]
    if not curves:
        return []
    meta, y_SK = _aligned(curves)
    style = {"mode": "lines+markers", "line": line, "marker": {"size": 5, "color": line["color"]}}
    mean = _trace(arm, meta["images"], y_SK.mean(0).tolist(), meta=meta, legendgroup=arm, **style)
    if len(curves) == 1:
        return [mean]
    around = {axis: xs + xs[::-1] for axis, xs in meta.items()}
    outline = [*y_SK.max(0).tolist(), *y_SK.min(0).tolist()[::-1]]
    band = {"fill": "toself", "fillcolor": line["color"], "line": {"width": 0}, "opacity": 0.16}
    band |= {"mode": "lines", "meta": around, "legendgroup": arm, "hoverinfo": "skip", "showlegend": False}
    return [_trace(arm, around["images"], outline, **band), mean]


def _aligned(curves: Sequence[tuple[list[dict[str, float]], list[float]]]) -> tuple[dict[str, list[float]], np.ndarray]:
    """Curves of several seeds at the same fractions of their steps: means of the axes, and values ``(S, K)``.

    Under a budget in minutes, seeds are not monitored at the same steps.
    """
    at = [np.array([row["step"] for row in rows]) / rows[-1]["step"] for rows, _ in curves]
    grid = min(at, key=len)
    y_SK = np.stack([np.interp(grid, x, values) for x, (_, values) in zip(at, curves, strict=True)])
    meta = {}
    for name in AXES:
        x_SK = [np.interp(grid, x, [row[name] for row in rows]) for x, (rows, _) in zip(at, curves, strict=True)]
        meta[name] = np.mean(x_SK, axis=0).tolist()
    return meta, y_SK


def label_free_figures(result: BudgetResult, lines: dict[str, Figure]) -> list[Figure]:
    """Accuracy of arms against each figure that needs no labels."""
    means = result.rankings[result.measure].means if result.measure else {}
    figures = []
    for name, column in label_free().items():
        arms = [a for a in result.arms if a.arm in means and name in a.values]
        if len(arms) < 2:
            continue
        traces = []
        for arm in arms:
            x, marker = statistics.fmean(arm.values[name]), {"size": 11, "color": lines[arm.arm]["color"]}
            traces.append(_trace(arm.arm, [x], [means[arm.arm]], "%{x:.3g}, %{y:.3f}", marker=marker))
        text, agreement = heading(name), result.agreements.get(name)
        title = text + (minus(f": Spearman {agreement.spearman:+.2f}") if agreement else "")
        backwards = axis("less is better: axis reversed", autorange="reversed")
        layout: Figure = {"xaxis": backwards if column.better == "lower" else {}, "showlegend": False}
        layout |= {"yaxis": axis(columns()[result.measure or "knn"].title), "title": {"text": title}}
        figures.append(figure(f"{text} and accuracy", traces, height=280, **layout))
    return figures
