"""When a pipeline with a schedule counts as fresh in the UI: as long as it was found up to date in time.

A tick where all is in place starts no run, and nothing is materialized by it. So freshness is that of the summary, of
which an event is kept each time that everything was in place.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile

import dagster as dg
from dagster._utils.schedules import schedule_execution_time_iterator

from tunemill.pipelines.config.operation_keys import Schedule
from tunemill.pipelines.graph.nodes import Pipeline

SUMMARY = "summary"
# A Friday: also a time for each minute of a working day has a weekend among its first.
BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
YEARS, TIMES = timedelta(days=800), 2000


def freshness_policy(schedule: Schedule | None) -> dg.FreshnessPolicy | None:
    """Overdue once a time has passed without effect: after the longest wait between two times, and the shortest.

    The latter is how long a run may take, and the daemon be away.
    """
    if schedule is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=_window(schedule.cron, schedule.timezone))


def up_to_date(pipeline: Pipeline) -> dg.AssetMaterialization:
    """The event that says that all of a pipeline is in place now."""
    return dg.AssetMaterialization(
        dg.AssetKey([pipeline.name, SUMMARY]), description=f"all {len(pipeline.nodes)} nodes are in place"
    )


@cache
def _window(cron: str, timezone: str) -> timedelta:
    times = schedule_execution_time_iterator(BEGIN.timestamp(), cron, timezone)
    near = list(takewhile(lambda time: time < BEGIN + YEARS, islice(times, TIMES)))
    waits = [later - earlier for earlier, later in pairwise(near)]
    # Of a time that comes once in years there is one at most.
    return max(waits) + min(waits) if waits else 2 * YEARS
