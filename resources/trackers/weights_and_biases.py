"""Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.tracked_run import TrackedRun, metric_name


class WandbRun:
    """A run of W&B; with `wandb_mode: offline` it lies in the folder, for `wandb sync`."""

    def __init__(self, settings: Mapping[str, Any], run: TrackedRun) -> None:
        import wandb

        self._log_model = settings.get("wandb_log_model") == "end"
        self._run = wandb.init(
            project=settings.get("wandb_project"),
            entity=settings.get("wandb_entity"),
            name=settings.get("wandb_name") or run.name,
            mode=settings.get("wandb_mode"),
            id=run.run_id,
            resume="allow" if run.run_id else None,
            dir=str(run.folder),
            config={**run.settings, "tunemill": dict(run.facts)},
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run_id = str(self._run.id)
        self.place = str(self._run.url or f"wandb sync {Path(self._run.dir).parent}")
        self._name = run.name.replace("/", "-")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step."""
        self._run.log({metric_name(name): value for name, value in metrics.items()}, step=step)

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """With `wandb_log_model: end` the model goes with it."""
        import wandb

        self._run.summary.update(dict(summary))
        if artifact is not None and self._log_model:
            model = wandb.Artifact(self._name, type="model")
            model.add_dir(str(artifact))
            self._run.log_artifact(model)
        self._run.finish(exit_code=0 if succeeded else 1)


def open_run(settings: Mapping[str, Any], run: TrackedRun) -> WandbRun:
    """Begin, or go on with, a run."""
    return WandbRun(settings, run)
