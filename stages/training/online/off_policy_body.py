"""What corrects for tokens that another policy has sampled than the one that is trained.

An engine computes with other kernels, another precision or older weights than the trainer. With q its probability of a
token and p_old the trainer's when the round began, the ratio p_old / q of each token, or the product of them over a
completion, weights the loss:

    token_truncate, sequence_truncate    clip(p_old / q, low, high)
    token_mask, sequence_mask            p_old / q where that is within low and high, else 0

and a completion that is worse than its group is left out where the policy has moved too far from what sampled it, by
the mean of log q - log p over its tokens.

Sources: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (truncation); Liu et
al. 2025, "When speed kills stability" (masking); DeepSeek-V3.2 (arXiv 2512.02556), section 3.1 (leaving out).
"""

from torch import Tensor


def sampler_ratio(
    mode: str,
    old_log_p_bt: Tensor,
    sampler_log_p_bt: Tensor,
    mask_bt: Tensor,
    low: float | None,
    high: float | None,
) -> Tensor:
    """[B, T] of tokens or [B, 1] of completions, without gradient.

    A token that the engine tells no log probability of (NaN) counts as one that both agree on.
    """
    log_ratio_bx = ((old_log_p_bt - sampler_log_p_bt).detach() * mask_bt).nan_to_num(nan=0.0)
    if mode.startswith("sequence"):
        log_ratio_bx = log_ratio_bx.sum(-1, keepdim=True)
    ratio_bx = log_ratio_bx.exp()
    if mode.endswith("truncate"):
        return ratio_bx if low is None and high is None else ratio_bx.clamp(low, high)
    outside_bx = (ratio_bx < (0.0 if low is None else low)) | (
        ratio_bx > (float("inf") if high is None else high)
    )
    return ratio_bx.masked_fill(outside_bx, 0.0)


def keeps(
    threshold: float, log_p_bt: Tensor, sampler_log_p_bt: Tensor, advantages_b1: Tensor, mask_bt: Tensor
) -> Tensor:
    """[B, 1]: 1 of completions that are no worse than their group, or from which the policy has not moved too far."""
    moved_bt = (sampler_log_p_bt - log_p_bt.detach()).nan_to_num(nan=0.0) * mask_bt
    moved_b1 = moved_bt.sum(-1, keepdim=True) / mask_bt.sum(-1, keepdim=True).clamp(min=1)
    return ((advantages_b1 >= 0) | (moved_b1 <= threshold)).to(mask_bt.dtype)
