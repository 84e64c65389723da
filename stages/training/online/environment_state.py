"""Environments as bytes: what a completion has left in its own, to be given to rewards in another process."""

import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tunemill.stages.data.conversations.user_modules import UserFailures
from tunemill.stages.errors import UserError


def kept(environment: Any) -> tuple[bytes, list[str]]:
    """An environment as bytes, and the names of its attributes that are left out as they cannot be kept.

    Connections, processes and open files are such. Without any it is kept as its own class says.
    """
    whole = _pickled(environment)
    if whole is not None:
        return whole, []
    said = vars(environment) if hasattr(environment, "__dict__") else {}
    parts = {name: _pickled(value) for name, value in said.items()}
    kind = _pickled(type(environment))
    state = {name: value for name, value in parts.items() if value is not None}
    return pickle.dumps(_Parts(kind, state)), [name for name, value in parts.items() if value is None]


def restored(state: bytes) -> Any:
    """The environment of those bytes. What its class imports must be there."""
    found = pickle.loads(state)  # noqa: S301 - written by the same run
    if not isinstance(found, _Parts):
        return found
    made = SimpleNamespace() if found.kind is None else _empty(pickle.loads(found.kind))  # noqa: S301
    for name, value in found.state.items():
        vars(made)[name] = pickle.loads(value)  # noqa: S301
    return made


def all_restored(states: Sequence[bytes | None]) -> list[Any]:
    """Those of several completions; None where there is none."""
    return [None if one is None else restored(one) for one in states]


class _Parts:
    """What can be kept of an environment: its class, and attributes."""

    def __init__(self, kind: bytes | None, state: dict[str, bytes]) -> None:
        self.kind, self.state = kind, state


def _empty(kind: Any) -> Any:
    return kind.__new__(kind)


def _pickled(value: Any) -> bytes | None:
    """Whatever a class raises about it, it cannot be kept."""
    try:
        with UserFailures("keeping", [], UserError):
            return pickle.dumps(value)
    except UserError:
        return None
