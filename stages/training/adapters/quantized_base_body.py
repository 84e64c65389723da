"""A quantized base as the frozen part of a training."""

from typing import Any

import torch

from tunemill.stages.training.machine_body import Precision


def raise_norms(model: Any, precision: Precision) -> None:
    """Put normalizations into float32, as PEFT does for quantized models: small, and sums over many quantized inputs.

    PEFT raises embeddings and output head too, gigabytes of a large vocabulary, which autocast then rounds again:
    these stay. Without autocast nothing would bring float32 back to the type of the head, so all stays as it is.
    """
    if precision.autocast is None:
        return
    for module in model.modules():
        parameters = list(module.parameters(recurse=False))
        if parameters and all(one.ndim == 1 and one.is_floating_point() for one in parameters):
            module.to(torch.float32)
