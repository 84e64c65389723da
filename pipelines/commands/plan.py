"""`tunemill plan`: what would run, and why."""

import argparse
from dataclasses import asdict
from typing import Any

from tunemill.pipelines.commands.gates import gates_before, gates_table
from tunemill.pipelines.commands.listing import show
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
from tunemill.pipelines.commands.tables import plan_table
from tunemill.pipelines.config.launcher_keys import GlobalBatch
from tunemill.pipelines.graph.looks import everything
from tunemill.pipelines.graph.pinned import without_node
from tunemill.pipelines.graph.plan import Planned, make_plan
from tunemill.pipelines.graph.sweep import is_sweep, load_sweep
from tunemill.pipelines.graph.without_pins import Unpinned, without_pins
from tunemill.pipelines.run.estimate import estimate
from tunemill.stages.errors import SettingError


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "plan", plan, text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)
    add_selection(parser)
    parser.add_argument(
        "--memory",
        action="store_true",
        help="estimate what each training will take of its device, without loading the model",
    )


def plan(options: argparse.Namespace) -> int:
    """Print the plan; of a sweep that of all its points."""
    if is_sweep(options.pipeline, options.overrides):
        return _plan_of_sweep(options)
    pipeline, chosen = load_selected(options)
    store = store_of(options, named=pipeline.store, looks=True)
    planned = make_plan(pipeline, store, chosen.refresh, chosen.only)
    unpinned = without_pins(pipeline, store, planned)
    strays = without_node(pipeline, store)
    estimated = estimate(planned)
    gates = gates_before(pipeline, planned)
    if options.json:
        memory = {}
        if options.memory:
            from tunemill.pipelines.commands.memory import memory_json

            memory = {"memory": memory_json(planned, store)}
        print_json(
            {
                "pipeline": pipeline.name,
                "nodes": [_as_json(item, unpinned.get(item.node.name)) for item in planned],
                "estimated_seconds": estimated.seconds,
                "notes": [note.as_json() for note in pipeline.notes],
                "pins_without_node": strays,
                "gates": [one.as_json() for one in gates],
                **batch_json(pipeline.batch),
                **memory,
            }
        )
        return 0
    for line in note_lines(pipeline):
        show(line)
    for line in strays:
        show(f"note: {line}")
    show(plan_table(planned, unpinned))
    if table := gates_table(gates):
        show()
        show(table)
    if pipeline.batch is not None:
        show(f"\n{pipeline.batch}")
    to_run = sum(item.state == "run" for item in planned)
    show(f"\n{to_run} of {len(planned)} nodes to run; {estimated}" if to_run else "\nnothing to run")
    if options.memory:
        from tunemill.pipelines.commands.memory import show_memory

        show_memory(planned, store)
    return 0


def _plan_of_sweep(options: argparse.Namespace) -> int:
    from tunemill.pipelines.commands.sweep_tables import show_sweep_plan, sweep_plan_json
    from tunemill.pipelines.graph.sweep_plan import plan_sweep

    if options.memory:
        raise SettingError("--memory: is of one training; name a point of the sweep with --point NAME")
    sweep = load_sweep(options.pipeline, options.overrides, everything)
    points = plan_sweep(
        sweep, store_of(options, named=sweep.store, looks=True), options.only, options.refresh
    )
    if options.json:
        print_json(sweep_plan_json(sweep, points))
    else:
        show_sweep_plan(sweep, points)
    return 0


def batch_json(batch: GlobalBatch | None) -> dict[str, Any]:
    """What goes into a step, where the keys of training do not say it by themselves."""
    return {} if batch is None else {"global_batch": {"size": batch.size, **asdict(batch)}}


def _as_json(item: Planned, unpinned: Unpinned | None) -> dict[str, Any]:
    return {**item.as_json(), "without_pin": None if unpinned is None else unpinned.as_json()}
