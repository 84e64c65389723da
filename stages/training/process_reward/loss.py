"""The loss of a process reward model: cross entropy of the class of each judged step.

The label of a step stands at its last token, and is what the head says there, of that token and all before it: nothing
is shifted, as it is for a model that predicts the next token.

    loss = mean over judged steps of -log p(class of the step | all up to its last token)

Shapes: B sequences, L tokens, C classes, N judged steps.

Source: Lightman et al. 2023, "Let's Verify Step by Step" (arXiv 2305.20050); as in TRL's former PRMTrainer, all classes
weigh the same.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.training.method import Batch, Counts, LossParts


def judged(logits_blc: Tensor, labels_bl: Tensor) -> tuple[Tensor, Tensor]:
    """Of the judged steps alone: [N, C] logits, in float32 at least, and [N] classes."""
    judged_bl = labels_bl != IGNORED
    exact = torch.promote_types(logits_blc.dtype, torch.float32)
    return logits_blc[judged_bl].to(exact), labels_bl[judged_bl]


def step_loss(model: Any, batch: Batch) -> LossParts:
    """The loss of a micro batch as a sum over its judged steps; beside it, how many are classed as their label says."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits_nc, classes_n = judged(model(**inputs, use_cache=False).logits, batch["labels"])
    total = functional.cross_entropy(logits_nc, classes_n, reduction="sum")
    right = (logits_nc.detach().argmax(dim=-1) == classes_n).sum()
    return LossParts({"steps": total}, {"accuracy": (right, "steps")})


def judged_steps(batch: Batch) -> Counts:
    """How many steps of a batch are judged."""
    return {"steps": int((batch["labels"] != IGNORED).sum())}
