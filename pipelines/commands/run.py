"""`tunemill run`: bring a pipeline up to date."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.checks import checks_after, checks_table
from tunemill.pipelines.commands.gates import any_blocks, gates_after, gates_table
from tunemill.pipelines.commands.leaks import leakage_after, leakage_json, leakage_tables
from tunemill.pipelines.commands.listing import show
from tunemill.pipelines.commands.on_options import add_on
from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_pipeline,
    add_state,
    note_lines,
    print_json,
    store_of,
)
from tunemill.pipelines.commands.selected import add_selection, load_selected
from tunemill.pipelines.commands.tables import evaluation_table, is_evaluation, show_run
from tunemill.pipelines.commands.watched import watched_run
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.pinned import without_node
from tunemill.pipelines.graph.selection import Selection
from tunemill.pipelines.report.comparisons import comparison_lines
from tunemill.pipelines.run.evaluated import intervals_of
from tunemill.pipelines.run.finished import Finished
from tunemill.pipelines.run.links import short_path
from tunemill.pipelines.run.record import last_report
from tunemill.resources.store import Store
from tunemill.stages.errors import SettingError

if TYPE_CHECKING:
    from tunemill.stages.evaluation.gate_outcome import Outcome


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "run", run, text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)
    add_selection(parser)
    add_on(parser)
    parser.add_argument("--verbose", action="store_true", help="list what was cached too")


def run(options: argparse.Namespace) -> int:
    """Run the pipeline; 1 if a node failed, or a gate that blocks."""
    if options.on is None and options.on_gpus:
        raise SettingError("--on-gpus: sets GPUs of a cluster aside, and asks for --on ray://HOST")
    if options.on is not None:
        # Only here: no other run needs it.
        from tunemill.pipelines.commands.on import run_there

        return run_there(options, *load_selected(options))
    return bring_up_to_date(options, *load_selected(options))


def bring_up_to_date(options: argparse.Namespace, pipeline: Pipeline, chosen: Selection) -> int:
    """Run what is chosen of a pipeline and say what became of it; 1 if a node failed, or a gate that blocks."""
    for line in note_lines(pipeline):
        print(line, file=sys.stderr)
    store = store_of(options, make=True, named=pipeline.store)
    for line in without_node(pipeline, store):
        print(f"note: {line}", file=sys.stderr)
    if pipeline.launcher.nodes > 1:
        from tunemill.pipelines.commands.join import joined_run, refuse_unknown_machine

        refuse_unknown_machine(pipeline, store, chosen)
        if pipeline.launcher.joins:
            return joined_run(options, pipeline, store, chosen)
    finished = watched_run(pipeline, store, chosen.refresh, chosen.only)
    for item in finished:
        if item.note is not None and item.state == "cached":
            # What has run has said so itself.
            print(f"{item.node}: {item.note}", file=sys.stderr)
    report = _report(pipeline, store, finished)
    gates = gates_after(pipeline, finished)
    leaks = leakage_after(pipeline, finished, store)
    checks = checks_after(pipeline, finished)
    if options.json:
        nodes = [_as_json(pipeline, item) for item in finished]
        told = {"gates": [one.as_json() for one in gates], "leaks": leakage_json(leaks)}
        told["checks"] = [one.as_json() for one in checks]
        where = {} if report is None else {"report": str(report)}
        print_json({"pipeline": pipeline.name, "nodes": nodes, **told, **where})
    else:
        show_run(finished, verbose=options.verbose)
        for part in leakage_tables(leaks):
            show(part)
        if table := checks_table(checks):
            show()
            show(table)
        _print(pipeline, finished, gates, str(store.root), report)
    is_undone = any(item.state in ("failed", "skipped") for item in finished)
    return 1 if is_undone or any_blocks(gates) else 0


def _as_json(pipeline: Pipeline, item: Finished) -> dict[str, Any]:
    """What became of a node; of an evaluation also how sure each score is."""
    sure = intervals_of(pipeline.node(item.node).stage, item.published.data) if item.published else {}
    return item.as_json() | ({"intervals": sure} if sure else {})


def _report(pipeline: Pipeline, store: Store, finished: Sequence[Finished]) -> Path | None:
    """Where the report of the run is; of one that had nothing to do that of the last one, if it has any."""
    if any(item.state in ("computed", "failed") for item in finished):
        # It takes the engine of templates, and reads what evaluations have said of rows.
        from tunemill.pipelines.report.write import keep_report

        keep_report(pipeline, store)
    return last_report(store, pipeline.name)


def _print(
    pipeline: Pipeline,
    finished: Sequence[Finished],
    gates: Sequence["Outcome"],
    state: str,
    report: Path | None,
) -> None:
    if table := gates_table(gates):
        show()
        show(table)
    if evaluations := evaluation_table(pipeline, finished):
        show()
        show(evaluations)
        for line in comparison_lines(pipeline, finished):
            show(line)
    show()
    for item in finished:
        node = pipeline.node(item.node)
        if item.published and node.stage.output.exported and not is_evaluation(pipeline, item):
            show(f"{item.node}: {short_path(pipeline, node, item.published)}")
    failed = [item.node for item in finished if item.state == "failed"]
    if report is not None:
        show(f"report: {report}")
    if failed:
        show(f"failed: {', '.join(failed)}; what is finished is kept, the same command goes on from there")
    else:
        show(f"browse it: tunemill ui {pipeline.document.path.parent} --state {state}")
