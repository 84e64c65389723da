"""How a token is drawn where not the likeliest one is taken."""

import hashlib
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


def seed_of(seed: int, row: int) -> int:
    """63 bits: close seeds and rows give streams that have nothing to do with each other."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row}".encode()).digest()[:8], "big") >> 1
