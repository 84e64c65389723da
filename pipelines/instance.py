"""The Dagster instance: an embedded one below the state folder, unless DAGSTER_HOME names another."""

import os
from pathlib import Path

import dagster as dg

SETTINGS = """\
telemetry:
  enabled: false
"""


def dagster_home(state: Path) -> Path:
    """DAGSTER_HOME, or the embedded instance's folder, made on first use."""
    if home := os.environ.get("DAGSTER_HOME"):
        return Path(home)
    folder = state / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        settings.write_text(SETTINGS)
    return folder


def open_instance(state: Path) -> dg.DagsterInstance:
    """Open the instance that `dagster_home` names."""
    return dg.DagsterInstance.from_config(str(dagster_home(state)))
