"""The report of a run: one page for a browser that needs nothing else, no network and no script."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tunemill.pipelines.report.parts import Parts

TEMPLATE = Path(__file__).with_name("report.html.jinja")
# Of a text in a table; what is longer is cut.
LONGEST_CELL = 600


def page(parts: Parts) -> str:
    """The whole page. Every text in it is escaped; pictures are our own."""
    return _environment().from_string(TEMPLATE.read_text("utf-8")).render(**vars(parts))


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cut"] = cut
    environment.filters["picture"] = Markup
    return environment


def cut(value: Any) -> str:
    """A text for a cell, not longer than a reader would read."""
    text = "" if value is None else str(value)
    return (
        text
        if len(text) <= LONGEST_CELL
        else f"{text[:LONGEST_CELL]}… ({len(text) - LONGEST_CELL} more characters)"
    )
