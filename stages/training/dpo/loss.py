"""The losses of DPO: what a pair's answers have gained on the reference model, compared.

With r the log of how much likelier an answer is than under the reference, summed over its tokens, c and w the chosen
and the rejected answer, and m = r_c - r_w:

    sigmoid       -log sigmoid(beta m)                                  Rafailov et al. 2023, arXiv 2305.18290, eq. 7
    hinge         max(0, 1 - beta m)                                    Zhao et al. 2023, arXiv 2305.10425
    ipo           (m' - 1 / (2 beta))^2, m' of means over tokens        Azar et al. 2023, arXiv 2310.12036, eq. 17
    sigmoid_norm  -log sigmoid(beta m'), m' of means over tokens        Lambert et al. 2024, arXiv 2411.15124
    robust        (-(1 - e) log s(beta m) + e log s(-beta m)) / (1 - 2e)     Chowdhury et al. 2024, arXiv 2403.00409
    exo_pair      KL of (s(beta m), s(-beta m)) to (1 - e, e)           Ji et al. 2024, arXiv 2402.00856, eq. 16
    nca_pair      -log s(x_c) - log s(-x_c) / 2 - log s(-x_w) / 2       Chen et al. 2024, arXiv 2402.05369
    bco_pair      -log s(x_c) - log s(-x_w)                             Jung et al. 2024, arXiv 2404.04656
    sppo_hard     (r_c - 1 / (2 beta))^2 + (r_w + 1 / (2 beta))^2       Wu et al. 2024, arXiv 2405.00675, eq. 4.7
    aot           quantiles of log p_c - log p_w against the reference's     Melnyk et al. 2024, arXiv 2406.05882
    aot_unpaired  quantiles of r_c against those of r_w                 the same
    apo_zero      1 - s(x_c) + s(x_w)                   D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7
    apo_down      s(x_c) + 1 - s(beta m)                                the same, eq. 8
    discopop      -log s(x) (1 - s(x / t)) + exp(-x) s(x / t), x = beta m, t = .05     Lu et al. 2024, arXiv 2406.08414

with s the sigmoid, x = beta r, and e the share of pairs that are the wrong way round. `bco_pair` is without the running
mean of rewards, as in TRL. `sft` is no comparison: see the body.

Shapes: B pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

DISCOPOP_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Gains:
    """What the answers of B pairs have gained on the reference, by the chosen and the rejected one.

    `chosen_b` and `rejected_b`: differences of log probabilities, of answers with `tokens_b` and `other_tokens_b`
    tokens. `preferred_b`: log p of the chosen answer less that of the rejected one; `reference_b`: the reference's.
    """

    chosen_b: Tensor
    rejected_b: Tensor
    tokens_b: Tensor
    other_tokens_b: Tensor
    preferred_b: Tensor
    reference_b: Tensor

    @property
    def margin_b(self) -> Tensor:
        """How much more the chosen answer has gained."""
        return self.chosen_b - self.rejected_b

    @property
    def mean_margin_b(self) -> Tensor:
        """The same of means over the tokens of each answer."""
        return self.chosen_b / self.tokens_b - self.rejected_b / self.other_tokens_b


Loss = Callable[[Gains, float, float], Tensor]
"""[B] of gains, beta, and the share of pairs that are the wrong way round."""


def _sigmoid(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return -logsigmoid(beta * gains.margin_b)


def _hinge(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return relu(1 - beta * gains.margin_b)


def _ipo(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return (gains.mean_margin_b - 1 / (2 * beta)) ** 2


def _sigmoid_norm(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return -logsigmoid(beta * gains.mean_margin_b)


def _robust(gains: Gains, beta: float, wrong: float) -> Tensor:
    x_b = beta * gains.margin_b
    return (-(1 - wrong) * logsigmoid(x_b) + wrong * logsigmoid(-x_b)) / (1 - 2 * wrong)


def _exo_pair(gains: Gains, beta: float, wrong: float) -> Tensor:
    x_b = beta * gains.margin_b
    right, other = torch.log1p(x_b.new_tensor(-wrong)), torch.log(x_b.new_tensor(wrong))
    return x_b.sigmoid() * (logsigmoid(x_b) - right) + (-x_b).sigmoid() * (logsigmoid(-x_b) - other)


def _nca_pair(gains: Gains, beta: float, _wrong: float) -> Tensor:
    x_b, y_b = beta * gains.chosen_b, beta * gains.rejected_b
    return -logsigmoid(x_b) - 0.5 * logsigmoid(-x_b) - 0.5 * logsigmoid(-y_b)


def _bco_pair(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return -logsigmoid(beta * gains.chosen_b) - logsigmoid(-beta * gains.rejected_b)


def _sppo_hard(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return (gains.chosen_b - 0.5 / beta) ** 2 + (gains.rejected_b + 0.5 / beta) ** 2


def _aot(gains: Gains, beta: float, wrong: float) -> Tensor:
    return _quantiles(gains.preferred_b, gains.reference_b, beta, wrong)


def _aot_unpaired(gains: Gains, beta: float, wrong: float) -> Tensor:
    return _quantiles(gains.chosen_b, gains.rejected_b, beta, wrong)


def _quantiles(better_b: Tensor, worse_b: Tensor, beta: float, wrong: float) -> Tensor:
    x_b = beta * (better_b.sort().values - worse_b.sort().values)
    return -(1 - wrong) * logsigmoid(x_b) - wrong * logsigmoid(-x_b)


def _apo_zero(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return 1 - (beta * gains.chosen_b).sigmoid() + (beta * gains.rejected_b).sigmoid()


def _apo_down(gains: Gains, beta: float, _wrong: float) -> Tensor:
    return (beta * gains.chosen_b).sigmoid() + 1 - (beta * gains.margin_b).sigmoid()


def _discopop(gains: Gains, beta: float, _wrong: float) -> Tensor:
    x_b = beta * gains.margin_b
    exponential_b = (x_b / DISCOPOP_TEMPERATURE).sigmoid()
    return -logsigmoid(x_b) * (1 - exponential_b) + (-x_b).exp() * exponential_b


LOSSES: dict[str, Loss] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "sigmoid_norm": _sigmoid_norm,
    "robust": _robust,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
}
