"""Which process a Dagster run is in: a tag of the run says so, and a run whose process is gone does not go on."""

import dagster as dg

from tunemill.resources.lease import Holder, is_alive, this_process

# Dagster shows no tags of this prefix: it is JSON, and nobody's to read.
TAG = ".dagster/tunemill_process"
GONE = (
    "the process of this run is gone (killed, out of memory, or the machine went down). What was finished is kept; "
    "materialize it again to go on from the last checkpoint"
)
# What `execute_in_process` and this project's own definitions use. Of others each step is a process, which ends.
IN_PROCESS = ("in_process", "execute_in_process_executor")
UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def process_tag() -> dict[str, str]:
    """The tag of a run that is in this process."""
    return {TAG: this_process().as_text()}


def note_process(context: dg.AssetExecutionContext) -> None:
    """Tag the run with this process, unless it is already, or this is the process of a step alone."""
    if context.job_def.executor_def.name not in IN_PROCESS:
        return
    tag = process_tag()
    if context.run.tags.get(TAG) != tag[TAG]:
        context.instance.add_run_tags(context.run.run_id, tag)


def is_gone(run: dg.DagsterRun) -> bool:
    """Whether the run's process is known to be gone: it was on this machine, and is not there any more."""
    holder = Holder.from_text(run.tags.get(TAG, ""))
    return holder is not None and is_alive(holder) is False


def end_lost_runs(instance: dg.DagsterInstance) -> None:
    """Mark as failed what still counts as running although its process is gone."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        if is_gone(run) and run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, GONE)
        elif is_gone(run):
            instance.report_run_failed(run, GONE)
