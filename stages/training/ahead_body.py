"""What a loss must know of its whole step before any micro batch of it: means without gradient."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.training.method import Batch, OwnLoss


def means_ahead(own_loss: OwnLoss, model: Any, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Scalars that belong into each of these batches, on their device; none where the loss asks for none.

    Nothing is drawn at random: dropout is off, and the model's mode is left as it was.
    """
    if own_loss.ahead is None:
        return {}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            of_batch = own_loss.counts(batch)
            for name, (total, counted) in own_loss.ahead(model, batch).items():
                sums[name] = sums.get(name, 0.0) + total
                counts[name] = counts.get(name, 0) + of_batch[counted]
    model.train(was_training)
    return {name: total / counts[name] for name, total in sums.items()}
