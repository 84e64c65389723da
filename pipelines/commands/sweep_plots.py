"""Plots of several points as SVG: losses by step, and parallel coordinates from settings to a figure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tunemill.pipelines.config.sweep_points import text_of_value
from tunemill.pipelines.run.figures import figure
from tunemill.stages.plot_svg import GRID, TEXT, ticks

WIDTH, HEIGHT = 900, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 30, 45
# From this ratio of the largest to the smallest on, numbers above 0 stand by their logarithms.
LOGARITHMIC_FROM = 50.0


@dataclass(frozen=True)
class Line:
    """Step -> value of one point; broken where the point is not finished."""

    name: str
    colour: str
    values: Mapping[int, float]
    dashed: bool = False


def curves_svg(title: str, lines: Sequence[Line]) -> str:
    """All lines over the same steps. What is no finite number is left out."""
    points = [(step, value) for line in lines for step, value in line.values.items() if math.isfinite(value)]
    low_x, high_x = _range([float(step) for step, _ in points])
    low_y, high_y = _range([value for _, value in points])
    parts = [*_grid((low_x, high_x), (low_y, high_y))]
    for line in lines:
        told = sorted((step, value) for step, value in line.values.items() if math.isfinite(value))
        places = [
            f"{_across(step, low_x, high_x):.1f},{_up(value, low_y, high_y):.1f}" for step, value in told
        ]
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        shape = (
            f'<polyline points="{" ".join(places)}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}>'
            f"<title>{escape(line.name)}</title></polyline>"
        )
        parts.append(shape)
        if places:
            x, y = places[-1].split(",")
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="3" fill="{line.colour}"><title>{escape(line.name)}</title></circle>'
            )
    parts.append(_text(WIDTH / 2, HEIGHT - 8, "step"))
    return _picture(title, parts)


def coordinates_svg(axes: Sequence[str], points: Sequence[tuple[str, str, Sequence[object]]]) -> str:
    """An axis for each setting and the figure, and a line for each point: its name, its colour, its values."""
    room = WIDTH - LEFT - RIGHT - 60
    across = [LEFT + room * number / max(1, len(axes) - 1) for number in range(len(axes))]
    parts: list[str] = []
    words: list[str] = []
    places: list[list[float]] = []
    for number, (name, x) in enumerate(zip(axes, across, strict=True)):
        found, labels = _axis([values[number] for _, _, values in points])
        places.append(found)
        parts.append(f'<path d="M{x:.1f} {TOP + 10}V{HEIGHT - BOTTOM}" stroke="{GRID}" stroke-width="2"/>')
        anchor = "start" if number == 0 else "end" if number == len(axes) - 1 else "middle"
        words.append(_text(x, TOP - 8, name, anchor))
        words += [_text(x + 6, _height(share) + 4, label, "start") for share, label in dict.fromkeys(labels)]
    for index, (name, colour, _) in enumerate(points):
        line = " ".join(
            f"{x:.1f},{_height(found[index]):.1f}" for x, found in zip(across, places, strict=True)
        )
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-opacity=".8">'
            f"<title>{escape(name)}</title></polyline>"
        )
    return _picture("parallel coordinates", [*parts, *words])


def _axis(values: Sequence[object]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where each value stands, from 0 (below) to 1, and what is written at the axis.

    Numbers by their size, or by its logarithm where they are of several orders; all else in the order of the points.
    """
    numbers = [
        float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(numbers) < len(values):
        texts = list(dict.fromkeys(map(text_of_value, values)))
        step = 1 / max(1, len(texts) - 1)
        places = [texts.index(text_of_value(value)) * step for value in values]
        return places, [(number * step, text) for number, text in enumerate(texts)]
    if min(numbers) > 0 and max(numbers) / min(numbers) >= LOGARITHMIC_FROM:
        scaled = [math.log(number) for number in numbers]
    else:
        scaled = numbers
    low, high = min(scaled), max(scaled)
    shares = [(one - low) / (high - low) if high > low else 0.5 for one in scaled]
    return shares, _apart(sorted(zip(shares, map(figure, numbers), strict=True)))


def _apart(labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Labels that do not lie over each other; the first and the last stay."""
    kept: list[tuple[float, str]] = []
    for share, text in labels:
        if not kept or share - kept[-1][0] >= 0.06:
            kept.append((share, text))
    if kept and kept[-1] != labels[-1] and labels[-1][0] > kept[-1][0]:
        kept[-1] = labels[-1]
    return kept


def _height(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP - 10)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _across(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _up(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)


def _grid(across: tuple[float, float], up: tuple[float, float]) -> Iterator[str]:
    for x in ticks(*across):
        place = _across(x, *across)
        yield f'<path d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>'
        yield _text(place, HEIGHT - BOTTOM + 16, f"{x:g}")
    for y in ticks(*up):
        place = _up(y, *up)
        yield f'<path d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>'
        yield _text(LEFT - 6, place + 4, f"{y:.4g}", "end")


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{TEXT}" stroke="white" stroke-width="3" '
        f'paint-order="stroke">{escape(words)}</text>'
    )


def _picture(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )
