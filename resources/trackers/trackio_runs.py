"""Trackio: a database of this machine, or a Space of the Hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.tracked_run import TrackedRun, metric_name


class TrackioRun:
    """A run of Trackio."""

    def __init__(self, settings: Mapping[str, Any], run: TrackedRun) -> None:
        import trackio

        self._trackio = trackio
        project = settings.get("trackio_project_name") or str(run.facts["pipeline"])
        # Trackio finds a run by its name.
        self.run_id = run.run_id or settings.get("trackio_run_name") or f"{run.name} {os.urandom(3).hex()}"
        space = settings.get("trackio_space_id")
        trackio.init(
            project,
            name=self.run_id,
            space_id=space,
            config={**run.settings, "tunemill": dict(run.facts)},
            resume="allow" if run.run_id else "never",
            embed=False,
        )
        self.place = (
            f"https://huggingface.co/spaces/{space}" if space else f"trackio show --project {project}"
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step."""
        self._trackio.log({metric_name(name): value for name, value in metrics.items()}, step=step)

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """The last figures are written."""
        self._trackio.finish()


def open_run(settings: Mapping[str, Any], run: TrackedRun) -> TrackioRun:
    """Begin, or go on with, a run."""
    return TrackioRun(settings, run)
