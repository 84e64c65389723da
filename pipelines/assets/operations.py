"""What can be started of a pipeline, by hand or by itself: its jobs, its schedule, its watcher."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from tunemill.pipelines.assets.automation import build_automation
from tunemill.pipelines.assets.jobs import build_jobs
from tunemill.pipelines.assets.requests import Served
from tunemill.pipelines.assets.schedules import build_schedules
from tunemill.pipelines.assets.sensors import build_watchers
from tunemill.pipelines.run.materialize import Session


@dataclass(frozen=True)
class Operations:
    """Jobs, schedules and sensors."""

    jobs: list[UnresolvedAssetJobDefinition] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(
            self.jobs + other.jobs, self.schedules + other.schedules, self.sensors + other.sensors
        )

    def needed_jobs(self) -> "Operations":
        """The same with no jobs but those that a schedule or a sensor starts."""
        # The condition of an automation starts assets, and no job.
        watchers = [
            one for one in self.sensors if not isinstance(one, dg.AutomationConditionSensorDefinition)
        ]
        started = {one.job_name for one in self.schedules} | {one.job_name for one in watchers}
        return replace(self, jobs=[job for job in self.jobs if job.name in started])


def build_operations(
    session: Session,
    checks: Iterable[dg.AssetsDefinition],
    gates: Iterable[dg.AssetChecksDefinition],
) -> Operations:
    """The operations of a pipeline whose assets have these checks, some of which are `gates` of what comes after."""
    served = Served(session, _keys(checks), _keys(gates))
    sensors = [*build_watchers(served), *build_automation(session)]
    return Operations(build_jobs(session.pipeline), build_schedules(served), sensors)


def _keys(checks: Iterable[dg.AssetsDefinition]) -> list[dg.AssetCheckKey]:
    return [key for check in checks for key in check.check_keys]
