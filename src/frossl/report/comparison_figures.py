"""The charts of a comparison: where arms end, how they get there, and what figures without labels say of them."""

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


def looks(study: Study) -> dict[str, Figure]:
    """The line of each arm, the same in every chart: ten colours, then the same dashed."""
    arms = list(dict.fromkeys(t.arm for t in study.trials))
    return {arm: {"color": COLOURS[i % 10], "dash": _DASHES[i // 10 % 3], "width": 2} for i, arm in enumerate(arms)}


def _trace(arm: str, x: Sequence[float], y: Sequence[float], hover: str = "%{y:.3f}", **more: Any) -> Figure:
    """Points of an arm that say ``hover`` and its name when pointed at."""
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
            values, marker = arm.values[measure], {"color": lines[arm.arm]["color"]}
            seeds: Figure = {"marker": marker | {"size": 7, "symbol": "circle-open"}, "showlegend": False}
            traces.append(_trace(arm.arm, values, [row] * len(values), "%{x:.3f}, one seed", **seeds))
            mean, full = statistics.fmean(values), {"marker": marker | {"size": 11}, "showlegend": False}
            if ranking is not None and arm.arm in ranking.means:
                mean = ranking.means[arm.arm]
                if (widest := ranking.widest) is not None:
                    full["error_x"] = marker | {"type": "data", "array": [widest / 2], "thickness": 2, "width": 5}
            traces.append(_trace(arm.arm, [mean], [row], "%{x:.3f}, mean", **full))
        names = [plain(arm_name(arm.arm)) for arm in arms]
        yaxis = {"tickvals": list(range(len(arms))), "ticktext": names, "range": [-0.6, len(arms) - 0.4]}
        layout = {"xaxis": axis(f"{noun([measure])} on held-out images"), "yaxis": yaxis | {"zeroline": False}}
        title = {"text": heading(measure)}
        figures.append(figure(f"Final {measure}", traces, height=120 + 30 * len(arms), title=title, **layout))
    return figures


def curve_figures(trials: Sequence[Trial], lines: dict[str, Figure]) -> list[Figure]:
    """Accuracy while training: the mean over seeds, and a band from the lowest to the highest."""
    return [f for name in ("knn", "knn_balanced", "probe", "ridge") for f in _curves(name, trials, lines)]


def _curves(name: str, trials: Sequence[Trial], lines: dict[str, Figure]) -> list[Figure]:
    traces = []
    for arm, line in lines.items():
        found = [t.curve(name) for t in trials if t.arm == arm and t.state == "done"]
        curves = [curve for curve in found if curve[1]]
        if not curves:
            continue
        meta, y_SK = _aligned(curves)
        low, high = y_SK.min(0).tolist(), y_SK.max(0).tolist()
        if len(curves) > 1:
            around = {axis: xs + xs[::-1] for axis, xs in meta.items()}
            band = {"fill": "toself", "fillcolor": line["color"], "line": {"width": 0}, "opacity": 0.16}
            band |= {"mode": "lines", "meta": around, "legendgroup": arm, "hoverinfo": "skip", "showlegend": False}
            traces.append(_trace(arm, around["images"], high + low[::-1], **band))
        style = {"mode": "lines+markers", "line": line, "marker": {"size": 5, "color": line["color"]}}
        traces.append(_trace(arm, meta["images"], y_SK.mean(0).tolist(), meta=meta, legendgroup=arm, **style))
    if not traces:
        return []
    return [figure(f"{name} while training", traces, curves=True, height=400, title={"text": heading(name)})]


def _aligned(curves: Sequence[tuple[list[dict[str, float]], list[float]]]) -> tuple[dict[str, list[float]], np.ndarray]:
    """Curves of several seeds at the same shares of their steps: means of the axes, and values ``(S, K)``.

    Seeds under a budget in minutes do not look at the same steps.
    """
    shares = [np.array([row["step"] for row in rows]) / rows[-1]["step"] for rows, _ in curves]
    grid = min(shares, key=len)
    y_SK = np.stack([np.interp(grid, s, values) for s, (_, values) in zip(shares, curves, strict=True)])
    meta = {}
    for name in AXES:
        x_SK = [np.interp(grid, s, [r[name] for r in rows]) for s, (rows, _) in zip(shares, curves, strict=True)]
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
            style = {"marker": {"size": 11, "color": lines[arm.arm]["color"]}, "showlegend": False}
            x = [statistics.fmean(arm.values[name])]
            traces.append(_trace(arm.arm, x, [means[arm.arm]], "%{x:.3g}, %{y:.3f}", **style))
        found = result.agreements.get(name)
        told = minus(f": Spearman {found.spearman:+.2f}") if found else ""
        backwards = axis("less is better: axis reversed", autorange="reversed")
        axes: Figure = {"xaxis": backwards if column.better == "lower" else {}}
        axes["yaxis"] = axis(columns()[result.measure or "knn"].title)
        text = heading(name)
        figures.append(figure(f"{text} and accuracy", traces, height=280, title={"text": text + told}, **axes))
    return figures
