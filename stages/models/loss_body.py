"""Held-out loss, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows, batches_by_length

# Logits of one forward pass, as float32, stay below this many bytes unless a single row is longer.
LOGIT_BYTES = 2 << 30


@dataclass(frozen=True)
class RowLoss:
    """Summed cross entropy (nats) over the trained tokens of one row."""

    total: float
    tokens: int


def row_losses(model: Any, rows: Rows, numbers: Sequence[int], batch_size: int) -> list[RowLoss]:
    """The loss of each row of `numbers`, in that order. The model's mode is left as it was.

    loss(row) = sum over t of -log p(token[t] | token[<t]) where labels[t] != -100, t >= 1.
    """
    was_training = model.training
    model.eval()
    max_tokens = max(1, LOGIT_BYTES // (4 * model.config.get_text_config().vocab_size))
    found: dict[int, RowLoss] = {}
    with torch.no_grad():
        for batch in batches_by_length(rows, numbers, batch_size, max_tokens):
            found.update(zip(batch, _batch_losses(model, rows, batch), strict=True))
    model.train(was_training)
    return [found[row] for row in numbers]


def _batch_losses(model: Any, rows: Rows, batch: Sequence[int]) -> list[RowLoss]:
    longest = max(int(rows.lengths[row]) for row in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for place, row in enumerate(batch):
        length = int(rows.lengths[row])
        ids[place, :length] = torch.from_numpy(rows.ids(row).astype("int64"))
        labels[place, :length] = torch.from_numpy(rows.labels(row).astype("int64"))
        mask[place, :length] = 1
    device = next(model.parameters()).device
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    targets = labels[:, 1:].to(logits.device)
    losses = functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    totals = losses.double().sum(dim=1).tolist()
    counts = (targets != IGNORED).sum(dim=1).tolist()
    return [RowLoss(total=total, tokens=count) for total, count in zip(totals, counts, strict=True)]


def mean_loss(losses: Sequence[RowLoss]) -> float:
    """Mean over all trained tokens (not over rows), in nats."""
    tokens = sum(loss.tokens for loss in losses)
    assert tokens > 0, "no trained token in the held-out rows"
    return sum(loss.total for loss in losses) / tokens
