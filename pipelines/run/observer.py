"""Who watches a run: called with a node's name and an event (a dictionary with a `type`)."""

import threading
from collections.abc import Callable
from typing import Any

Observer = Callable[[str, dict[str, Any]], None]


def unobserved(node: str, event: dict[str, Any]) -> None:
    """Watch nothing."""


def one_at_a_time(observe: Observer) -> Observer:
    """The same for events that come from several threads."""
    turn = threading.Lock()

    def hear(node: str, event: dict[str, Any]) -> None:
        with turn:
            observe(node, event)

    return hear
