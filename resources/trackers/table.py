"""Every tracker there is: its module here, the package behind it, and the extra that installs it."""

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Kind:
    """`module` has `open_run(settings, run)`; `package` is what it imports; `title` is its name for people."""

    title: str
    module: str
    package: str
    extra: str

    @property
    def is_installed(self) -> bool:
        """Whether the package can be imported; nothing is."""
        try:
            return find_spec(self.package) is not None
        except ModuleNotFoundError:
            # Of a package inside another one, and that is not there.
            return False


TRACKERS = {
    "tensorboard": Kind("TensorBoard", "tensorboard_files", "tensorboard", "tensorboard"),
    "wandb": Kind("Weights & Biases", "weights_and_biases", "wandb", "wandb"),
    "mlflow": Kind("MLflow", "mlflow_runs", "mlflow", "mlflow"),
    "trackio": Kind("Trackio", "trackio_runs", "trackio", "trackio"),
    "swanlab": Kind("SwanLab", "swanlab_runs", "swanlab", "swanlab"),
    "comet": Kind("Comet", "comet_runs", "comet_ml", "comet"),
    "otel": Kind("OpenTelemetry", "open_telemetry", "opentelemetry.exporter.prometheus", "otel"),
}
