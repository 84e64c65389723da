"""How a token is drawn where not the likeliest one is taken."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Of the `top_k` likeliest tokens, and of those the fewest that have `top_p` of the probability; None: of all.

    `seed` and the number of a row decide what is drawn for it.
    """

    seed: int
    temperature: float
    top_p: float | None
    top_k: int | None
