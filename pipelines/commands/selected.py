"""`--only` and `--refresh`: a pipeline, and which of its nodes are meant."""

import argparse

from tunemill.pipelines.graph.keys import with_upstream
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.selection import Selection, selection

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

    Of what is left alone, no file has to be there.
    """
    if not options.only:
        pipeline = load_pipeline(options.pipeline, options.overrides, everything)
        return pipeline, selection(pipeline, (), options.refresh)
    unseen = load_pipeline(options.pipeline, options.overrides)
    chosen = selection(unseen, options.only, options.refresh)
    needed = with_upstream(unseen, chosen.only or ())
    looked_at = load_pipeline(options.pipeline, options.overrides, lambda node: node.name in needed)
    return looked_at, chosen
