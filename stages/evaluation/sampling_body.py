"""Drawing tokens so that what is drawn for a row depends on the row alone, not on those that share its batch.

The likeliest of the logits plus Gumbel noise is a draw from their softmax (Gumbel 1954; Maddison et al. 2014). Each row
has noise of its own, so its answer is the same in a batch of any size, as far as rounding leaves the logits the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunemill.stages.evaluation.sampling_keys import Sampling, seed_of


def drawn(sampling: Sampling | None, rows: Sequence[int]) -> LogitsProcessorList | None:
    """What is done to the logits of a batch, whose rows have these numbers; nothing where the likeliest is taken."""
    if sampling is None:
        return None
    found = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k is not None:
        found.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        found.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*found, RowNoise(sampling.seed, rows)])


class RowNoise(LogitsProcessor):  # type: ignore[misc]
    """Adds Gumbel noise to the logits of each row, from a generator of its own."""

    def __init__(self, seed: int, rows: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed_of(seed, row)) for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers passes both
        """Logits [B, V] with noise of the same shape."""
        uniform_bv = torch.stack([torch.rand(scores.shape[-1], generator=one) for one in self.generators])
        tiny = torch.finfo(uniform_bv.dtype).tiny
        noise_bv = -(-uniform_bv.clamp_min(tiny).log()).clamp_min(tiny).log()
        return scores + noise_bv.to(scores.device, scores.dtype)
