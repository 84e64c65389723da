"""The loss of IPO: the margin of a pair shall be a number, and not grow for ever.

    loss = (m - 1 / (2 beta))^2

with m how much more the chosen answer has gained on the reference than the rejected one, in the mean over the tokens of
each, as TRL has it from the authors.

Shapes: B pairs.

Source: Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences" (arXiv
2310.12036), equation 17.
"""

from torch import Tensor


def squared_distance(margin_b: Tensor, beta: float) -> Tensor:
    """Of each pair's margin from 1 / (2 beta)."""
    return (margin_b - 1 / (2 * beta)) ** 2
