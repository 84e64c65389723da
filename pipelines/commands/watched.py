"""A run that a person watches: progress on stderr, and a word on what can be resumed when it is cut short."""

import sys
from collections.abc import Collection, Iterable

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.commands.signals import end_on_interrupt_and_term
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.run.activity import Activity
from tunemill.pipelines.run.finished import Finished
from tunemill.pipelines.run.progress import show_progress
from tunemill.resources.store import Store


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or TERM; the message says what is kept and how to go on."""


def watched_run(
    pipeline: Pipeline, store: Store, refresh: Collection[str] = (), only: Collection[str] | None = None
) -> list[Finished]:
    """Run what the plan says. Raises Interrupted."""
    # A scheduler's TERM ends a run as orderly as Ctrl-C: the stage's process group goes, nothing is published.
    end_on_interrupt_and_term()
    with show_progress() as display:
        try:
            finished = run_pipeline(pipeline, store, display, refresh, only=only)
        except KeyboardInterrupt:
            running = display.activities.running.values()
            lines = ["interrupted; nothing half-done was published", *going_on(running)]
            raise Interrupted("\n".join(lines)) from None
    for line in going_on(item for item in display.activities.failed.values() if item.checkpoint):
        print(line, file=sys.stderr)
    return finished


def going_on(stopped: Iterable[Activity]) -> list[str]:
    """What becomes of nodes that were stopped, when the same command is given again."""
    lines = []
    for activity in stopped:
        where = f" at {activity.place}" if activity.place else ""
        then = f"goes on from {activity.checkpoint}" if activity.checkpoint else "starts again"
        lines.append(f"{activity.node} was stopped{where}; the same command {then}")
    return lines
