"""A Trainer as a user would write it."""
# ruff: noqa: ARG002

from torch.nn.functional import cross_entropy
from transformers import Trainer


class Weighs(Trainer):
    """Tokens with odd ids count twice."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        logits = model(**inputs).logits[:, :-1].float()
        targets = labels[:, 1:]
        losses = cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
        return (losses * (1 + targets % 2)).sum() / num_items_in_batch
