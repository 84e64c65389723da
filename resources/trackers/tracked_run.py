"""One training as a tracker sees it, and what a tracker does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class TrackedRun:
    """What is known when the first step has been trained.

    `name` is that of the node with its pipeline's, `settings` are the node's, `facts` what says which run it is
    (pipeline, node, stage, key). `folder` is where a tracker may write. `run_id` is the tracker's own name of the run
    that an interrupted attempt began; None where this one begins.
    """

    name: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    folder: Path
    run_id: str | None


class Tracker(Protocol):
    """An open run of a tracker. `run_id` finds it again, `place` tells a person where to look."""

    run_id: str
    place: str

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step."""

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """The training has ended, with these figures and this artifact, if any."""


def metric_name(name: str) -> str:
    """The name by which people know a figure from other trainers: `train/loss`, `eval/loss`."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one level, with dots: for trackers whose parameters are texts."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found
