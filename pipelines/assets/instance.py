"""The Dagster instance: an embedded one below the state folder, unless DAGSTER_HOME names another."""

import fcntl
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
        beside = folder / f".dagster.yaml.{os.getpid()}"
        beside.write_text(SETTINGS)
        beside.replace(settings)
    return folder


def open_instance(state: Path) -> dg.DagsterInstance:
    """Open the instance that `dagster_home` names; one process at a time makes its databases."""
    home = dagster_home(state)
    with (home / ".tunemill.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        instance = dg.DagsterInstance.from_config(str(home))
        # The databases are made on first use, and two processes that make them at once fail.
        instance.get_run_records(limit=1)
        instance.get_latest_materialization_event(dg.AssetKey("none"))
    return instance
