"""Trackers as a Dagster resource: a deployment may switch them off, whatever the YAMLs say."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import dagster as dg

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.run.tracking import NodeTracking, tracking

# The name under which assets ask for it.
RESOURCE = "tunemill_trackers"


class Trackers(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Sends the figures of trainings to the trackers that their YAMLs ask for, while `enabled`."""

    enabled: bool = True

    def watch(
        self, pipeline: Pipeline, node: Node, root: Path, say: Callable[[str], None]
    ) -> AbstractContextManager[NodeTracking | None]:
        """The tracking of one node; None where it is tracked nowhere."""
        trackers = pipeline.trackers
        if trackers is None or not (self.enabled and node.stage.tracked and trackers.asked):
            return nullcontext()
        return tracking(pipeline, trackers, node, root, say)


# Dagster wants one and the same definition for all assets of a job.
FROM_YAML = Trackers().get_resource_definition()
