"""A sweep as one page for a browser: its points, parallel coordinates, losses. No script, nothing fetched."""

from collections.abc import Mapping, Sequence
from html import escape

from tunemill.pipelines.commands.diff_html import STYLE
from tunemill.pipelines.commands.sweep_best import Best
from tunemill.pipelines.commands.sweep_plots import Line, coordinates_svg, curves_svg
from tunemill.pipelines.commands.sweep_text import keys_of, rows_of, words_of
from tunemill.pipelines.graph.sweep import Sweep
from tunemill.pipelines.run.figures import count_of
from tunemill.pipelines.run.sweep import PointRun

OWN_STYLE = """
table { table-layout: auto; } th:first-child { width: auto; } svg { max-width: 100%; height: auto; }
td { overflow-wrap: normal; white-space: nowrap; } td:first-child, td:last-child { white-space: normal; }
td:first-child { overflow-wrap: anywhere; } tr.best td { font-weight: bold; }
i { display: inline-block; width: 1.2em; height: .7em; margin-right: .4em; }
"""


def page(sweep: Sweep, points: Sequence[PointRun], best: Best | None) -> str:
    """The whole page."""
    title = f"The sweep {sweep.name}"
    colours = colours_of(points)
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in words_of(sweep, points, best)),
        _table(points, best, colours),
    ]
    if best is not None and len(best.ranked) > 1:
        body += [
            "<h2>Which settings lead where</h2>",
            f"<p>A line for each finished point, from its settings to its {escape(best.metric)}.</p>",
            coordinates_svg([*keys_of(points), best.metric], _coordinates(points, best, colours)),
        ]
    for words, kind in (("Held-out loss", "held_out"), ("Training loss", "loss")):
        lines = [
            Line(
                point.name, colours[point.name], getattr(point.curve, kind), dashed=point.state != "finished"
            )
            for point in points
            if getattr(point.curve, kind)
        ]
        if lines:
            body += [f"<h2>{words} of {count_of(len(lines), 'point')}</h2>", curves_svg(words, lines)]
    if any(point.state == "stopped" for point in points):
        body.append("<p>A broken line is of a point that was stopped: it is no finished training.</p>")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}{OWN_STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def colours_of(points: Sequence[PointRun]) -> dict[str, str]:
    """A colour for each point, as far from each other as so many can be."""
    return {
        point.name: f"hsl({round(360 * number / max(1, len(points)))},65%,45%)"
        for number, point in enumerate(points)
    }


def _table(points: Sequence[PointRun], best: Best | None, colours: Mapping[str, str]) -> str:
    metric = "figure" if best is None else best.metric
    headings = ("point", *keys_of(points), "state", metric, "why")
    lines = ["<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in headings) + "</tr>"]
    first = None if best is None or best.better == "neither" else best.ranked[0].point.name
    for name, *cells in rows_of(points, best):
        mark = ' class="best"' if name == first else ""
        colour = f'<i style="background:{colours[name]}"></i>'
        rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr{mark}><td>{colour}{escape(name)}</td>{rest}</tr>")
    return "\n".join([*lines, "</table>"])


def _coordinates(
    points: Sequence[PointRun], best: Best, colours: Mapping[str, str]
) -> list[tuple[str, str, list[object]]]:
    """Name, colour and values of each finished point on the axes: its settings, and its figure."""
    values = {one.point.name: one.value for one in best.ranked}
    return [
        (
            point.name,
            colours[point.name],
            [*(point.pipeline.point.values.get(key) for key in keys_of(points)), values[point.name]],
        )
        for point in points
        if point.name in values and point.pipeline.point is not None
    ]
