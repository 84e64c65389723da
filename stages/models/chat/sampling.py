"""How an answer is generated."""

from dataclasses import dataclass

MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class Sampling:
    """`temperature` 0 takes the likeliest token each time, and `top_p` and `seed` then ask for nothing.

    `seed`: drawn anew for each answer where it is None. `stop`: texts that end an answer, and are no part of it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = MAX_NEW_TOKENS
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a model said. `finish_reason`: `stop`, `length` or `interrupted`; `seed`: None where nothing was drawn."""

    text: str
    tokens: int
    prompt_tokens: int
    finish_reason: str
    seed: int | None = None
