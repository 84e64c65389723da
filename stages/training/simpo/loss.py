"""The loss of SimPO: the mean log probabilities of two answers, and a margin between them.

With c and r the mean log probabilities of the chosen and the rejected answer's tokens:

    loss = -log sigmoid(beta (c - r) - gamma)

gamma is in units of the scaled difference: TRL takes gamma / beta off the difference and multiplies by beta then, which
is the same.

Shapes: B pairs.

Source: Meng, Xia and Chen 2024, "SimPO: Simple Preference Optimization with a Reference-Free Reward" (arXiv
2405.14734), equation 6. The likelihood of the chosen answer beside it is that of CPO: Xu et al. 2024 (arXiv
2401.08417), equation 5.
"""

from torch import Tensor
from torch.nn import functional


def margin_loss(chosen_b: Tensor, rejected_b: Tensor, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta (chosen - rejected) - gamma) of each pair; of mean log probabilities."""
    return -functional.logsigmoid(beta * (chosen_b - rejected_b) - gamma)
