"""Charts as plain plotly figures.

Colours are names of CSS variables behind a dollar sign, which the page fills in for its light or dark theme. Widths,
sizes and fonts that are not named here are plotly's defaults or those of ``report.js``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from itertools import cycle, pairwise, product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from frossl.evals import columns, noun, scores
from frossl.evals.guess import GUESSES
from frossl.report.arms import Arm
from frossl.report.inspection import InspectedEncoder, plane
from frossl.runs.record import Record, Row

if TYPE_CHECKING:
    from frossl.report.run_summary import RunSummary

Figure = dict[str, Any]
COLOURS = tuple(f"$c{i}" for i in range(10))
POINTS = 400
"""Most points of a curve."""
MAPPED = 1500
"""Most points of a map."""
NOTHING = 1e-9
"""Shares of the variance below this are rounding, as of images fewer than features, and not drawn."""
CLASSES_IN_LEGEND, CLASSES_IN_MATRIX = 12, 40
TITLES = {
    "probe": "linear probe",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "von_neumann_entropy": "von Neumann entropy",
}
_AXES = ("images", "epoch", "seconds")
_SCHEDULED = ("lr", "momentum", "teacher_temperature", "loss_scale")
_ACCURACIES = ("knn", "probe", "ridge", "knn_balanced")
_APART = {"kind", "step", "loss", "grad_norm", "probe_on_views", "effective_rank", "look_seconds"}
_APART |= {*_AXES, *_SCHEDULED, *_ACCURACIES}
_FROM_ZERO = {"rangemode": "tozero"}
_BARE: Figure = {"showgrid": False, "zeroline": False}
_MARKERS = {"pretrained": "circle", "untrained": "circle-open", "start": "square-open", "raw pixels": "diamond-open"}
_MUTED = ("raw pixels", *GUESSES.values())
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def figure(label: str, data: list[Figure], *, height: int = 300, curves: bool = False, **layout: Any) -> Figure:
    """A chart; ``label`` is its name for those who do not see it, ``curves`` have a choice of horizontal axis."""
    return {"label": label, "curves": curves, "data": data, "layout": {"height": height, **layout}}


def points(name: str, x: Sequence[Any], y: Sequence[Any], **more: Any) -> Figure:
    """A trace of a chart: points, or a line through them."""
    return {"type": "scatter", "name": plain(name), "x": x, "y": y, **more}


def axis(text: str, **more: Any) -> Figure:
    """An axis with its title."""
    return {"title": {"text": text}, **more}


def title(name: str) -> str:
    """A quantity of the log in words."""
    column = columns().get(name)
    return column.title if column else TITLES.get(name, name.replace("_", " "))


def heading(name: str) -> str:
    """The same above a chart."""
    text = title(name)
    return text.capitalize() if text.islower() else text


def training_figures(records: Sequence[Record]) -> list[Figure]:
    """The loss with its terms, accuracies and other figures of the monitor, gradient norm, scheduled values."""
    terms = _names(records, "train")
    made = _over_run(records, "train", ["loss", *(terms if len(terms) > 1 else ())], "Loss and its terms")
    made += _over_run(records, "monitor", _ACCURACIES, "Accuracy while training")
    alone = [("monitor", name) for name in _names(records, "monitor")]
    alone += [("train", name) for name in ("grad_norm", *_SCHEDULED)]
    return made + [f for kind, name in alone for f in _over_run(records, kind, [name])]


def rank_figures(records: Sequence[Record], untrained: float | None) -> list[Figure]:
    """Effective rank over the run, with a line at that of the untrained encoder."""
    made = _over_run(records, "monitor", ["effective_rank"], yaxis=_FROM_ZERO)
    if made and untrained is not None:
        rows = [row | {"effective_rank": untrained} for row in records[0].monitor]
        made[0]["data"] += _curve("untrained", rows, "effective_rank", {"color": "$muted", "dash": "dash"})
        made[0]["layout"]["showlegend"] = True
    return made


def speed_figures(records: Sequence[Record]) -> list[Figure]:
    """Images per second from row to row, which include any pause in between."""
    with_speeds = []
    for record in records:
        rows = [
            row | {"images_per_second": (row["images"] - before["images"]) / (row["seconds"] - before["seconds"])}
            for before, row in pairwise(record.train)
            if row["seconds"] > before["seconds"]
        ]
        with_speeds.append(replace(record, train=rows))
    return _over_run(with_speeds, "train", ["images_per_second"], yaxis=_FROM_ZERO)


def state_figures(record: Record) -> list[Figure]:
    """Rank and entropy of backbone and projector, on training views and on held-out images, over the run."""
    made = []
    for name in ("effective_rank", "collision_entropy", "von_neumann_entropy", "lidar"):
        traces = []
        for (where, color), (on, dash) in product(
            {"backbone": COLOURS[0], "projector": COLOURS[1]}.items(), {"held_out": "solid", "views": "dash"}.items()
        ):
            rows = [row for row in record.spectra if (row["where"], row["on"]) == (where, on)]
            traces += _curve(f"{where}, {on.replace('_', '-')}", rows, name, {"color": color, "dash": dash})
        made += _charts(f"{heading(name)} by place", traces, curves=True, showlegend=True)
    return made


def _names(records: Sequence[Record], kind: str) -> list[str]:
    """The values in rows ``kind`` that have no chart of their own."""
    return list(dict.fromkeys(k for r in records for row in getattr(r, kind) for k in row if k not in _APART))


def _over_run(
    records: Sequence[Record], kind: str, names: Sequence[str], label: str = "", **layout: Any
) -> list[Figure]:
    """Curves of rows ``kind``: of one run all in a chart, of several runs each name in a chart with a line per run."""
    several = len(records) > 1
    if several and len(names) > 1:
        return [f for name in names for f in _over_run(records, kind, [name], **layout)]
    traces = []
    for colour, (record, name) in zip(cycle(COLOURS), product(records, names), strict=False):
        text = record.name if several else title(name)
        traces += _curve(text, getattr(record, kind), name, {"color": colour})
    label = label if len(names) > 1 else heading(names[0])
    return _charts(label, traces, curves=True, showlegend=several or len(traces) > 1, **layout)


def _curve(label: str, rows: list[Row], name: str, line: Figure) -> list[Figure]:
    """A trace with three horizontal axes to choose from, the first as its own; none if no row has ``name``."""
    rows = [row for row in rows if name in row]
    rows = rows[:: -(1 + len(rows) // POINTS)][::-1]  # thinned, with the last
    axes = {key: [row[key] for row in rows] for key in _AXES}
    values = [row[name] if math.isfinite(row[name]) else None for row in rows]  # as JSON has no NaN
    return [points(label, axes["images"], values, line=line, meta=axes)] if rows else []


def _charts(label: str, traces: list[Figure], **layout: Any) -> list[Figure]:
    """A chart below its title; none if there are no traces."""
    return [figure(label, traces, title={"text": plain(label)}, **layout)] if traces else []


def spectrum_figures(runs: Sequence[RunSummary]) -> list[Figure]:
    """Eigenvalue spectra of held-out features: of all runs at their end, then of each while it trained."""
    several = len(runs) > 1
    lines = []
    for run, colour in zip(runs, cycle(COLOURS), strict=False):
        for arm, shares in run.spectra.items():
            name = f"{run.record.name} · {arm}" if several else arm
            style = {"color": colour, "dash": "dash" if arm == "untrained" else "solid"}
            lines.append(_spectrum(name, list(range(1, len(shares) + 1)), shares, style))
    made = _spectra("Eigenvalue spectrum", lines)
    for run in runs:
        label = "Spectrum while training, faint to full"
        # The name comes first, as a phone shows the beginning of a title only.
        made += _spectra(f"{run.record.name}: {label}" if several else label, _over_time(run.record))
    return made


def _over_time(record: Record) -> list[Figure]:
    """The spectra of held-out images in the log, or of views where there are none."""
    rows = [row for row in record.spectra if row["where"] == "backbone"]
    rows = [row for row in rows if row["on"] == "held_out"] or rows
    lines = []
    for i, row in enumerate(rows, 1):
        shares = [value / (row["variance"] or 1.0) for value in row["eigenvalues"]]
        count = sum(share > NOTHING for share in shares)  # they descend
        line = _spectrum(f"epoch {row['epoch']:.3g}", row["places"][:count], shares[:count], {"color": COLOURS[0]})
        lines.append(line | {"opacity": 0.15 + 0.85 * i / len(rows), "showlegend": i in (1, len(rows))})
    return lines


def _spectrum(name: str, places: list[int], shares: list[float], line: Figure) -> Figure:
    hover = "eigenvalue %{x}: %{y:.2%}<extra>%{fullData.name}</extra>"
    return points(name, places, shares, mode="lines", line=line, hovertemplate=hover)


def _spectra(label: str, lines: list[Figure]) -> list[Figure]:
    log: Figure = {"type": "log", "dtick": 1}
    axes = {"xaxis": axis("eigenvalue, largest first", **log), "yaxis": axis("share of the variance", **log)}
    return _charts(label, lines, height=380, **axes)


def accuracy_figure(arms: Sequence[Arm], encoders: Sequence[str] = ()) -> list[Figure]:
    """Every arm's accuracies with their intervals, as points on a line for each measure.

    A colour is a run; or, where names of ``encoders`` are given, an arm of that name.
    """

    names = [name for name in scores() if any(name in arm.values for arm in arms)]
    if not names:
        return []
    coloured = list(encoders) or list(dict.fromkeys(arm.run for arm in arms if arm.name == "pretrained"))
    traces = []
    for k, arm in enumerate(arms):
        have = [name for name in names if name in arm.values]
        key = arm.name if encoders else arm.run
        muted = key not in coloured or arm.name in _MUTED
        colour = "$muted" if muted else COLOURS[coloured.index(key) % 10]
        offset = 0.6 * ((k + 0.5) / len(arms) - 0.5)
        traces.append(
            points(
                arm.label,
                [arm.values[name] for name in have],
                [names.index(name) + offset for name in have],
                mode="markers",
                error_x={"array": [arm.margin(name) or 0.0 for name in have], "thickness": 1.5},
                marker={"color": colour, "size": 10, "symbol": _MARKERS.get(arm.name, "square")},
                hovertemplate="%{x:.3f} ± %{error_x.array:.3f}<extra>%{fullData.name}</extra>",
            )
        )
    ticks = {"tickvals": list(range(len(names))), "ticktext": [title(name) for name in names]}
    yaxis = _BARE | ticks | {"range": [len(names) - 0.4, -0.6]}
    height = 130 + len(names) * max(56, 16 * len(arms))
    what = noun(names)
    xaxis = axis(f"{what} on held-out images")
    return [figure(f"{what.capitalize()} of every arm", traces, height=height, xaxis=xaxis, yaxis=yaxis)]


def map_figure(seen: InspectedEncoder) -> tuple[Figure, list[int]]:
    """Held-out images on the first two principal axes of their features, and the indices of those that are shown.

    ``customdata`` of a point is its cell in the sheet of pictures.
    """
    classes, labels, count = seen.data.classes, seen.data.test.labels, len(seen.data.test)
    shown = torch.arange(0, count, math.ceil(count / MAPPED))
    flat, shares = plane(seen.features.test_NF)
    flat = flat[shown].round(decimals=5)
    labels = labels[shown] if classes and labels is not None else torch.full_like(shown, -1)
    traces = []
    for label in labels.unique().tolist():
        if label >= 0:
            name, colour = classes[label], COLOURS[label % 10]
        else:
            name, colour = ("unlabelled", "$muted") if classes else ("image", COLOURS[0])
        cells = (labels == label).nonzero().flatten()
        x, y = flat[cells].T.tolist()
        marker = {"color": colour, "opacity": 0.75, "symbol": _SYMBOLS[max(label, 0) // 10 % len(_SYMBOLS)]}
        more = {"customdata": cells.tolist(), "hovertemplate": "%{fullData.name}<extra></extra>"}
        traces.append(points(short(name, 24), x, y, mode="markers", marker=marker, **more))
    xaxis, yaxis = (
        axis(f"principal axis {i}: {share:.0%} of the variance", showticklabels=False, zeroline=False)
        for i, share in enumerate(shares, 1)
    )
    legend = 1 < len(traces) <= CLASSES_IN_LEGEND
    chart = figure("Map of the embedding", traces, height=520, xaxis=xaxis, yaxis=yaxis, showlegend=legend)
    return chart, shown.tolist()


def confusion_figure(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Shares of each true class that kNN gives to each class; counts when pointed at."""
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    places = list(range(len(classes)))
    trace = {
        "type": "heatmap",
        "x": places,
        "y": places,
        "z": shares.double().round(decimals=4).tolist(),
        "zmin": 0,
        "zmax": 1,
        "customdata": counts.tolist(),
        "colorscale": [[0, "$card"], [0.03, "$heat0"], [1, "$heat1"]],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "true: %{y}<br>given: %{x}<br>%{z:.1%} (%{customdata} images)<extra></extra>",
    }
    if len(classes) <= CLASSES_IN_LEGEND:
        trace |= {"text": (100 * shares).round().int().tolist(), "texttemplate": "%{text}"}
    ticks = _BARE | {"tickvals": places, "ticktext": [plain(short(name)) for name in classes], "ticks": ""}
    xaxis = axis("class given by kNN", tickangle=-45, **ticks)
    yaxis = axis("true class", autorange="reversed", **ticks)
    height = 170 + max(240, 34 * min(len(classes), 16))
    return figure("Confusion of the nearest-neighbour classifier", [trace], height=height, xaxis=xaxis, yaxis=yaxis)


def short(text: str, most: int = 16) -> str:
    """A name that fits beside an axis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(text: str) -> str:
    """``text`` as plotly shows it letter by letter: in its texts, a few HTML tags and entities would mean something."""
    return escape(text, quote=False)
