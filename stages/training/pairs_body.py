"""Methods that learn from pairs of answers, and what they show of them. B: pairs of a micro batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from tunemill.stages.data.rows.collate_body import Batch
from tunemill.stages.data.rows.pairs_body import PairReader, collate_pairs, flatten_pairs
from tunemill.stages.models.answers_body import sequences_in
from tunemill.stages.training.keys.pairs import PairKeys
from tunemill.stages.training.method import Counts, LossParts, OwnLoss
from tunemill.stages.training.preferences_body import Rows, on_preferences

PAIRS = Rows(
    "pairs",
    PairReader,
    lambda flattens: flatten_pairs if flattens else collate_pairs,
    "with BOS and EOS, cut off after sequence_len, nothing is left of an answer, or both are the same",
)


def count_pairs(batch: Batch) -> Counts:
    """How many pairs a batch holds."""
    return {"pairs": sequences_in(batch) // 2}


Sides = tuple[Tensor, Tensor]


def compared(log_p: Sides, merits: Sides, beta: float) -> dict[str, tuple[Tensor, str]]:
    """What is shown of B pairs, by the names of `keys.pairs.COMPARED`: the metrics of `LossParts`, over "pairs".

    `log_p`: [B] log probabilities of the chosen and of the rejected answers. `merits`: what a reward is `beta` times,
    [B] of either: these log probabilities themselves, or what they have gained on the reference model's.
    """
    (chosen_b, rejected_b), (merit_b, other_b) = _detached(log_p), _detached(merits)
    margins_b = beta * (merit_b - other_b)
    shown = {
        "rewards/chosen": beta * merit_b,
        "rewards/rejected": beta * other_b,
        "rewards/margins": margins_b,
        "rewards/accuracies": margins_b > 0,
        "logps/chosen": chosen_b,
        "logps/rejected": rejected_b,
    }
    return {name: (value_b.sum(), "pairs") for name, value_b in shown.items()}


def _detached(sides: Sides) -> Sides:
    chosen_b, rejected_b = sides
    return chosen_b.detach(), rejected_b.detach()


def on_pairs(
    loss_of: Callable[[Any, Any, Batch], LossParts], counts_of: Callable[[Batch], Counts] = count_pairs
) -> Callable[..., None]:
    """The body of a method: `loss_of` gives for its config, a model and a batch of pairs the parts of the loss."""

    def own_loss_of(config: PairKeys) -> OwnLoss:
        return OwnLoss(partial(loss_of, config), counts_of)

    return on_preferences(PAIRS, own_loss_of)
