"""A plot as SVG, which a browser draws: a library that draws takes a second of every run that has a plot."""

import math
from collections.abc import Callable, Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT = 700, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 15, 30, 45
LINE, GRID, TEXT = "#1f77b4", "#dddddd", "#333333"
TICKS = 6

Scale = Callable[[float], float]


def plot_svg(plot: Mapping[str, Any]) -> str:
    """The text of an SVG picture of a plot event: bars, or a line through its points."""
    xs, ys = [float(x) for x in plot["x"]], [float(y) for y in plot["y"]]
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    gap = min((b - a for a, b in pairwise(xs)), default=1.0) if plot["bars"] else 0.0
    across = _range([x for x, _ in points], gap / 2)
    up = _range([*(y for _, y in points), *([0.0] if plot["bars"] else [])], 0.0)
    x_at = _scale(*across, LEFT, WIDTH - RIGHT)
    y_at = _scale(*up, HEIGHT - BOTTOM, TOP)
    parts = [
        *_grid(across, up, x_at, y_at),
        *(_bars(points, gap, x_at, y_at) if plot["bars"] else [_line(points, x_at, y_at)]),
        _text(WIDTH / 2, TOP - 12, plot["title"], "middle"),
        _text(WIDTH / 2, HEIGHT - 8, plot["x_label"], "middle"),
        _text(0, 0, plot["y_label"], "middle", f"translate(14,{HEIGHT / 2:g}) rotate(-90)"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, at most seven or so."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _range(values: list[float], margin: float) -> tuple[float, float]:
    low, high = min(values, default=0.0) - margin, max(values, default=1.0) + margin
    around = max(abs(low), 1.0) / 2
    return (low, high) if high > low else (low - around, high + around)


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _grid(across: tuple[float, float], up: tuple[float, float], x_at: Scale, y_at: Scale) -> Iterator[str]:
    for x in ticks(*across):
        place = f"{x_at(x):.1f}"
        yield f'<path d="M{place} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>'
        yield _text(x_at(x), HEIGHT - BOTTOM + 16, f"{x:g}", "middle")
    for y in ticks(*up):
        yield f'<path d="M{LEFT} {y_at(y):.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>'
        yield _text(LEFT - 6, y_at(y) + 4, f"{y:g}", "end")


def _bars(points: list[tuple[float, float]], gap: float, x_at: Scale, y_at: Scale) -> Iterator[str]:
    for x, y in points:
        left, right = x_at(x - 0.45 * gap), x_at(x + 0.45 * gap)
        top, bottom = sorted((y_at(y), y_at(0.0)))
        yield (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="{LINE}"/>'
        )


def _line(points: list[tuple[float, float]], x_at: Scale, y_at: Scale) -> str:
    through = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
    return f'<polyline points="{through}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, anchor: str, transform: str = "") -> str:
    moved = f' transform="{transform}"' if transform else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{TEXT}"{moved}>{escape(str(text))}</text>'
