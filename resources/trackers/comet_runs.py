"""Comet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.tracked_run import TrackedRun, flat, metric_name


class CometRun:
    """An experiment of Comet; with `comet_online: false` it lies in the folder, for `comet upload`."""

    def __init__(self, settings: Mapping[str, Any], run: TrackedRun) -> None:
        import comet_ml

        more = dict(settings.get("comet_experiment_config") or {})
        more.setdefault("offline_directory", str(run.folder))
        more.setdefault("name", run.name)
        # Nothing is traced here: the training runs in another process.
        more |= {
            "auto_metric_logging": False,
            "auto_param_logging": False,
            "log_code": False,
            "log_graph": False,
        }
        online = settings.get("comet_online")
        self._experiment = comet_ml.start(
            api_key=settings.get("comet_api_key"),
            workspace=settings.get("comet_workspace"),
            project_name=settings.get("comet_project_name"),
            experiment_key=run.run_id or settings.get("comet_experiment_key"),
            mode=settings.get("comet_mode"),
            online=online,
            experiment_config=comet_ml.ExperimentConfig(**more),
        )
        self.run_id = str(self._experiment.get_key())
        self.place = (
            f"comet upload {run.folder}" if online is False else str(getattr(self._experiment, "url", ""))
        )
        self._experiment.log_parameters(flat({**run.settings, "tunemill": dict(run.facts)}))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step."""
        self._experiment.log_metrics({metric_name(name): value for name, value in metrics.items()}, step=step)

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """The figures of the whole training go with it."""
        self._experiment.log_others({**summary, "succeeded": succeeded})
        self._experiment.end()


def open_run(settings: Mapping[str, Any], run: TrackedRun) -> CometRun:
    """Begin, or go on with, an experiment."""
    return CometRun(settings, run)
