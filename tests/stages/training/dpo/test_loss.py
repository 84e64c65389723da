"""The losses of DPO: by hand, their gradients, and as one number for a batch however it is cut."""

import math
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from torch.nn import functional

from tunemill.stages.training.dpo.body import counts_of, gains_of, loss_of
from tunemill.stages.training.dpo.config import SFT, SORTED, DpoConfig, LossType
from tunemill.stages.training.dpo.loss import LOSSES, Gains
from tunemill.stages.training.ipo.loss import squared_distance

BETA, WRONG = 0.2, 0.1
LN2 = math.log(2)
# With every gain 0: sigmoid(0) = .5, and log sigmoid(0) = -ln 2.
AT_START = {
    "sigmoid": LN2,
    "hinge": 1.0,
    "ipo": 1 / (4 * BETA**2),
    "sigmoid_norm": LN2,
    "robust": LN2,
    "exo_pair": -LN2 - 0.5 * math.log((1 - WRONG) * WRONG),
    "nca_pair": 2 * LN2,
    "bco_pair": 2 * LN2,
    "sppo_hard": 2 * (0.5 / BETA) ** 2,
    "aot": LN2,
    "aot_unpaired": LN2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * LN2 + 0.5,
}
# One pair: the chosen answer of 2 tokens has gained 3, the rejected one of 4 tokens has lost 2. beta m = 1, x_c = .6.
PAIR = Gains(*(torch.tensor([v], dtype=torch.float64) for v in (3.0, -2.0, 2.0, 4.0, 4.0, -1.0)))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


BY_HAND = {
    "sigmoid": math.log1p(math.exp(-1)),
    "hinge": 0.0,
    "ipo": (3 / 2 + 2 / 4 - 2.5) ** 2,
    "sigmoid_norm": math.log1p(math.exp(-0.4)),
    "robust": (0.9 * math.log1p(math.exp(-1)) - 0.1 * math.log1p(math.exp(1))) / 0.8,
    "exo_pair": sigma(1) * math.log(sigma(1) / 0.9) + sigma(-1) * math.log(sigma(-1) / 0.1),
    "nca_pair": -math.log(sigma(0.6)) - 0.5 * math.log(sigma(-0.6)) - 0.5 * math.log(sigma(0.4)),
    "bco_pair": -math.log(sigma(0.6)) - math.log(sigma(0.4)),
    "sppo_hard": 0.5**2 + 0.5**2,
    "aot": 0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1)),
    "aot_unpaired": 0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1)),
    "apo_zero": 1 - sigma(0.6) + sigma(-0.4),
    "apo_down": sigma(0.6) + 1 - sigma(1),
    "discopop": math.log1p(math.exp(-1)) * (1 - sigma(20)) + math.exp(-1) * sigma(20),
}


def test_every_loss_has_values_here() -> None:
    assert AT_START.keys() == BY_HAND.keys() == LOSSES.keys() == set(get_args(LossType)) - {SFT}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_hand(name: str) -> None:
    nothing = Gains(
        *(torch.zeros(3, dtype=torch.float64),) * 2, *(torch.ones(3),) * 2, *(torch.zeros(3),) * 2
    )
    assert LOSSES[name](nothing, BETA, WRONG).tolist() == pytest.approx([AT_START[name]] * 3)
    assert LOSSES[name](PAIR, BETA, WRONG).tolist() == pytest.approx([BY_HAND[name]])
    if name == "ipo":
        assert squared_distance(PAIR.mean_margin_b, BETA).tolist() == pytest.approx([BY_HAND[name]])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_losses(name: str) -> None:
    torch.manual_seed(0)
    log_p_2b = torch.randn(6, dtype=torch.float64, requires_grad=True)
    reference_2b, tokens_2b = torch.randn(6, dtype=torch.float64), torch.tensor([2, 3, 4, 5, 6, 7])

    def loss(given_2b: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](gains_of(given_2b, reference_2b, tokens_2b), BETA, WRONG)

    assert torch.autograd.gradcheck(loss, (log_p_2b,))


