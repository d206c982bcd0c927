"""Charts as plain plotly figures.

Colours are names of CSS variables behind a dollar sign, which the page fills in for its light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

from torch import Tensor

from frossl.evals import accuracies, columns
from frossl.report.arms import Arm
from frossl.report.look import Look, plane
from frossl.runs.record import Record, Row

Figure = dict[str, Any]
COLOURS = tuple(f"$c{i}" for i in range(10))
POINTS = 400
"""Most points of a curve."""
MAPPED = 1500
"""Most points of a map."""
CLASSES_IN_LEGEND, CLASSES_IN_MATRIX = 12, 40
_APART = {"kind", "step", "epoch", "images", "seconds", "loss", "grad_norm", "lr", "probe_on_views"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
TITLES = {
    "probe": "linear probe",
    "probe_on_views": "linear probe, on training views",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "von_neumann_entropy": "von Neumann entropy",
}


def figure(label: str, data: list[Figure], *, height: int = 320, curves: bool = False, **layout: Any) -> Figure:
    """A chart; ``label`` is its name for those who do not see it, ``curves`` have a choice of horizontal axis."""
    return {"label": label, "curves": curves, "data": data, "layout": {"height": height, **layout}}


def title(name: str) -> str:
    """A quantity of the log in words."""
    column = columns().get(name)
    return column.title if column else TITLES.get(name, name.replace("_", " "))


def heading(name: str) -> str:
    """The same above a chart."""
    text = title(name)
    return text if text != text.lower() else text.capitalize()


def loss_figures(records: Sequence[Record]) -> list[Figure]:
    """The loss with its terms: together for one run, each in a chart of its own for several."""
    terms = list(dict.fromkeys(k for r in records for row in r.train for k in row if k not in _APART))
    names = ["loss", *terms] if terms != ["loss"] else ["loss"]
    if len(records) == 1:
        return _curves("Loss and its terms", records, "train", [n for n in names if n == "loss" or len(terms) > 1])
    return [f for name in names for f in _curves(heading(name), records, "train", [name])]


def monitor_figures(records: Sequence[Record]) -> list[Figure]:
    """Accuracy while training, and any other figure of the monitor except the effective rank."""
    apart = _APART | {"effective_rank", "knn", "probe"}
    others = dict.fromkeys(k for r in records for row in r.monitor for k, v in row.items() if k not in apart)
    if len(records) == 1:
        accuracy = _curves("Accuracy while training", records, "monitor", ["knn", "probe"])
    else:
        accuracy = [f for name in ("knn", "probe") for f in _curves(heading(name), records, "monitor", [name])]
    return accuracy + [f for name in others for f in _curves(heading(name), records, "monitor", [name])]


def optimiser_figures(records: Sequence[Record]) -> list[Figure]:
    """Norm of the gradient and learning rate."""
    return _curves("Gradient norm", records, "train", ["grad_norm"]) + _curves(
        "Learning rate", records, "train", ["lr"]
    )


def rank_figure(records: Sequence[Record], untrained: float | None) -> list[Figure]:
    """Effective rank over the run, with a line at that of the untrained encoder."""
    figures = _curves("Effective rank", records, "monitor", ["effective_rank"], titled=False)
    for f in figures if untrained is not None else []:
        line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": untrained, "y1": untrained}
        note = {"xref": "paper", "x": 1, "xanchor": "right", "y": untrained, "yanchor": "bottom", "showarrow": False}
        f["layout"]["shapes"] = [line | {"line": {"color": "$muted", "dash": "dash", "width": 1.5}}]
        f["layout"]["annotations"] = [note | {"text": "untrained", "font": {"color": "$muted"}}]
        f["layout"]["yaxis"] = {"rangemode": "tozero"}
    return figures


def _curves(
    label: str, records: Sequence[Record], kind: str, names: Sequence[str], titled: bool = True
) -> list[Figure]:
    """A chart of the rows ``kind`` with a trace for each run and name, or none if no row has them."""
    traces = []
    for i, record in enumerate(records):
        rows: list[Row] = getattr(record, kind)
        for j, name in enumerate(names):
            have = _thin([row for row in rows if name in row])
            if have:
                parts = [record.name] * (len(records) > 1) + [title(name)] * (len(names) > 1)
                at = i if len(records) > 1 else j
                line = {"color": COLOURS[at % 10], "dash": _DASHES[(j if len(records) > 1 else 0) % 5], "width": 2}
                traces.append(_curve(" · ".join(parts) or title(name), have, name, line, kind))
    if not traces:
        return []
    above = {"title": {"text": plain(label)}} if titled else {}
    return [figure(label, traces, curves=True, height=300, showlegend=max(len(traces), len(records)) > 1, **above)]


def _curve(label: str, rows: list[Row], name: str, line: Figure, kind: str) -> Figure:
    """A trace with three horizontal axes to choose from, the first as its own."""
    axes = {axis: [row[axis] for row in rows] for axis in ("images", "epoch", "seconds")}
    return {
        "type": "scatter",
        "mode": "lines+markers" if kind == "monitor" else "lines",
        "name": plain(label),
        "x": axes["images"],
        "y": [finite(row[name]) for row in rows],
        "line": line,
        "marker": {"size": 6},
        "meta": axes,
    }


def spectrum_figure(spectra: Sequence[tuple[str, str, list[float]]]) -> list[Figure]:
    """Eigenvalue spectra as ``(run, arm, shares)``: a colour for each run, dashes for what is untrained."""
    traces, runs = [], list(dict.fromkeys(run for run, _, _ in spectra))
    for run, arm, shares in spectra:
        name = f"{run} · {arm}" if run else arm
        dash = "dash" if arm == "untrained" else "solid"
        line = {"color": COLOURS[runs.index(run) % 10], "dash": dash, "width": 2}
        ranks = list(range(1, len(shares) + 1))
        hover = "eigenvalue %{x}: %{y:.2%}<extra>%{fullData.name}</extra>"
        traces.append(
            {"type": "scatter", "mode": "lines", "name": plain(name), "x": ranks, "y": shares, "line": line}
            | {"hovertemplate": hover}
        )
    axes: Figure = {"xaxis": _log_axis("eigenvalue, largest first"), "yaxis": _log_axis("share of the variance")}
    return [figure("Eigenvalue spectrum", traces, height=380, **axes)] if traces else []


NOTHING = 1e-9
"""Shares of the variance below this are rounding, as of images fewer than features, and not drawn."""


def spectrum_over_time(record: Record, of: str = "") -> list[Figure]:
    """The spectrum of held-out features at each look of the monitor, or of views where there are no such rows.

    ``of`` is the name of the run, where there are several.
    """
    rows = [row for row in record.spectra if row["where"] == "backbone"]
    rows = [row for row in rows if row["on"] == "held_out"] or rows
    traces = []
    for i, row in enumerate(rows):
        line = {"color": "$c0", "width": 2}
        shares = {n: v / (row["variance"] or 1.0) for n, v in zip(row["places"], row["eigenvalues"], strict=True)}
        shares = {n: share for n, share in shares.items() if share > NOTHING}
        traces.append(
            {"type": "scatter", "mode": "lines", "name": f"epoch {row['epoch']:.3g}", "line": line}
            | {"x": list(shares), "y": list(shares.values())}
            | {"opacity": 0.15 + 0.85 * (i + 1) / len(rows), "showlegend": i in (0, len(rows) - 1)}
        )
    axes: Figure = {"xaxis": _log_axis("eigenvalue, largest first"), "yaxis": _log_axis("share of the variance")}
    name = f"{of}: " * bool(of)  # first, as a phone shows the beginning of a title only
    text = f"{name}Spectrum while training"
    label, above = f"{text}, from faint to full", {"text": plain(text)}
    return [figure(label, traces, height=380, title=above, **axes)] if traces else []


def state_figures(record: Record) -> list[Figure]:
    """Rank and entropy of backbone and projector, on training views and on held-out images, over the run."""
    figures = []
    for name in ("effective_rank", "collision_entropy", "von_neumann_entropy", "lidar"):
        traces = []
        for i, (where, on) in enumerate(product(("backbone", "projector"), ("held_out", "views"))):
            rows = [r for r in record.spectra if (r["where"], r["on"]) == (where, on) and name in r]
            line = {"color": COLOURS[i // 2], "dash": _DASHES[i % 2], "width": 2}
            if rows:
                traces.append(_curve(f"{where}, {on.replace('_', '-')}", _thin(rows), name, line, "monitor"))
        if traces:
            above = {"title": {"text": f"{heading(name)}, backbone and projector"}}
            figures.append(figure(above["title"]["text"], traces, curves=True, height=300, showlegend=True, **above))
    return figures


def _log_axis(text: str) -> Figure:
    return {"type": "log", "title": {"text": text}, "dtick": 1, "exponentformat": "power"}


def accuracy_figure(arms: Sequence[Arm]) -> list[Figure]:
    """Every arm's accuracies with their intervals, as points on a line for each measure."""
    titles = {name: column.title for name, column in accuracies().items() if any(name in arm.values for arm in arms)}
    names = list(titles)
    if not names:
        return []
    runs = list(dict.fromkeys(arm.run for arm in arms if arm.name == "pretrained"))
    traces = []
    for k, arm in enumerate(arms):
        have = [name for name in names if name in arm.values]
        offset = 0.6 * (0.5 - (k + 0.5) / len(arms))
        colour = COLOURS[runs.index(arm.run) % 10] if arm.run in runs and arm.name != "raw pixels" else "$muted"
        error = {"type": "data", "array": [arm.margin(name) for name in have], "color": colour}
        traces.append({
            "type": "scatter",
            "mode": "markers",
            "name": plain(arm.label),
            "x": [arm.values[name] for name in have],
            "y": [names[::-1].index(name) + offset for name in have],
            "error_x": error | {"thickness": 1.5, "width": 4},
            "marker": {"color": colour, "size": 10, "symbol": _MARKERS.get(arm.name, "square")}
            | {"line": {"width": 2, "color": colour}},
            "hovertemplate": "%{x:.3f} ± %{error_x.array:.3f}<extra>%{fullData.name}</extra>",
        })  # fmt: skip
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(titles.values())[::-1]}
    yaxis = ticks | {"range": [-0.6, len(names) - 0.4], "showgrid": False, "zeroline": False}
    height = 130 + len(names) * max(56, 16 * len(arms))
    xaxis = {"title": {"text": "accuracy on held-out images"}}
    return [figure("Accuracy of every arm", traces, height=height, xaxis=xaxis, yaxis=yaxis)]


