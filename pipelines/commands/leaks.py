"""Held-out rows that are trained on, as a table."""

from collections.abc import Iterable, Iterator, Sequence

from tunemill.pipelines.commands.listing import Listing, listing
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.run.finished import Finished
from tunemill.pipelines.run.leaks import Leakage, leakage_of
from tunemill.resources.store import Store


def leakage_after(pipeline: Pipeline, finished: Iterable[Finished], store: Store) -> list[Leakage]:
    """What was found by the nodes of a run, cached ones too."""
    return leakage_of(pipeline, {item.node: item.published for item in finished if item.published}, store)


def leakage_tables(found: Sequence[Leakage]) -> Iterator[Listing | str]:
    """A sentence and a table for each node that has found something."""
    for one in found:
        more = f"; the first {len(one.first)}" if one.leaked > len(one.first) else ""
        yield f"warning: {one.leaked} of {one.rows} held-out rows are trained on{more}:"
        rows = [(leak.held_out, leak.trained, f"{leak.share:.0%}", leak.text) for leak in one.first]
        yield listing(("held out", "trained on", "share", "text"), rows)


def leakage_json(found: Sequence[Leakage]) -> list[dict[str, object]]:
    """The same for a program."""
    return [
        {
            "node": one.node,
            "held_out_rows": one.rows,
            "leaked_rows": one.leaked,
            "first": [leak.as_json() for leak in one.first],
        }
        for one in found
    ]
