"""The keys of trackers: where the figures of training go beside Tunemill. No stage reads them, so no result does."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from tunemill.resources.trackers.table import TRACKERS
from tunemill.stages.declaration import Idle, Runtime, StageConfig

# Tracker -> how its own keys begin, and the key that is enough to switch it on, as in Axolotl.
PREFIXES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "tensorboard": (("use_tensorboard",), None),
    "wandb": (("wandb_",), "wandb_project"),
    "mlflow": (("mlflow_", "hf_mlflow_"), "mlflow_experiment_name"),
    "trackio": (("trackio_",), "trackio_project_name"),
    "swanlab": (("swanlab_",), None),
    "comet": (("comet_",), "comet_project_name"),
    "otel": (("otel_",), None),
}
NO_COMPLETIONS = "no completions are made while this training runs"
TRACKED = "tracks the run, and changes no result"


class TrackerConfig(StageConfig):
    """Which trackers hear of a training, and what they are told."""

    use_tensorboard: Runtime[bool | None] = Field(
        None, description="TensorBoard files below output_dir/runs: it tracks the run, and changes no result"
    )
    use_wandb: Runtime[bool | None] = Field(
        None, description=f"Weights & Biases; unset: where wandb_project is given: {TRACKED}"
    )
    wandb_project: Runtime[str | None] = Field(None, description=f"W&B's project: {TRACKED}")
    wandb_entity: Runtime[str | None] = Field(None, description=f"W&B's team or user: {TRACKED}")
    wandb_name: Runtime[str | None] = Field(
        None, description=f"name of the run in W&B; unset: pipeline and node: {TRACKED}"
    )
    wandb_mode: Runtime[Literal["online", "offline", "disabled", "shared"] | None] = Field(
        None, description=f"offline: kept below output_dir/runs, for `wandb sync`: {TRACKED}"
    )
    wandb_watch: Runtime[Literal["false"] | None] = Field(
        None,
        description="gradients and weights in W&B: refused, a tracker sees figures only: changes no result",
    )
    wandb_log_model: Runtime[Literal["end", "false"] | None] = Field(
        None, description=f"end: the finished artifact goes to W&B: {TRACKED}"
    )
    use_mlflow: Runtime[bool | None] = Field(
        None, description=f"MLflow; unset: where mlflow_experiment_name is given: {TRACKED}"
    )
    mlflow_tracking_uri: Runtime[str | None] = Field(
        None,
        description=f"MLflow's server; unset: MLFLOW_TRACKING_URI, or files below output_dir/runs: {TRACKED}",
    )
    mlflow_experiment_name: Runtime[str | None] = Field(None, description=f"MLflow's experiment: {TRACKED}")
    mlflow_run_name: Runtime[str | None] = Field(None, description=f"name of the run in MLflow: {TRACKED}")
    hf_mlflow_log_artifacts: Runtime[bool | None] = Field(
        None, description=f"the finished artifact goes to MLflow: {TRACKED}"
    )
    use_trackio: Runtime[bool | None] = Field(
        None, description=f"Trackio; unset: where trackio_project_name is given: {TRACKED}"
    )
    trackio_project_name: Runtime[str | None] = Field(None, description=f"Trackio's project: {TRACKED}")
    trackio_run_name: Runtime[str | None] = Field(None, description=f"name of the run in Trackio: {TRACKED}")
    trackio_space_id: Runtime[str | None] = Field(
        None, description=f"the Space of the Hub that shows it; unset: this machine: {TRACKED}"
    )
    use_swanlab: Runtime[bool | None] = Field(None, description=f"SwanLab: {TRACKED}")
    swanlab_project: Runtime[str | None] = Field(None, description=f"SwanLab's project: {TRACKED}")
    swanlab_workspace: Runtime[str | None] = Field(None, description=f"SwanLab's workspace: {TRACKED}")
    swanlab_experiment_name: Runtime[str | None] = Field(
        None, description=f"name of the run in SwanLab: {TRACKED}"
    )
    swanlab_description: Runtime[str | None] = Field(
        None, description=f"description of the run in SwanLab: {TRACKED}"
    )
    swanlab_mode: Runtime[Literal["cloud", "online", "local", "offline", "disabled"] | None] = Field(
        None, description=f"where SwanLab keeps it: {TRACKED}"
    )
    swanlab_api_key: Runtime[str | None] = Field(
        None, description=f"SwanLab's key; better in the environment, as SWANLAB_API_KEY: {TRACKED}"
    )
    swanlab_api_host: Runtime[str | None] = Field(None, description=f"SwanLab's server: {TRACKED}")
    swanlab_web_host: Runtime[str | None] = Field(None, description=f"SwanLab's pages: {TRACKED}")
    swanlab_log_model: Runtime[Literal[False] | None] = Field(
        None, description=f"models in SwanLab: refused, SwanLab takes none: {TRACKED}"
    )
    swanlab_log_completions: Runtime[bool | None] = Field(
        None, description="generated answers in SwanLab: none are made, so it asks for nothing"
    )
    swanlab_completion_log_interval: Runtime[PositiveInt | None] = Field(
        None, description="how often answers go to SwanLab: none are made, so it asks for nothing"
    )
    swanlab_completion_max_buffer: Runtime[PositiveInt | None] = Field(
        None, description="answers kept for SwanLab: none are made, so it asks for nothing"
    )
    use_comet: Runtime[bool | None] = Field(
        None, description=f"Comet; unset: where comet_project_name is given: {TRACKED}"
    )
    comet_api_key: Runtime[str | None] = Field(
        None, description=f"Comet's key; better in the environment, as COMET_API_KEY: {TRACKED}"
    )
    comet_workspace: Runtime[str | None] = Field(None, description=f"Comet's workspace: {TRACKED}")
    comet_project_name: Runtime[str | None] = Field(None, description=f"Comet's project: {TRACKED}")
    comet_experiment_key: Runtime[str | None] = Field(
        None, description=f"an experiment of Comet's to go on with, or the name of a new one: {TRACKED}"
    )
    comet_mode: Runtime[Literal["get_or_create", "create", "get"] | None] = Field(
        None, description=f"whether Comet begins an experiment or goes on with one: {TRACKED}"
    )
    comet_online: Runtime[bool | None] = Field(
        None, description=f"false: kept below output_dir/runs, for `comet upload`: {TRACKED}"
    )
    comet_experiment_config: Runtime[dict[str, Any] | None] = Field(
        None, description=f"arguments of comet_ml.ExperimentConfig: {TRACKED}"
    )
    use_otel_metrics: Runtime[bool | None] = Field(
        None, description=f"an endpoint for Prometheus while it trains: {TRACKED}"
    )
    otel_metrics_host: Runtime[str | None] = Field(
        None, description=f"where it listens, unset localhost: {TRACKED}"
    )
    otel_metrics_port: Runtime[PositiveInt | None] = Field(
        None, le=65535, description=f"its port, unset 8000: {TRACKED}"
    )

    @field_validator("wandb_watch", "wandb_log_model", mode="before")
    @classmethod
    def _false_is_a_word(cls, value: object) -> object:
        return None if value in ("", False) else value

    @field_validator("wandb_watch", mode="before")
    @classmethod
    def _figures_only(cls, value: object) -> object:
        if isinstance(value, str) and value.lower() in ("gradients", "all", "parameters"):
            raise ValueError(
                f"{value}: a tracker runs beside the training and is told its figures, grad_norm among them; it does "
                f"not see the model. Remove it"
            )
        return value

    @field_validator("wandb_log_model", mode="before")
    @classmethod
    def _whole_models_only(cls, value: object) -> object:
        if value in ("checkpoint", True):
            raise ValueError(
                "checkpoints are for going on after an interruption, and are gone when training ends. Write end: the "
                "finished artifact is uploaded"
            )
        return value

    @field_validator("swanlab_log_model", mode="before")
    @classmethod
    def _takes_no_models(cls, value: object) -> object:
        if value is True:
            raise ValueError("SwanLab takes no models (Axolotl has the key and uploads nothing); remove it")
        return value

    @property
    def asked(self) -> tuple[str, ...]:
        """The trackers that are switched on."""
        return tuple(name for name in TRACKERS if self._is_on(name) and self._mode(name) != "disabled")

    def settings_of(self, tracker: str) -> dict[str, Any]:
        """The keys of one tracker that are given."""
        return {
            key: value
            for key, value in self.model_dump(mode="json", exclude_none=True).items()
            if key.startswith(PREFIXES[tracker][0])
        }

    def missing(self) -> Iterator[tuple[str, str]]:
        """The keys that switch on a tracker whose package is not installed, and what to do."""
        for name in self.asked:
            kind = TRACKERS[name]
            if not kind.is_installed:
                install = f"pip install 'tunemill[{kind.extra}]'"
                yield self.switch(name), f"{kind.title} is not installed here: {install}, or switch it off"

    def switch(self, tracker: str) -> str:
        """The key that has switched a tracker on."""
        use, enough = self._use_key(tracker), PREFIXES[tracker][1]
        return use if getattr(self, use) or enough is None else enough

    def idle(self) -> Iterator[Idle]:
        """Keys of trackers that are off, and what nothing is made for."""
        yield from super().idle()
        for name in TRACKERS:
            use = self._use_key(name)
            for key in self.settings_of(name):
                switches_off = key.endswith("_mode") and getattr(self, key) == "disabled"
                if key != use and name not in self.asked and not switches_off:
                    yield Idle(key, f"{TRACKERS[name].title} is off ({use})")
        for key in (
            "swanlab_log_completions",
            "swanlab_completion_log_interval",
            "swanlab_completion_max_buffer",
        ):
            if getattr(self, key) and "swanlab" in self.asked:
                yield Idle(key, NO_COMPLETIONS)

    def _is_on(self, tracker: str) -> bool:
        use, enough = getattr(self, self._use_key(tracker)), PREFIXES[tracker][1]
        if use is not None:
            return bool(use)
        return enough is not None and bool(getattr(self, enough))

    def _mode(self, tracker: str) -> str | None:
        return getattr(self, f"{tracker}_mode", None)

    @staticmethod
    def _use_key(tracker: str) -> str:
        return "use_otel_metrics" if tracker == "otel" else f"use_{tracker}"
