"""`pipeline.schedule`: bring a pipeline up to date at its times."""

import dagster as dg

from tunemill.pipelines.assets.jobs import bring_up_to_date_name
from tunemill.pipelines.assets.requests import OutdatedError, Served, request
from tunemill.pipelines.config.problems import ConfigError
from tunemill.resources.errors import StoreError
from tunemill.stages.errors import UserError

REFUSED = (ConfigError, StoreError, UserError, OutdatedError)


def build_schedules(served: Served) -> list[dg.ScheduleDefinition]:
    """The schedule of a pipeline that has one. A tick that cannot plan fails, so that it shows."""
    pipeline = served.session.pipeline
    schedule = pipeline.schedule
    if schedule is None:
        return []

    @dg.schedule(
        name=f"{pipeline.name}_schedule",
        job_name=bring_up_to_date_name(pipeline.name),
        cron_schedule=schedule.cron,
        execution_timezone=schedule.timezone,
        default_status=dg.DefaultScheduleStatus[schedule.default_status.upper()],
        description=f"Brings `{pipeline.name}` up to date at `{schedule.cron}` ({schedule.timezone}). Where all is in "
        f"place the tick says so, and nothing runs.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            return request(
                served,
                context.instance,
                # One tick is one run, also where the daemon dies in the middle.
                context.scheduled_execution_time.isoformat(),
                f"schedule {schedule.cron} {schedule.timezone}",
            )
        except REFUSED as error:
            raise dg.Failure(description=str(error)) from None

    return [tick]
