"""Perplexity."""

import math

# Beyond exp(700) a float overflows; such a model has learned nothing anyway.
LARGEST = 700.0


def perplexity_of(loss: float) -> float:
    """Of a mean loss in nats."""
    return math.exp(min(loss, LARGEST))
