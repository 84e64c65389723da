"""MLflow: a tracking server, or a database in a file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.tracked_run import TrackedRun, flat, metric_name

# MLflow refuses longer ones.
LONGEST_PARAMETER = 6000
PARAMETERS_AT_ONCE = 100


class MlflowRun:
    """A run of MLflow."""

    def __init__(self, settings: Mapping[str, Any], run: TrackedRun) -> None:
        import mlflow

        given = settings.get("mlflow_tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
        where = given or f"file:{run.folder}"
        if where.startswith("file:") or "://" not in where:
            # A folder is what this key of Axolotl's has always meant without a server; MLflow wants it said aloud.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        mlflow.set_tracking_uri(where)
        mlflow.set_experiment(
            settings.get("mlflow_experiment_name") or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "tunemill"
        )
        self._mlflow = mlflow
        self._log_model = bool(settings.get("hf_mlflow_log_artifacts"))
        tags = {f"tunemill.{name}": str(value) for name, value in run.facts.items()}
        started = mlflow.start_run(
            run_id=run.run_id, run_name=settings.get("mlflow_run_name") or run.name, tags=tags
        )
        self.run_id = str(started.info.run_id)
        self.place = f"{where}, run {self.run_id}"
        if run.run_id is None:
            parameters = {name: str(value)[:LONGEST_PARAMETER] for name, value in flat(run.settings).items()}
            names = sorted(parameters)
            for first in range(0, len(names), PARAMETERS_AT_ONCE):
                some = names[first : first + PARAMETERS_AT_ONCE]
                mlflow.log_params({name: parameters[name] for name in some})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step."""
        self._mlflow.log_metrics({metric_name(name): value for name, value in metrics.items()}, step=step)

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """With `hf_mlflow_log_artifacts` the model goes with it."""
        self._mlflow.set_tags({f"tunemill.{name}": str(value) for name, value in summary.items()})
        if artifact is not None and self._log_model:
            self._mlflow.log_artifacts(str(artifact), artifact_path="model")
        self._mlflow.end_run("FINISHED" if succeeded else "FAILED")


def open_run(settings: Mapping[str, Any], run: TrackedRun) -> MlflowRun:
    """Begin, or go on with, a run."""
    return MlflowRun(settings, run)
