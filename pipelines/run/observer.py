"""Who watches a run: called with a node's name and an event (a dictionary with a `type`)."""

from collections.abc import Callable
from typing import Any

Observer = Callable[[str, dict[str, Any]], None]


def unobserved(node: str, event: dict[str, Any]) -> None:
    """Watch nothing."""
