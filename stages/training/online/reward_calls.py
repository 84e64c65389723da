"""What is sent to a process that runs reward functions, and what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KEY = "trl.reward_funcs"


def not_finite(name: str, value: float) -> str:
    """What is said of a reward that is no finite number."""
    return f"{KEY}: {name} gave {value}. A reward is a finite number, or None"


@dataclass(frozen=True)
class Loaded:
    """The functions that calls name by their place, each as `module.function`, and the files that they may import."""

    names: Sequence[str]
    files: Sequence[str]


@dataclass(frozen=True)
class Call:
    """One function, asked for the rewards of some completions. `seed` is what random numbers are drawn from."""

    function: int
    rows: Sequence[int]
    arguments: Mapping[str, Any]
    step: int
    seed: str
    environments: Sequence[bytes | None] | None = None
    """Those of the completions as they were at their ends; None where completions have none."""


@dataclass(frozen=True)
class Reply:
    """A reward of each completion, None: it does not apply. Or why there are none, in words.

    `ended`: the process was, as it took too long. `metrics` and `extra` are what the function has logged: numbers,
    and columns of the completions.
    """

    values: Sequence[float | None] = ()
    failure: str | None = None
    ended: bool = False
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    extra: Mapping[str, Sequence[Any]] = field(default_factory=dict)
