"""`tunemill preprocess`: prepare the data of a pipeline, look at it, take it away."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tunemill.pipelines.commands.examples import ShownRow, shown_rows
from tunemill.pipelines.commands.leaks import leakage_after, leakage_json, leakage_tables
from tunemill.pipelines.commands.listing import stdout
from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_pipeline,
    add_state,
    count_of,
    print_json,
    store_of,
)
from tunemill.pipelines.commands.selected import load_needed
from tunemill.pipelines.commands.tables import data_tables, show_run
from tunemill.pipelines.commands.watched import watched_run
from tunemill.pipelines.graph.looks import only_data
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.run.export import export_rows
from tunemill.pipelines.run.finished import Finished
from tunemill.pipelines.run.leaks import Leakage
from tunemill.resources.local import local_path
from tunemill.stages.artifacts import Artifact, Tokenizer
from tunemill.stages.declaration import Stage

DEBUG_EXAMPLES = 5


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "preprocess", preprocess, text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)
    parser.add_argument(
        "--export",
        metavar="FILE.parquet",
        help="write the prepared training rows, in training order",
    )
    parser.add_argument("--verbose", action="store_true", help="list what was cached too")
    add_debug(parser)


def add_debug(parser: argparse.ArgumentParser) -> None:
    """The options that show rows."""
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show rows of each dataset token by token: trained, scored or masked",
    )
    parser.add_argument(
        "--debug-num-examples",
        type=count_of("rows"),
        metavar="N",
        help=f"show N rows of each dataset (default: {DEBUG_EXAMPLES}); implies --debug",
    )
    parser.add_argument(
        "--debug-text-only",
        action="store_true",
        help="show the texts of these rows as they are, not their tokens; implies --debug",
    )


def preprocess(options: argparse.Namespace) -> int:
    """Run the pipeline up to its training data; 1 if a node failed."""
    pipeline = load_needed(options, only_data, part=Pipeline.data)
    target = None if options.export is None else local_path(options.export, "the file to export to")
    store = store_of(options, make=True, named=pipeline.store)
    finished = watched_run(pipeline, store)
    failed = any(item.state in ("failed", "skipped") for item in finished)
    examples = [] if failed else list(_examples(options, pipeline, finished))
    exported = None
    if target is not None and not failed:
        exported = _export(pipeline, finished, target)
    leaks = leakage_after(pipeline, finished, store)
    if options.json:
        _print_json(options, pipeline, finished, examples, exported, leaks)
    else:
        _print(options, pipeline, finished, examples, exported, leaks)
    return 1 if failed else 0


def _export(pipeline: Pipeline, finished: Sequence[Finished], target: Path) -> int:
    """Write the rows of the first node that can be exported: those that are trained on."""
    node = next(node for node in pipeline.nodes if node.stage.export is not None)
    assert node.stage.export is not None
    return export_rows(_published(finished, node.name), node.stage.export, target)


def _published(finished: Sequence[Finished], node: str) -> Any:
    return next(item.published for item in finished if item.node == node)


def _examples(
    options: argparse.Namespace, pipeline: Pipeline, finished: Sequence[Finished]
) -> list[ShownRow]:
    if not debugs(options):
        return []
    count = DEBUG_EXAMPLES if options.debug_num_examples is None else options.debug_num_examples
    shown: list[ShownRow] = []
    for node in pipeline.nodes:
        if node.stage.shows is not None:
            shown += shown_rows(
                node.about or node.name,
                _published(finished, node.name),
                _published(finished, _upstream(node, Tokenizer)),
                node.stage.shows,
                count,
                text_only=options.debug_text_only,
            )
    return shown


def debugs(options: argparse.Namespace) -> bool:
    """Whether rows are shown."""
    return options.debug or options.debug_text_only or options.debug_num_examples is not None


def _upstream(node: Node, artifact: type[Artifact]) -> str:
    """The node that gives a node its artifact of this type."""
    (name,) = (name for name, declared in node.stage.inputs.items() if declared.artifact is artifact)
    (upstream,) = node.inputs[name]
    return upstream


def _print_json(
    options: argparse.Namespace,
    pipeline: Pipeline,
    finished: Sequence[Finished],
    examples: Sequence[ShownRow],
    exported: int | None,
    leaks: Sequence[Leakage],
) -> None:
    tables = {
        item.node: {table["title"]: table for table in item.published.manifest["tables"]}
        for item in finished
        if item.published
    }
    print_json(
        {
            "pipeline": pipeline.name,
            "nodes": [{**item.as_json(), "tables": tables.get(item.node, {})} for item in finished],
            "leaks": leakage_json(leaks),
            "examples": [row.as_json() for row in examples],
            "exported": None if exported is None else {"path": str(options.export), "rows": exported},
        }
    )


def _print(
    options: argparse.Namespace,
    pipeline: Pipeline,
    finished: Sequence[Finished],
    examples: Sequence[ShownRow],
    exported: int | None,
    leaks: Sequence[Leakage],
) -> None:
    console = stdout()
    show_run(finished, verbose=options.verbose)
    for item in finished:
        _print_data(console, item, pipeline.node(item.node).stage, show_examples=debugs(options))
    for part in leakage_tables(leaks):
        console.print(part, markup=False, soft_wrap=isinstance(part, str))
    for row in examples:
        console.print()
        console.print(row.text(), soft_wrap=True)
    if exported is not None:
        console.print(f"\n{exported} rows written to {options.export}", soft_wrap=True)


def _print_data(console: Console, item: Finished, stage: Stage, *, show_examples: bool) -> None:
    """Figures, tables and plots of one node."""
    for title, content in data_tables(item, stage, show_examples=show_examples):
        console.print()
        console.print(Text(title, "bold"))
        console.print(content)
