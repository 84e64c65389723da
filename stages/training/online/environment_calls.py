"""What is sent to a process of an environment, and what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Called:
    """What completions may call: `factory` makes environments, `tools` are functions, each as `module.name`.

    `files` are those that they may import. `key` says in messages where they are named. `counts`: what counts of an
    environment behind an address, whose name is the address.
    """

    factory: str | None
    tools: Sequence[str]
    files: Sequence[str]
    key: str
    counts: str = "sum"


@dataclass(frozen=True)
class Describe:
    """Asks what can be called, of an environment that nobody uses."""


@dataclass(frozen=True)
class Described:
    """The tools as chat templates get them, and whether an environment has a reward of its own."""

    tools: list[dict[str, Any]]
    has_reward: bool


@dataclass(frozen=True)
class Begin:
    """Asks for a new environment, and resets it with the row. `seed` is what random numbers are drawn from.

    `episode` is a number that completions of one prompt that are compared have in common.
    """

    seed: str
    row: Mapping[str, Any]
    episode: int = 0


@dataclass(frozen=True)
class Use:
    """Asks for these calls, one after another, as the model's message has them."""

    calls: Sequence[Any]


@dataclass(frozen=True)
class Used:
    """What a call gave, as the model is told it; `failure`: why it is an error, in words with its line."""

    name: str
    content: str
    failure: str | None = None


@dataclass(frozen=True)
class Finish:
    """Asks what is left of an environment when its completion has ended."""


@dataclass(frozen=True)
class Finished:
    """The environment as it is then, and what it says of its completion; None: nothing.

    `left_out` are attributes that cannot be kept.
    """

    state: bytes | None
    reward: float | None
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class Told:
    """The answer to one of them, or why there is none, in words."""

    value: Any = None
    failure: str | None = None
