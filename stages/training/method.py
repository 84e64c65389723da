"""What a method of training is: which examples, how they become a batch, what is minimized. No method is named here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunemill.stages.training.order_body import Examples

Batch = dict[str, Any]
Counts = Mapping[str, int]


@dataclass(frozen=True)
class LossParts:
    """The loss of a micro batch as sums, so that a step has one mean however it is cut into micro batches.

    `totals`: name of a count -> what is minimized, summed over what is counted. The loss of a step is, for each
    name, the sum of its totals over the step's micro batches divided by the sum of its counts, all added up.
    `metrics`: name -> (a sum, the name of the count that it is divided by); shown, never minimized.
    """

    totals: Mapping[str, Any]
    metrics: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnLoss:
    """A loss that the method computes. `counts` are those of a collated batch, by the names that `LossParts` uses.

    `ahead` is asked of each micro batch before the first `loss` of a step, without gradient: sums, each with the name
    of the count that it is divided by. Their means over the whole step stand in every batch that `loss` gets, by these
    names. `derived` gives figures that are made of the means of the step's metrics. A metric whose count is 0 in a
    step has no mean there, and is not among them. `made` is for examples that only the model as it is can make: it is
    handed the model, how many steps it has taken, and the micro batches that its examples were collated to, just before
    the step; the step is taken with what it gives.
    """

    loss: Callable[[Any, Batch], LossParts]
    counts: Callable[[Batch], Counts]
    ahead: Callable[[Any, Batch], Mapping[str, tuple[Any, str]]] | None = None
    derived: Callable[[Mapping[str, float]], Mapping[str, float]] = lambda _means: {}
    made: Callable[[Any, int, list[Batch]], list[Batch]] | None = None


@dataclass(frozen=True)
class Method:
    """What the loop asks of a method.

    `examples` are read in the order of each epoch. `collator` makes, for the loaded model, what turns some of them
    into a batch. `check` is handed the model on its device before the first step, and the collator; it raises
    SettingError for a model that cannot be trained so. Without `own_loss` the model computes the loss, over
    `labels`. `score` gives figures of the held-out rows, `eval_loss` among them; None where there are none.
    `prepare` is handed the loaded model, its precision and the folder of checkpoints, before anything is trained; it
    gives callbacks that go along, each with a `resume` that is told of the checkpoint that a training goes on from.
    """

    examples: "Examples"
    collator: Callable[[Any], Callable[[Sequence[Any]], Batch]]
    check: Callable[[Any, Any], None]
    own_loss: OwnLoss | None = None
    score: Callable[[Any], dict[str, float]] | None = None
    prepare: Callable[[Any, Any, Path], list[Any]] = lambda _model, _precision, _checkpoints: []


# What shapes the weights whatever the method, beside what its settings use.
LIBRARIES = ("transformers", "torch", "peft", "accelerate")
# Why held-out rows are no part of the key.
MONITORS = "monitors training with its own random state: never changes the weights"