_MARKERS = {"pretrained": "circle", "untrained": "circle-open", "raw pixels": "diamond-open"}


def map_figure(seen: Look) -> tuple[Figure, list[int]]:
    """Held-out images on the first two principal axes of their features, and the places of those that are shown.

    ``customdata`` of a point is its cell in the sheet of pictures.
    """
    count = len(seen.data.test)
    shown = list(range(0, count, math.ceil(count / MAPPED)))
    flat, shares = plane(seen.features.test_NF)
    labels = seen.data.test.labels if seen.data.classes else None
    classes = seen.data.classes
    groups: dict[int, list[int]] = {}
    for cell, place in enumerate(shown):
        groups.setdefault(-1 if labels is None else int(labels[place]), []).append(cell)
    traces = []
    for label, cells in sorted(groups.items()):
        points = flat[[shown[c] for c in cells]].tolist()
        traces.append({
            "type": "scatter",
            "mode": "markers",
            "name": short(classes[label], 24) if label >= 0 else "unlabelled" if labels is not None else "image",
            "x": [round(x, 5) for x, _ in points],
            "y": [round(y, 5) for _, y in points],
            "customdata": cells,
            "marker": {"color": COLOURS[label % 10] if label >= 0 else "$muted" if labels is not None else "$c0"}
            | {"size": 6, "opacity": 0.75, "symbol": _SYMBOLS[max(label, 0) // 10 % len(_SYMBOLS)]},
            "hovertemplate": "%{fullData.name}<extra></extra>",
        })  # fmt: skip
    bare = {"showticklabels": False, "zeroline": False}
    texts = [f"principal axis {i + 1}: {share:.0%} of the variance" for i, share in enumerate(shares)]
    xaxis, yaxis = (bare | {"title": {"text": text}} for text in (*texts, *[""] * (2 - len(texts))))
    key = {"showlegend": 1 < len(traces) <= CLASSES_IN_LEGEND, "legend": {"itemsizing": "constant"}}
    return figure("Map of the embedding", traces, height=520, xaxis=xaxis, yaxis=yaxis, **key), shown


_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def confusion_figure(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Shares of each true class that kNN gives to each class; counts when pointed at."""
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).tolist()
    names = [short(name) for name in classes]
    trace = {
        "type": "heatmap",
        "z": [[round(x, 4) for x in row] for row in shares],
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
        trace["text"] = [[f"{100 * x:.0f}" if x >= 0.005 else "" for x in row] for row in shares]
        trace["texttemplate"] = "%{text}"
    places = list(range(len(names)))
    axis = {"tickvals": places, "ticktext": names, "showgrid": False, "zeroline": False, "ticks": ""}
    trace |= {"x": places, "y": places}
    height = 170 + max(240, 34 * min(len(classes), 16))
    xaxis = axis | {"title": {"text": "class given by kNN"}, "tickangle": -45}
    yaxis = axis | {"title": {"text": "true class"}, "autorange": "reversed"}
    return figure("Confusion of the nearest-neighbour classifier", [trace], height=height, xaxis=xaxis, yaxis=yaxis)


def speed_figure(records: Sequence[Record]) -> list[Figure]:
    """Images per second over the run."""
    kept = [replace(r, train=speeds(r)) for r in records]
    figures = _curves("Images per second", kept, "train", ["images_per_second"], titled=False)
    for f in figures:
        f["layout"]["yaxis"] = {"rangemode": "tozero"}
    return figures


def speeds(record: Record) -> list[Row]:
    """Rows with the images per second since the row before, which include any pause in between."""
    rows = []
    for before, row in pairwise(record.train):
        seconds = row["seconds"] - before["seconds"]
        if seconds > 0 and row["step"] > before["step"]:
            rows.append(row | {"images_per_second": (row["images"] - before["images"]) / seconds})
    return rows


def _thin(rows: list[Row]) -> list[Row]:
    """At most about :data:`POINTS` rows, evenly spread, with the last."""
    if len(rows) <= POINTS:
        return rows
    return [*rows[:: math.ceil(len(rows) / POINTS)], rows[-1]]


def finite(value: float) -> float | None:
    """What JSON can say."""
    return value if math.isfinite(value) else None


def short(text: str, most: int = 16) -> str:
    """A name that fits beside an axis."""
    return plain(text if len(text) <= most else text[: most - 1] + "…")


def plain(text: str) -> str:
    """``text`` as plotly shows it letter by letter: in its texts, a few HTML tags and entities would mean something."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
