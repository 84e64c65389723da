"""What the report tells of prepared rows: figures, tables, lengths, and rows with what is trained on in colour."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.run.figures import figure
from tunemill.resources.store import Published
from tunemill.stages.plot_svg import plot_svg

# The columns of a table that shows rows in pieces: which row, whether the piece is trained on, its text.
ROW, LABELS, TEXT = "example", "labels", "text"
TRAINED = "trained"
SAMPLES_SHOWN = 3


@dataclass(frozen=True)
class DataPart:
    """A node of data. `samples` are rows in pieces, each a text and whether it is trained on."""

    node: str
    figures: str
    samples: Sequence[Sequence[tuple[str, bool]]]
    tables: Sequence[Mapping[str, Any]]
    plots: Sequence[Mapping[str, str]]


def data_part(node: Node, published: Published) -> DataPart:
    """Read it out of the manifest."""
    manifest = published.manifest
    said = [
        (name.replace("_", " "), value) for name, value in manifest["metrics"].items() if value is not None
    ]
    pieces = [table for table in manifest["tables"] if {ROW, LABELS, TEXT}.issubset(table["columns"])]
    return DataPart(
        node=node.name,
        figures=", ".join(f"{name} {figure(value)}" for name, value in said),
        samples=[sample for table in pieces for sample in _samples(table)],
        tables=[table for table in manifest["tables"] if table not in pieces],
        plots=[{"title": plot["title"], "svg": plot_svg(plot)} for plot in manifest["plots"]],
    )


def _samples(table: Mapping[str, Any]) -> Iterator[list[tuple[str, bool]]]:
    row, labels, text = (table["columns"].index(name) for name in (ROW, LABELS, TEXT))
    rows = groupby(table["rows"], key=lambda cells: cells[row])
    for number, (_, pieces) in enumerate(rows):
        if number < SAMPLES_SHOWN:
            yield [(str(cells[text]), cells[labels] == TRAINED) for cells in pieces]
