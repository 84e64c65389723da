"""Several curves in one picture, as SVG: loss of what is trained on and of what is held out."""

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from tunemill.stages.plot_svg import ticks

Point = tuple[float, float]
WIDTH, HEIGHT = 720, 180
LEFT, RIGHT, TOP, BOTTOM = 68, 16, 10, 36
COLOURS = ("#3b82f6", "#f97316", "#22a06b", "#8b5cf6", "#a16207")
# A page may give the picture its own colours.
BACK, GRID, TEXT = "var(--picture, #ffffff)", "var(--picture-grid, #e2e2e2)", "var(--picture-text, #444444)"
# More points than this are not told apart, and only make the picture long.
MOST_POINTS = 150
# Where the highest value is so many times the lowest, a linear axis would hide the low ones.
LOG_FROM = 30


def curves_svg(
    curves: Mapping[str, Sequence[Point]], x_label: str, y_label: str, *, falling: bool = True
) -> str:
    """The text of an SVG picture of lines over the same axes, each with its name.

    What is `falling` has a logarithmic axis where it falls far.
    """
    drawn = {name: thinned(points, MOST_POINTS) for name, points in curves.items() if points}
    values = [y for points in drawn.values() for _, y in points]
    is_log = falling and bool(values) and min(values) > 0 and max(values) / min(values) > LOG_FROM
    if is_log:
        drawn = {name: [(x, math.log10(y)) for x, y in points] for name, points in drawn.items()}
        y_label = f"{y_label}, log"
    across = _range([x for points in drawn.values() for x, _ in points])
    up = _range([y for points in drawn.values() for _, y in points])
    x_at = _scale(across, LEFT, WIDTH - RIGHT)
    y_at = _scale(up, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(ticks(*across), _heights(*up, is_log=is_log), x_at, y_at)]
    for number, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(_line([(f"{x_at(x):.1f}", f"{y_at(y):.1f}") for x, y in points], colour))
        parts += _named(name, colour, number) if len(drawn) > 1 else ()
    parts.append(_text(WIDTH / 2, HEIGHT - 4, x_label))
    parts.append(
        f'<g transform="translate(14,{(HEIGHT - BOTTOM) / 2 + TOP:g}) rotate(-90)">{_text(0, 0, y_label)}</g>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" font-family="sans-serif" font-size="12"><title>{escape(y_label)} by {escape(x_label)}</title>'
        f'<rect width="100%" height="100%" fill="{BACK}"/>{"".join(parts)}</svg>'
    )


def picture(svg: str, words: str) -> str:
    """A picture in Markdown, with the words that stand for it."""
    # Brackets would end the words.
    words = words.replace("[", "(").replace("]", ")")
    return f"![{words}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def points_of(plot: Mapping[str, Any]) -> list[Point]:
    """The points of a plot event that can be drawn."""
    pairs = ((float(x), float(y)) for x, y in zip(plot["x"], plot["y"], strict=True))
    return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points: of neighbours that would be drawn as one, the mean."""
    together = -(-len(points) // most)
    if together <= 1:
        return list(points)
    groups = (points[first : first + together] for first in range(0, len(points), together))
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    around = max(abs(low), 1.0) / 2
    return (low, high) if high > low else (low - around, high + around)


def _scale(ends: tuple[float, float], start: float, end: float) -> Callable[[float], float]:
    low, high = ends
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _heights(low: float, high: float, *, is_log: bool) -> list[tuple[float, str]]:
    """Where the grid has its lines, and what stands at each."""
    if not is_log:
        return [(tick, f"{tick:g}") for tick in ticks(low, high)]
    return [(power, f"{10.0**power:g}") for power in range(math.ceil(low), math.floor(high) + 1)]


def _grid(
    across: Sequence[float],
    up: Sequence[tuple[float, str]],
    x_at: Callable[[float], float],
    y_at: Callable[[float], float],
) -> Iterator[str]:
    for tick in across:
        yield f'<path d="M{x_at(tick):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>'
        yield _text(f"{x_at(tick):.1f}", HEIGHT - BOTTOM + 15, f"{tick:g}")
    for tick, words in up:
        yield f'<path d="M{LEFT} {y_at(tick):.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>'
        yield _text(LEFT - 6, round(y_at(tick) + 4, 1), words, "end")


def _line(at: Sequence[tuple[str, str]], colour: str) -> str:
    dots = (
        "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in at) if len(at) <= 12 else ""
    )
    through = " ".join(f"{x},{y}" for x, y in at)
    return f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'


def _named(name: str, colour: str, number: int) -> Iterator[str]:
    y = TOP + 16 + 18 * number
    yield f'<path d="M{WIDTH - 190} {y - 4}h22" stroke="{colour}" stroke-width="4"/>'
    yield _text(WIDTH - 162, y, name, "start")


def _text(x: float | str, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y:g}" text-anchor="{anchor}" fill="{TEXT}">{escape(text)}</text>'
