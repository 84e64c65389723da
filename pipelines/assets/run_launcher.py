"""Dagster's launcher of runs, whose daemon also asks whether the processes of runs are still there."""

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

from tunemill.pipelines.assets.run_process import GONE, is_gone


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs as Dagster does; a run whose process is gone is marked as failed within a look of the daemon's."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Dagster's own launcher cannot tell, so its daemon would wait for ever."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Gone is only what is known to be: of a process on another machine, or of a run of others, nothing is."""
        if is_gone(run):
            return CheckRunHealthResult(WorkerStatus.FAILED, GONE)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
