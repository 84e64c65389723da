"""What the checks of the stages saw, as lines and as JSON: of a run, and of what is there."""

from collections.abc import Iterable

from tunemill.pipelines.commands.listing import CHECK_COLOURS, Listing, listing
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.result_checks import Checked, checks_of, failed
from tunemill.pipelines.run.finished import Finished


def checks_after(pipeline: Pipeline, finished: Iterable[Finished]) -> list[Checked]:
    """The checks of everything that is there after a run, also of what was cached."""
    return [
        checked
        for item in finished
        if item.published is not None
        for checked in checks_of(
            item.node, pipeline.node(item.node).stage, item.published.manifest["metrics"]
        )
    ]


def checks_table(checks: Iterable[Checked]) -> Listing | None:
    """The checks that failed, what they saw, and what to do; None where none did."""
    rows = [(one.node, one.check, one.severity, one.text, one.advice) for one in failed(checks)]
    return listing(("node", "check", "state", "seen", "what to do"), rows, CHECK_COLOURS) if rows else None
