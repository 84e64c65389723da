"""What is said of an event in a sweep, and what not."""

from typing import Any

from tunemill.pipelines.run.activity import line_of


def is_cached(event: dict[str, Any]) -> bool:
    """Whether the event only says that a node was there already."""
    return event["type"] == "done" and event["state"] in ("cached", "pinned", "left alone")


def line_of_point(point: str, node: str, event: dict[str, Any]) -> str | None:
    """The line that stays of an event, if any."""
    return None if is_cached(event) or event["type"] == "curve" else line_of(f"{point}/{node}", event)
