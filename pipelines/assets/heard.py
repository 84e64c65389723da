"""What a node says while it runs, for Dagster's pages: lines of its log, what its process prints, growing curves."""

import math
import sys
import time
from typing import Any

import dagster as dg
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager

from tunemill.pipelines.run.figures import step_words

# A training has about so many points in its curves, however many steps it has: each is an event in the list.
POINTS = 100
# An event takes some milliseconds, and a training of a few seconds must not wait for them.
LEAST_SECONDS = 0.2


class Heard:
    """Tells Dagster what one node says. Figures of steps become observations of its asset: Plots draws their curves."""

    def __init__(self, context: dg.AssetExecutionContext, key: dg.AssetKey) -> None:
        self._context = context
        self._key = key
        # In a terminal the run has a display of its own; elsewhere Dagster keeps what is printed, step by step.
        self._prints = not isinstance(context.instance.compute_log_manager, NoOpComputeLogManager)
        self._total: int | None = None
        self._step = 0
        self._at = -math.inf

    def hear(self, event: dict[str, Any]) -> None:
        """Take in an event."""
        match event["type"]:
            case "log":
                self._context.log.info(event["message"])
            case "output" if self._prints:
                sys.stdout.write(event["text"])
                sys.stdout.flush()
            case "progress":
                self._total = event["total"]
            case "step" if self._is_due(event["step"]):
                self._observe(event["step"], event["metrics"])

    def _is_due(self, step: int) -> bool:
        if step == self._total:
            return True
        every = (self._total or 0) / POINTS
        return step - self._step >= every and time.monotonic() - self._at >= LEAST_SECONDS

    def _observe(self, step: int, metrics: dict[str, float]) -> None:
        self._step, self._at = step, time.monotonic()
        figures = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        self._context.log.info(step_words({"step": step, "metrics": metrics}))
        self._context.log_event(dg.AssetObservation(self._key, metadata={"step": step, **figures}))
