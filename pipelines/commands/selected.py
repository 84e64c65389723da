"""`--only` and `--refresh`: a pipeline, and which of its nodes are meant."""

import argparse
from collections.abc import Callable

from tunemill.pipelines.commands.options import store_of
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import LookAt, everything
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import needed_nodes
from tunemill.pipelines.graph.selection import Selection, selection

NOT_CHOSEN = Selection()
WORDS = "nodes, stages, groups (data, models, training, evaluation) or patterns such as 'evaluation_*'"


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The options."""
    for option, text in (
        ("--only", "bring these up to date and what they need, and leave the rest alone"),
        ("--refresh", "compute these again although they are cached"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar="NODES", help=f"{text}: {WORDS}, with commas between"
        )


def load_selected(options: argparse.Namespace) -> tuple[Pipeline, Selection]:
    """The pipeline of the command line, and what is asked for. Raises ConfigError for words that mean nothing.

    Of what is left alone, and of what is pinned, no file has to be there.
    """
    if not options.only:
        pipeline = load_needed(options, everything)
        chosen = selection(pipeline, (), options.refresh)
        # What is asked for again is looked at although only pinned nodes would need it.
        return (load_needed(options, everything, chosen) if options.refresh else pipeline), chosen
    chosen = selection(load_pipeline(options.pipeline, options.overrides), options.only, options.refresh)
    return load_needed(options, everything, chosen), chosen


def _all(pipeline: Pipeline) -> Pipeline:
    return pipeline


def load_needed(
    options: argparse.Namespace,
    look_at: LookAt,
    chosen: Selection = NOT_CHOSEN,
    part: Callable[[Pipeline], Pipeline] = _all,
) -> Pipeline:
    """The pipeline of the command line, or its `part`, with a look at files: of nodes of `look_at` that may run."""
    store = store_of(options, named=None)
    if chosen.only is None and not store.pins.names():
        return part(load_pipeline(options.pipeline, options.overrides, look_at))
    unseen = load_pipeline(options.pipeline, options.overrides)
    pinned = store.pins.of(unseen.name)
    needed = needed_nodes(part(unseen), pinned, chosen.only, chosen.refresh) - pinned.keys()
    seen = load_pipeline(
        options.pipeline, options.overrides, lambda node: node.name in needed and look_at(node)
    )
    return part(seen)