class Says(torch.nn.Module):
    """A model that says the same whatever it is asked."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, logits_to_keep: int = 0, **_inputs: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[:, -logits_to_keep:])


def some_batch() -> tuple[Says, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    ids_2bl = torch.randint(0, 7, (4, 6))
    labels_2bl = ids_2bl.clone()
    for row, (start, end) in enumerate([(2, 5), (3, 6), (4, 6), (2, 6)]):
        labels_2bl[row, :start], labels_2bl[row, end:] = -100, -100
    mask_2bl = torch.ones_like(ids_2bl)
    batch = {"input_ids": ids_2bl, "labels": labels_2bl, "attention_mask": mask_2bl}
    return Says(torch.randn(4, 6, 7)), {**batch, "reference_2b": torch.tensor([-5.0, -6.0, -4.0, -9.0])}


def test_losses_are_added_with_their_weights_and_sft_is_over_tokens() -> None:
    model, batch = some_batch()
    settings = {"learning_rate": 1, "rl_beta": BETA, "dpo_label_smoothing": WRONG}
    two = DpoConfig(**settings, dpo_loss_type=["sigmoid", "sft"], dpo_loss_weights=[0.5, 2.0])
    parts = loss_of(two, model, batch)
    log_p_2bl = model.logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    sums_2b = (log_p_2bl * (batch["labels"][:, 1:] != -100)).sum(-1)
    margins_b = (sums_2b - batch["reference_2b"])[:2] - (sums_2b - batch["reference_2b"])[2:]
    assert float(parts.totals["pairs"]) == pytest.approx(
        float(-0.5 * functional.logsigmoid(BETA * margins_b).sum())
    )
    assert float(parts.totals["chosen_tokens"]) == pytest.approx(float(-2 * sums_2b[:2].sum()))
    assert counts_of(batch) == {"pairs": 2, "chosen_tokens": 6}
    older = loss_of(DpoConfig(**settings, rpo_alpha=2.0, dpo_loss_weights=[0.5]), model, batch)
    assert {name: float(total) for name, total in older.totals.items()} == pytest.approx(
        {name: float(total) for name, total in parts.totals.items()}
    )
    assert float(parts.metrics["rewards/margins"][0]) == pytest.approx(float(BETA * margins_b.sum()))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - SORTED))
def test_sums_of_micro_batches_are_the_sum_of_the_step(name: str) -> None:
    model, batch = some_batch()
    config = DpoConfig(
        learning_rate=1, dpo_loss_type=[name], dpo_label_smoothing=WRONG, dpo_use_weighting=True
    )
    whole = loss_of(config, model, batch)
    parts = []
    for row in (0, 1):
        one = {key: value[[row, row + 2]] for key, value in batch.items()}
        parts.append(loss_of(config, Says(model.logits[[row, row + 2]]), one))
    total = sum(float(part.totals["pairs"]) for part in parts)
    assert total == pytest.approx(float(whole.totals["pairs"]), rel=1e-5)


def test_weights_are_one_where_the_model_is_sure_of_what_it_says() -> None:
    _, batch = some_batch()
    sure = Says(functional.one_hot(batch["input_ids"].roll(-1, 1), 7) * 50.0)
    config = DpoConfig(learning_rate=1, dpo_use_weighting=True)
    weighted, plain = (loss_of(c, sure, batch) for c in (config, DpoConfig(learning_rate=1)))
    assert float(weighted.totals["pairs"]) == pytest.approx(float(plain.totals["pairs"]), rel=1e-5)
    # Evenly undecided, p is 1/7 and the sum of squares as well: the weight is 1 again.
    even = Says(torch.zeros(4, 6, 7))
    weighted, plain = (loss_of(c, even, batch) for c in (config, DpoConfig(learning_rate=1)))
    assert float(weighted.totals["pairs"]) == pytest.approx(float(plain.totals["pairs"]), rel=1e-5)
    # p is .8 of one token that it does not say, and .2 / 6 of any other.
    logits = torch.full((4, 6, 7), math.log(0.2 / 6))
    for row in range(4):
        for place in range(5):
            logits[row, place, (int(batch["input_ids"][row, place + 1]) + 1) % 7] = math.log(0.8)
    weighted, plain = (loss_of(c, Says(logits), batch) for c in (config, DpoConfig(learning_rate=1)))
    weight = (0.2 / 6) / (0.8**2 + 6 * (0.2 / 6) ** 2)
    assert float(weighted.totals["pairs"]) == pytest.approx(
        weight**2 * float(plain.totals["pairs"]), rel=1e-5
    )


@pytest.mark.parametrize("name", sorted(SORTED))
def test_a_loss_that_sorts_a_micro_batch_has_one_size_of_it(name: LossType) -> None:
    with pytest.raises(ValueError, match=f"auto_find_batch_size: {name} sorts the pairs of a micro batch"):
        DpoConfig(learning_rate=1, dpo_loss_type=[name], auto_find_batch_size=True)
