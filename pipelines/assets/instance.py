"""The Dagster instance: an embedded one below the state folder, unless DAGSTER_HOME names another."""

import fcntl
import logging
import os
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from tunemill.pipelines.assets.run_process import end_lost_runs

BEFORE = """\
telemetry:
  enabled: false
"""
# A run whose process is gone, with the daemon or without it, is marked as failed within a quarter of a minute.
SETTINGS = f"""\
{BEFORE}run_launcher:
  module: tunemill.pipelines.assets.run_launcher
  class: WatchedRunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 15
  start_timeout_seconds: 180
  cancel_timeout_seconds: 180
  max_resume_run_attempts: 0
"""
# Dagster's capture puts a file in the place of descriptor 2 while a step runs: the progress display would freeze, and
# the processes that copy the file back outlive Ctrl-C by two tracebacks. A stage's own output is in its logs.
NO_CAPTURE = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}
# SQLAlchemy logs, with a traceback, what has ended a connection, before it raises the same: a Ctrl-C, a full disk.
UNHEARD = logging.NullHandler()


def dagster_home(state: Path) -> Path:
    """DAGSTER_HOME, or the embedded instance's folder, made on first use."""
    if home := os.environ.get("DAGSTER_HOME"):
        return Path(home)
    folder = state / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    # Whoever has edited them keeps them as they are.
    if not settings.exists() or settings.read_text() == BEFORE:
        beside = folder / f".dagster.yaml.{os.getpid()}"
        beside.write_text(SETTINGS)
        beside.replace(settings)
    return folder


def open_instance(state: Path) -> dg.DagsterInstance:
    """Open the instance that `dagster_home` names, for a run in this process, whose output stays in the terminal.

    One process at a time makes its databases.
    """
    logging.getLogger("sqlalchemy").addHandler(UNHEARD)
    home = dagster_home(state)
    with (home / ".tunemill.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=NO_CAPTURE))
        # The databases are made on first use, and two processes that make them at once fail.
        instance.get_run_records(limit=1)
        end_lost_runs(instance)
        instance.get_latest_materialization_event(dg.AssetKey("none"))
    return instance
