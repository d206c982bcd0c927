"""The charts of a comparison: where arms end, how they get there, and what figures without labels say of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from frossl.evals.suite import HEADINGS
from frossl.report.comparison import arm_name, in_order
from frossl.report.figures import COLOURS, Figure, figure, heading, plain
from frossl.report.study import AXES, LABEL_FREE, MEASURES, BudgetResult, Study, Trial
from frossl.report.words import ACCURACIES

_DASHES = ("solid", "dash", "dot")


def looks(study: Study) -> dict[str, Figure]:
    """The line of each arm, the same in every chart: ten colours, then the same dashed."""
    arms = list(dict.fromkeys(t.arm for t in study.trials))
    return {arm: {"color": COLOURS[i % 10], "dash": _DASHES[i // 10 % 3], "width": 2} for i, arm in enumerate(arms)}


def ending_figures(result: BudgetResult, lines: dict[str, Figure]) -> list[Figure]:
    """Final accuracy of every arm: its seeds, their mean, and a bar that overlaps another's unless they are apart."""
    figures = []
    for measure in MEASURES:
        arms = [arm for arm in in_order(result)[::-1] if arm.values.get(measure)]
        if not arms:
            continue
        ranking = result.rankings.get(measure)
        half = ranking.margin / 2 if ranking and ranking.margin is not None else None
        traces = []
        for row, arm in enumerate(arms):
            values, colour = arm.values[measure], lines[arm.arm]["color"]
            shared = {"type": "scatter", "mode": "markers", "showlegend": False, "name": plain(arm_name(arm.arm))}
            ranked = ranking is not None and arm.arm in ranking.means
            bar = {"type": "data", "array": [half], "color": colour, "thickness": 2, "width": 5}
            traces.append(
                shared
                | {
                    "x": values,
                    "y": [row] * len(values),
                    "marker": {"color": colour, "size": 7, "symbol": "circle-open"},
                }
                | {"hovertemplate": "%{x:.3f}, one seed<extra>%{fullData.name}</extra>"}
            )
            mean = ranking.means[arm.arm] if ranking and ranked else statistics.fmean(values)
            traces.append(
                shared
                | {"x": [mean], "y": [row], "marker": {"color": colour, "size": 11}}
                | ({"error_x": bar} if half is not None and ranked else {})
                | {"hovertemplate": "%{x:.3f}, mean<extra>%{fullData.name}</extra>"}
            )
        names = [plain(arm_name(arm.arm)) for arm in arms]
        yaxis = {"tickvals": list(range(len(arms))), "ticktext": names, "range": [-0.6, len(arms) - 0.4]}
        layout = {"xaxis": {"title": {"text": "accuracy on held-out images"}}, "yaxis": yaxis | {"zeroline": False}}
        title = {"text": heading(ACCURACIES[measure])}
        figures.append(figure(f"Final {measure}", traces, height=120 + 30 * len(arms), title=title, **layout))
    return figures


def curve_figures(trials: Sequence[Trial], lines: dict[str, Figure]) -> list[Figure]:
    """Accuracy while training: the mean over seeds, and a band from the lowest to the highest."""
    return [f for name in ("knn", "probe") for f in _curves(name, trials, lines)]


def _curves(name: str, trials: Sequence[Trial], lines: dict[str, Figure]) -> list[Figure]:
    traces = []
    for arm, line in lines.items():
        found = [t.curve(name) for t in trials if t.arm == arm and t.state == "done"]
        curves = [curve for curve in found if curve[1]]
        if not curves:
            continue
        meta, y_SK = _aligned(curves)
        shared = {"type": "scatter", "name": plain(arm_name(arm)), "legendgroup": arm}
        low, high = y_SK.min(0).tolist(), y_SK.max(0).tolist()
        if len(curves) > 1:
            there_and_back = {axis: xs + xs[::-1] for axis, xs in meta.items()}
            traces.append(
                shared
                | {"mode": "lines", "x": there_and_back["images"], "y": high + low[::-1], "meta": there_and_back}
                | {"fill": "toself", "fillcolor": line["color"], "line": {"width": 0}, "opacity": 0.16}
                | {"hoverinfo": "skip", "showlegend": False}
            )
        traces.append(
            shared
            | {"mode": "lines+markers", "x": meta["images"], "y": y_SK.mean(0).tolist(), "meta": meta}
            | {"line": line, "marker": {"size": 5, "color": line["color"]}}
            | {"hovertemplate": "%{y:.3f}<extra>%{fullData.name}</extra>"}
        )
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
    for axis in AXES:
        x_SK = [np.interp(grid, s, [r[axis] for r in rows]) for s, (rows, _) in zip(shares, curves, strict=True)]
        meta[axis] = np.mean(x_SK, axis=0).tolist()
    return meta, y_SK


def spent_figures(study: Study, lines: dict[str, Figure]) -> list[Figure]:
    """Final accuracy against what was spent, one point for each budget, where there are several."""
    if len(study.results) < 2:
        return []
    figures = []
    for measure in MEASURES:
        traces = []
        for arm, line in lines.items():
            found = [a for r in study.results for a in r.arms if a.arm == arm and measure in a.values and a.spent]
            found.sort(key=lambda a: a.spent["images"])
            if not found:
                continue
            meta = {axis: [a.spent[axis] for a in found] for axis in AXES}
            values = [a.values[measure] for a in found]
            means = [statistics.fmean(v) for v in values]
            error = {"type": "data", "symmetric": False, "color": line["color"], "thickness": 1.5, "width": 4}
            error |= {"array": [max(v) - m for v, m in zip(values, means, strict=True)]}
            error |= {"arrayminus": [m - min(v) for v, m in zip(values, means, strict=True)]}
            traces.append(
                {"type": "scatter", "mode": "markers", "name": plain(arm_name(arm)), "x": meta["images"], "y": means}
                | {"meta": meta, "error_y": error, "marker": {"size": 9, "color": line["color"]}}
                | {"hovertemplate": "%{y:.3f}<extra>%{fullData.name}</extra>"}
            )
        if traces:
            title = {"text": heading(ACCURACIES[measure])}
            figures.append(figure(f"Final {measure} and cost", traces, curves=True, height=400, title=title))
    return figures


def label_free_figures(result: BudgetResult, lines: dict[str, Figure]) -> list[Figure]:
    """Accuracy of arms against each figure that needs no labels."""
    means = result.rankings[result.measure].means if result.measure else {}
    figures = []
    for name, sign in LABEL_FREE.items():
        arms = [a for a in result.arms if a.arm in means and name in a.values]
        if len(arms) < 2:
            continue
        traces = [
            {"type": "scatter", "mode": "markers", "name": plain(arm_name(a.arm)), "showlegend": False}
            | {"x": [statistics.fmean(a.values[name])], "y": [means[a.arm]]}
            | {"marker": {"size": 11, "color": lines[a.arm]["color"]}}
            | {"hovertemplate": "%{x:.3g}, %{y:.3f}<extra>%{fullData.name}</extra>"}
            for a in arms
        ]
        found = result.agreements.get(name)
        text = heading(name) if name in ("effective_rank", "alignment", "uniformity") else HEADINGS[name]
        told = f": Spearman {found.spearman:+.2f}".replace("-", "−") if found else ""
        backwards = {"autorange": "reversed", "title": {"text": "less is better: axis reversed"}}
        axes: Figure = {"xaxis": {} if sign > 0 else backwards}
        axes["yaxis"] = {"title": {"text": ACCURACIES[result.measure or "knn"]}}
        figures.append(figure(f"{text} and accuracy", traces, height=280, title={"text": text + told}, **axes))
    return figures
