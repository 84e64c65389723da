"""The losses of online RL by hand, and as one number for a step however it is cut into micro batches."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from tunemill.stages.training.online.loss import (
    COUNTED_IN,
    LossSettings,
    LossType,
    Sampled,
    counts_of,
    high_entropy,
    policy_loss,
)
from tunemill.stages.training.online.off_policy_body import keeps, sampler_ratio

LN2, LN3 = math.log(2), math.log(3)
# Two completions, of 2 tokens and of 1. The first, better one: its tokens are twice and half as likely as they were;
# the other's token is 3 times as likely.
MASK = torch.tensor([[1, 1], [1, 0]])
MOVED = torch.tensor([[LN2, -LN2], [LN3, 0.0]], dtype=torch.float64)
NOW = torch.tensor([[-1.0, -2.0], [-3.0, -9.0]], dtype=torch.float64)
SAMPLED = Sampled(MASK, torch.tensor([1.0, -2.0], dtype=torch.float64), old_log_p_bt=NOW - MOVED)
ENTROPY = torch.tensor([[0.5, 1.5], [1.0, 7.0]], dtype=torch.float64)
# -min(2, 1.2) and -min(.5, .8), and of the worse one -min(-6, -2.4).
CLIPPED = [-1.2, -0.5, 6.0]


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def phi(w: float, k: float, n: float) -> float:
    return math.exp(n) * w**k * math.exp(-n * w)


SAPO = [-4 * sigma(1.0), -4 * sigma(-0.5), 2 * 4 / 1.05 * sigma(1.05 * 2)]
BY_HAND = {
    "grpo": ((CLIPPED[0] + CLIPPED[1]) / 2 + CLIPPED[2]) / 2,
    "bnpo": sum(CLIPPED) / 3,
    "dapo": sum(CLIPPED) / 3,
    "dr_grpo": sum(CLIPPED) / (2 * 8),
    "luspo": sum(CLIPPED) / 2,
    # epsilon_high .2 is the cap: -.2 A log p, as every ratio is above it.
    "cispo": (0.2 * -1.0 * -1 + 0.2 * -2.0 * -1 + 0.2 * 2 * -3.0) / 3,
    "sapo": ((SAPO[0] + SAPO[1]) / 2 + SAPO[2]) / 2,
    # The first completion has not moved as a whole, 2 / 2; the other by 3.
    "vespo": (1.0 + 2.0 + phi(3.0, 3.0, 2.0) * 2 * -3.0) / 3,
}


def step_loss(settings: LossSettings, sampled: Sampled, now: Tensor, entropy: Tensor, cut: int = 0) -> Tensor:
    """What the loop makes of it: sums over micro batches, divided by the counts of the step."""
    rows = [slice(0, len(now))] if not cut else [slice(i, i + cut) for i in range(0, len(now), cut)]
    parts = [policy_loss(settings, part(sampled, at), now[at], entropy[at]) for at in rows]
    counts = [counts_of(sampled.mask_bt[at], settings.max_completion_length) for at in rows]
    return sum(
        sum(one.totals[name] for one in parts) / sum(one[name] for one in counts) for name in parts[0].totals
    )


def part(sampled: Sampled, at: slice) -> Sampled:
    return Sampled(**{name: None if t is None else t[at] for name, t in vars(sampled).items()})


@pytest.mark.parametrize("loss_type", get_args(LossType))
def test_every_loss_is_what_it_is_by_hand_and_the_same_in_micro_batches_of_one(loss_type):
    settings = LossSettings(loss_type=loss_type, max_completion_length=8)
    assert step_loss(settings, SAMPLED, NOW, ENTROPY).item() == pytest.approx(BY_HAND[loss_type])
    assert step_loss(settings, SAMPLED, NOW, ENTROPY, cut=1).item() == pytest.approx(BY_HAND[loss_type])


def test_the_first_step_of_a_round_is_plain_policy_gradient():
    """Nothing has moved: the ratio is 1, its gradient that of log p, and the loss -A in the mean."""
    for loss_type in set(get_args(LossType)) - {"cispo", "vespo", "sapo"}:
        now = NOW.clone().requires_grad_()
        sampled = replace(SAMPLED, old_log_p_bt=None)
        loss = step_loss(LossSettings(loss_type=loss_type), sampled, now, ENTROPY)
        loss.backward()
        per_token = {
            "sequences": [[-0.25, -0.25], [1.0, 0]] if loss_type == "grpo" else [[-0.5, -0.5], [1.0, 0]],
            "tokens": [[-1 / 3, -1 / 3], [2 / 3, 0]],
            "slots": [[-1 / 512, -1 / 512], [2 / 512, 0]],
        }[COUNTED_IN[loss_type]]
        assert torch.allclose(now.grad, torch.tensor(per_token, dtype=torch.float64)), loss_type


def test_a_clipped_token_teaches_nothing_and_delta_bounds_what_is_worse():
    now = NOW.clone().requires_grad_()
    loss = step_loss(LossSettings(), SAMPLED, now, ENTROPY)
    loss.backward()
    assert now.grad[0, 0] == 0 and now.grad[1, 1] == 0
    assert now.grad[0, 1] != 0 and now.grad[1, 0] != 0
    bounded = step_loss(LossSettings(delta=2.0), SAMPLED, NOW, ENTROPY)
    assert bounded.item() == pytest.approx((-1.2 - 0.5 + 2 * 2) / 3)


def test_ratios_of_whole_completions_are_geometric_means():
    settings = LossSettings(loss_type="grpo", importance_sampling_level="sequence")
    # Twice and half as likely: 1 in the mean. The other moves by 3 with one token.
    assert step_loss(settings, SAMPLED, NOW, ENTROPY).item() == pytest.approx((-1.0 + 6.0) / 2)


def test_divergence_from_the_reference_is_estimated_without_negative_values():
    reference = replace(SAMPLED, old_log_p_bt=None, reference_log_p_bt=NOW + MOVED)
    k3 = [2 - LN2 - 1, 0.5 + LN2 - 1, 3 - LN3 - 1]
    with_kl = step_loss(LossSettings(beta=0.5), reference, NOW, ENTROPY)
    assert with_kl.item() == pytest.approx((-1 - 1 + 2 + 0.5 * sum(k3)) / 3)
    moved = replace(SAMPLED, reference_log_p_bt=NOW + MOVED)
    weighted = step_loss(LossSettings(beta=0.5), moved, NOW, ENTROPY)
    assert weighted.item() == pytest.approx((sum(CLIPPED) + 0.5 * (2 * k3[0] + 0.5 * k3[1] + 3 * k3[2])) / 3)


def test_entropy_is_rewarded_in_the_mean_over_tokens_whatever_the_loss():
    for loss_type in get_args(LossType):
        plain = LossSettings(loss_type=loss_type, max_completion_length=8)
        found = step_loss(replace(plain, entropy_coef=0.1), SAMPLED, NOW, ENTROPY)
        assert found.item() == pytest.approx(BY_HAND[loss_type] - 0.1 * (0.5 + 1.5 + 1.0) / 3), loss_type


def test_only_the_least_sure_tokens_are_kept():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    entropy = torch.tensor([[0.1, 3.0, 2.0], [1.0, 9.0, 9.0]])
    assert high_entropy(entropy, mask, 0.5).tolist() == [[False, True, True], [False, False, False]]
    assert not high_entropy(entropy, mask * 0, 0.5).any()
    kept = replace(SAMPLED, high_entropy_bt=torch.tensor([[False, True], [True, False]]))
    assert step_loss(LossSettings(), kept, NOW, ENTROPY).item() == pytest.approx((-0.5 + 6.0) / 3)


# The trainer gives the tokens 2, .5 and 4 times the probability that the engine did.
OLD = torch.tensor([[LN2, -LN2], [2 * LN2, 5.0]], dtype=torch.float64)
ENGINE = torch.zeros(2, 2, dtype=torch.float64)


def test_what_the_engine_sampled_is_weighted_by_how_likely_it_was_for_the_trainer():
    ratios = {
        "token_truncate": [[2.0, 0.5], [3.0, 1.0]],
        "token_mask": [[2.0, 0.5], [0.0, 1.0]],
        "sequence_truncate": [[1.0], [3.0]],
        "sequence_mask": [[1.0], [0.0]],
    }
    for mode, expected in ratios.items():
        found = sampler_ratio(mode, OLD, ENGINE, MASK, None, 3.0)
        assert found.tolist() == [pytest.approx(row) for row in expected], mode
    low = sampler_ratio("token_truncate", OLD, ENGINE, MASK, 0.75, None)
    assert low.tolist() == [pytest.approx([2.0, 0.75]), pytest.approx([4.0, 1.0])]
    assert sampler_ratio("token_mask", OLD, ENGINE, MASK, 0.75, None)[0, 1] == 0


def test_a_token_of_unknown_probability_is_not_corrected():
    engine = ENGINE.clone()
    engine[0, 0] = float("nan")
    assert sampler_ratio("token_mask", OLD, engine, MASK, None, None)[0].tolist() == pytest.approx([1, 0.5])
    assert keeps(0.1, OLD, engine, torch.tensor([[-1.0], [-1.0]]), MASK).isfinite().all()


def test_the_correction_weights_the_loss_and_vespo_takes_it_into_its_own_weight():
    sampled = replace(SAMPLED, sampler_log_p_bt=SAMPLED.old_log_p_bt - OLD)
    found = step_loss(LossSettings(correction="token_truncate"), sampled, NOW, ENTROPY)
    assert found.item() == pytest.approx((-1.2 * 2 - 0.5 * 0.5 + 6.0 * 3) / 3)
    vespo = step_loss(LossSettings(loss_type="vespo", correction="token_truncate"), sampled, NOW, ENTROPY)
    assert vespo.item() == pytest.approx((1.0 + 2.0 + phi(9.0, 3.0, 2.0) * 2 * -3.0) / 3)
    figures = policy_loss(LossSettings(), sampled, NOW, ENTROPY).metrics
    assert figures["mismatch"][0].item() == pytest.approx(4 * LN2)
    assert figures["correction_masked"] == (torch.tensor(1.0, dtype=torch.float64), "sequences")


def test_a_worse_completion_is_left_out_where_the_policy_has_moved_away_from_it():
    # log q - log p in the mean: 0 of the first; of the other -ln 3, so p has moved towards it.
    away = replace(SAMPLED, old_log_p_bt=NOW + MOVED)
    kept = step_loss(LossSettings(off_policy_mask_threshold=1.2), away, NOW, ENTROPY)
    gone = step_loss(LossSettings(off_policy_mask_threshold=1.0), away, NOW, ENTROPY)
    # Ratios are 1/2, 2 and 1/3: -.5, -1.2, and of the worse one 2 max(1/3, .8).
    assert kept.item() == pytest.approx((-0.5 - 1.2 + 1.6) / 3)
    assert gone.item() == pytest.approx((-0.5 - 1.2) / 3)
