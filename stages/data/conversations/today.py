"""The day that chat templates write, where they write one."""

from typing import Any

from tunemill.stages.report import Report

CLOCK = "strftime_now"


def with_clock(
    variables: dict[str, Any], today: str | None, template: str | None, report: Report
) -> dict[str, Any]:
    """The template's variables with the day of this run, unless they name one. Says so where it is written."""
    if today is None or CLOCK in variables or template is None or CLOCK not in template:
        return variables
    report.log(
        f"the chat template may write the date: it is {today}, and stays so while these rows are cached. To choose "
        f'it, set chat_template_kwargs: {{{CLOCK}: "{today}"}}'
    )
    report.summary(template_date=today)
    return {**variables, CLOCK: today}
