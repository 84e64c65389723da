"""The loss of DPO: a pair's chosen answer gains more, against the reference, than its rejected one.

With r the log of how much likelier an answer is than under the reference (both summed over its tokens):

    loss = -log sigmoid(beta (r_chosen - r_rejected))

Shapes: B pairs.

Source: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model" (arXiv
2305.18290), equation 7.
"""

from torch import Tensor
from torch.nn import functional


def sigmoid_loss(margin_b: Tensor, beta: float) -> Tensor:
    """-log sigmoid of each pair's difference of log ratios, scaled by beta."""
    return -functional.logsigmoid(beta * margin_b)
