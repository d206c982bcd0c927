"""Log-log line plots as plain SVG, from the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 460, 56, 128, 44, 48
GAP = 13
"""Least distance of the baselines of two labels."""
GREY, RED, BLUE = "#9a9a9a", "#c0392b", "#1f5fbf"


@dataclass(frozen=True)
class Line:
    """Points (x, y), both above 0, and the name that is written at their right end."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = GREY
    bold: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    lines: Sequence[Line]


def save_plot(path: Path, panels: Sequence[Panel], key: Sequence[tuple[str, str]] = ()) -> None:
    """Writes the panels side by side; ``key`` says what colours mean, as (colour, text)."""
    step = LEFT + WIDTH + RIGHT
    height = TOP + HEIGHT + BOTTOM + (22 if key else 0)
    body = [part for i, panel in enumerate(panels) for part in _panel(panel, i * step)]
    x = LEFT
    for colour, text in key:
        body.append(f'<rect x="{x}" y="{height - 20}" width="18" height="4" fill="{colour}"/>')
        body.append(f'<text x="{x + 24}" y="{height - 14}">{escape(text)}</text>')
        x += 44 + 7 * len(text)
    size = f'width="{step * len(panels)}" height="{height}" viewBox="0 0 {step * len(panels)} {height}"'
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', background, *body, "</svg>\n"])
    )


def _panel(panel: Panel, left: float) -> list[str]:
    xs = sorted({x for line in panel.lines for x, _ in line.points})
    ys = sorted(y for line in panel.lines for _, y in line.points)
    low, high = math.log(ys[0]) - 0.1, math.log(ys[-1]) + 0.1
    span = max(math.log(xs[-1] / xs[0]), 1e-9)

    def at_x(x: float) -> float:
        return left + LEFT + WIDTH * math.log(x / xs[0]) / span

    def at_y(y: float) -> float:
        return TOP + HEIGHT * (high - math.log(y)) / (high - low)

    middle, bottom = left + LEFT + WIDTH / 2, TOP + HEIGHT
    parts = [
        f'<text x="{left + LEFT}" y="24" font-size="14" font-weight="bold">{escape(panel.title)}</text>',
        f'<text x="{middle:.1f}" y="{bottom + 38}" text-anchor="middle">{escape(panel.x)}</text>',
        f'<text x="{left + 14}" y="{TOP + HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 {left + 14} {TOP + HEIGHT / 2})">{escape(panel.y)}</text>',
    ]
    for y in _ticks(math.exp(low), math.exp(high)):
        parts.append(
            f'<path d="M{left + LEFT} {at_y(y):.1f}h{WIDTH}" stroke="#e4e4e4"/>'
            f'<text x="{left + LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in xs:
        parts.append(
            f'<path d="M{at_x(x):.1f} {TOP}v{HEIGHT}" stroke="#e4e4e4"/>'
            f'<text x="{at_x(x):.1f}" y="{bottom + 18}" text-anchor="middle">{x:g}</text>'
        )
    lines = sorted(panel.lines, key=lambda line: line.points[-1][1], reverse=True)
    heights = _apart([at_y(line.points[-1][1]) for line in lines], TOP, TOP + HEIGHT)
    for line, label in sorted(zip(lines, heights, strict=True), key=lambda pair: pair[0].bold):
        d = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in line.points)
        weight = ' font-weight="bold"' if line.bold else ""
        end_x, end_y = (f(v) for f, v in zip((at_x, at_y), line.points[-1], strict=True))
        parts.append(
            f'<path d="M{d}" fill="none" stroke="{line.colour}" stroke-width="{3 if line.bold else 1.5}"/>'
            f'<path d="M{end_x + 2:.1f} {end_y:.1f}L{end_x + 18:.1f} {label:.1f}" stroke="{line.colour}" '
            f'stroke-width="0.7"/><text x="{end_x + 21:.1f}" y="{label + 4:.1f}" fill="{line.colour}"'
            f"{weight}>{escape(line.name)}</text>"
        )
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between ``low`` and ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _apart(heights: list[float], top: float, bottom: float) -> list[float]:
    """Ascending ``heights`` moved as little as need be for :data:`GAP` between each two, within the panel."""
    moved: list[float] = []
    for h in heights:
        moved.append(max(h, moved[-1] + GAP if moved else top))
    limit = bottom
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - GAP
    return moved
