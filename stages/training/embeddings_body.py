"""The rows of the embeddings that are trained: all of them."""

from typing import Any

from torch import nn


def train_every_row(model: Any) -> None:
    """Let the row of the padding token learn as any other one.

    Torch gives it no gradient, and it may be the row of a token that stands in texts: many models pad with EOS.
    Padding itself is under no label and seen by no token, so where it is a token of its own its row stays all the same.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
