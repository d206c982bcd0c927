"""Line plots as plain SVG that follow the reader's light or dark scheme, from the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 460, 66, 128, 44, 48
GAP = 13
"""Least distance of the baselines of two labels."""
GREY, RED, BLUE = "#9a9a9a", "#cf4a3c", "#2f74d0"
RAMP = ("#2f74d0", "#7a5fc4", "#c24b8a", "#d9592f", "#c98a00")
"""Ends and middle of a ramp of colours that are as clear on black as on white."""
STYLE = (
    "<style>.paper{fill:#fff}text{fill:#222}.grid{stroke:#e4e4e4}@media (prefers-color-scheme:dark){"
    ".paper{fill:#0d1117}text{fill:#d6dbe1}.grid{stroke:#2b323b}}</style>\n"
    '<rect class="paper" width="100%" height="100%" fill="#fff"/>'
)


@dataclass(frozen=True)
class Line:
    """Points (x, y), above 0 on logarithmic axes, and the name that is written at their right end."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = GREY
    bold: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines on one pair of axes; ``log`` says which are logarithmic, ``limits`` where the upright one ends."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: str = "xy"
    limits: tuple[float, float] | None = None


def ramp(share: float) -> str:
    """The colour at ``share``, 0 to 1, of :data:`RAMP`."""
    at = share * (len(RAMP) - 1)
    i = min(int(at), len(RAMP) - 2)
    ends = ([int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in RAMP[i : i + 2])
    return "#" + "".join(f"{round(a + (b - a) * (at - i)):02x}" for a, b in zip(*ends, strict=True))


def save_plot(
    path: Path,
    panels: Sequence[Panel],
    key: Sequence[tuple[str, str]] = (),
    *,
    columns: int = 0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    right: int = RIGHT,
) -> None:
    """Writes the panels in rows of ``columns`` (one row if 0), each of ``size`` with ``right`` for names beside it.

    ``key`` says what colours mean, as (colour, text).
    """
    columns = columns or len(panels)
    across, down = LEFT + size[0] + right, TOP + size[1] + BOTTOM
    width, height = across * columns, down * math.ceil(len(panels) / columns)
    body = []
    for i, panel in enumerate(panels):
        place = f"{i % columns * across} {i // columns * down}"
        body += [f'<g transform="translate({place})">', *_panel(panel, size), "</g>"]
    x, y = LEFT, height + 2
    for colour, text in key:
        wide = 44 + 7 * len(text)
        if x > LEFT and x + wide > width:
            x, y = LEFT, y + 20
        body.append(f'<rect x="{x}" y="{y}" width="18" height="4" fill="{colour}"/>')
        body.append(f'<text x="{x + 24}" y="{y + 6}">{escape(text)}</text>')
        x += wide
    height = y + 20 if key else height
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    first = f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([first, STYLE, *body, "</svg>\n"]))


def _panel(panel: Panel, size: tuple[int, int]) -> list[str]:
    width, height = size
    xs = sorted({x for line in panel.lines for x, _ in line.points})
    ys = panel.limits or _range([y for line in panel.lines for _, y in line.points], "y" in panel.log)
    share_x, x_ticks = _axis(xs[0], xs[-1], "x" in panel.log, most=width // 40)
    share_y, y_ticks = _axis(*ys, "y" in panel.log, most=height // 22)
    x_ticks = xs if len(xs) <= 8 else x_ticks

    def at_x(x: float) -> float:
        return LEFT + width * share_x(x)

    def at_y(y: float) -> float:
        return TOP + height * (1 - share_y(min(max(y, ys[0]), ys[1])))

    middle, bottom = LEFT + width / 2, TOP + height
    parts = [
        f'<text x="{LEFT}" y="24" font-size="14" font-weight="bold">{escape(panel.title)}</text>',
        f'<text x="{middle:.1f}" y="{bottom + 38}" text-anchor="middle">{escape(panel.x)}</text>',
        f'<text x="14" y="{TOP + height / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {TOP + height / 2})">{escape(panel.y)}</text>',
    ]
    for y in y_ticks:
        parts.append(
            f'<path d="M{LEFT} {at_y(y):.1f}h{width}" class="grid"/>'
            f'<text x="{LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in x_ticks:
        parts.append(
            f'<path d="M{at_x(x):.1f} {TOP}v{height}" class="grid"/>'
            f'<text x="{at_x(x):.1f}" y="{bottom + 18}" text-anchor="middle">{x:g}</text>'
        )
    for line in sorted(panel.lines, key=lambda line: (line.dots, line.bold)):
        places = [(at_x(x), at_y(y)) for x, y in line.points]
        if line.dots:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{line.colour}"/>' for x, y in places]
        else:
            d = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            weight = 3 if line.bold else 1.5
            parts.append(f'<path d="M{d}" fill="none" stroke="{line.colour}" stroke-width="{weight}"/>')
    named = sorted((line for line in panel.lines if line.name), key=lambda line: at_y(line.points[-1][1]))
    labels = _apart([at_y(line.points[-1][1]) for line in named], TOP, bottom)
    for line, label in zip(named, labels, strict=True):
        end_x, end_y = at_x(line.points[-1][0]) + 2, at_y(line.points[-1][1])
        weight = ' font-weight="bold"' if line.bold else ""
        parts.append(
            f'<path d="M{end_x:.1f} {end_y:.1f}L{end_x + 16:.1f} {label:.1f}" stroke="{line.colour}" '
            f'stroke-width="0.7"/><text x="{end_x + 19:.1f}" y="{label + 4:.1f}" style="fill:{line.colour}"'
            f"{weight}>{escape(line.name)}</text>"
        )
    return parts


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    """The least and greatest of ``values`` with a margin."""
    low, high = min(values), max(values)
    margin = 0.04 * (high - low or 1)
    return (low * math.exp(-0.1), high * math.exp(0.1)) if log else (low - margin, high + margin)


def _axis(low: float, high: float, log: bool, most: int) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between ``low`` and ``high``, 0 to 1, and the values to mark, about ``most``."""
    if log:
        span = max(math.log(high / low), 1e-9)
        return lambda value: math.log(value / low) / span, _log_ticks(low, high, most)
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 2))
    step = next(m * power for m in (1, 2, 5, 10, 20, 50) if span / (m * power) <= min(most, 6))
    ticks = [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return lambda value: (value - low) / span, ticks


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten between ``low`` and ``high``; the powers alone, or fewer, if those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high * (1 + 1e-9)]
    if len(ticks) <= most:
        return ticks
    whole = [10.0**p for p in powers if low <= 10.0**p <= high * (1 + 1e-9)]
    return whole[:: math.ceil(len(whole) / most)]


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
