"""Held-out figures of a method that has a loss of its own."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tunemill.stages.training.ahead_body import means_ahead
from tunemill.stages.training.method import Batch, OwnLoss


def mean_over(
    model: Any,
    own_loss: OwnLoss,
    collate: Callable[[Sequence[Any]], Batch],
    read: Callable[[int], Any],
    count: int,
    batch_size: int,
) -> dict[str, float]:
    """`eval_loss` and the method's metrics over `count` examples, the same for any batch size.

    The model's mode is left as it was.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    totals: dict[str, float] = {}
    metrics: dict[str, tuple[float, str]] = {}
    counts: dict[str, int] = {}

    def batches() -> Iterator[Batch]:
        for first in range(0, count, batch_size):
            batch = collate([read(place) for place in range(first, min(first + batch_size, count))])
            yield {name: tensor.to(device) for name, tensor in batch.items()}

    means = means_ahead(own_loss, model, batches())
    with torch.no_grad():
        for batch in batches():
            for name, number in own_loss.counts(batch).items():
                counts[name] = counts.get(name, 0) + number
            parts = own_loss.loss(model, {**batch, **means})
            for name, total in parts.totals.items():
                totals[name] = totals.get(name, 0.0) + float(total)
            for name, (total, counted) in parts.metrics.items():
                metrics[name] = (metrics.get(name, (0.0, counted))[0] + float(total), counted)
    model.train(was_training)
    loss = sum(total / counts[counted] for counted, total in totals.items())
    shown = {name: total / counts[counted] for name, (total, counted) in metrics.items() if counts[counted]}
    shown |= own_loss.derived(shown)
    return {"eval_loss": loss, **{f"eval_{name}": value for name, value in shown.items()}}
