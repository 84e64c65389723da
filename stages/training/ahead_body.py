"""What a loss must know of its whole step before any micro batch of it: means without gradient."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.method import Batch, OwnLoss


def means_ahead(
    own_loss: OwnLoss, model: Any, batches: Iterable[Batch], counted: Sequence[bool] | None = None
) -> dict[str, Tensor]:
    """Scalars that belong into each of these batches, on their device; none where the loss asks for none.

    Nothing is drawn at random: dropout is off, and the model's mode is left as it was. `counted` says which batches
    count, among several processes whose means are over the batches of all; without it this process is asked alone.
    """
    if own_loss.ahead is None:
        return {}
    sums: dict[str, Tensor] = {}
    counts: dict[str, float] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for at, batch in enumerate(batches):
            of_batch = own_loss.counts(batch)
            weight = 1 if counted is None or counted[at] else 0
            for name, (total, count) in own_loss.ahead(model, batch).items():
                sums[name] = sums.get(name, 0.0) + total * weight
                counts[name] = counts.get(name, 0) + of_batch[count] * weight
    model.train(was_training)
    if counted is not None and ranks.count() > 1:
        counts = ranks.summed(counts)
        together = ranks.summed({name: float(total) for name, total in sums.items()})
        sums = {name: total.new_tensor(together[name]) for name, total in sums.items()}
    return {name: total / counts[name] for name, total in sums.items()}
