"""SwanLab."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.tracked_run import TrackedRun, metric_name

# What Axolotl calls the mode that sends to SwanLab's servers.
MODES = {"cloud": "online"}


class SwanlabRun:
    """A run of SwanLab."""

    def __init__(self, settings: Mapping[str, Any], run: TrackedRun) -> None:
        import swanlab

        mode = settings.get("swanlab_mode")
        place = {name: settings.get(f"swanlab_{name}") for name in ("api_key", "api_host", "web_host")}
        self._run = swanlab.init(
            settings=swanlab.Settings.model_validate({name: value for name, value in place.items() if value}),
            log_dir=str(run.folder),
            mode=MODES.get(mode, mode) if mode else None,
            workspace=settings.get("swanlab_workspace"),
            project=settings.get("swanlab_project"),
            name=settings.get("swanlab_experiment_name") or run.name,
            description=settings.get("swanlab_description"),
            id=run.run_id,
            resume="allow" if run.run_id else None,
            config={**run.settings, "tunemill": dict(run.facts)},
        )
        self.run_id = str(self._run.id)
        sends = mode in (None, "online", *MODES)
        self.place = str(self._run.url) if sends else f"swanlab sync {run.folder}"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step."""
        self._run.log({metric_name(name): value for name, value in metrics.items()}, step=step)

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """The run ends as the training did."""
        self._run.finish(state="success" if succeeded else "crashed")


def open_run(settings: Mapping[str, Any], run: TrackedRun) -> SwanlabRun:
    """Begin, or go on with, a run."""
    return SwanlabRun(settings, run)
