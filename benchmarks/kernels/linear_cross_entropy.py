"""The final projection with its loss, against the naive logits matrix and Liger's fused loss."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels.case import Case, Inputs, Setting, simple
from benchmarks.kernels.competitors import compiled, library
from benchmarks.kernels.loss_cases import SHAPES, loss_cases
from benchmarks.kernels.ways import COMPILED, EAGER, LIGER, OURS
from tunemill.kernels.functions import linear_cross_entropy as kernel


def cases(setting: Setting) -> list[Case]:
    """See `loss_cases`."""
    ways = {
        OURS: simple(kernel.linear_cross_entropy),
        EAGER: simple(kernel.reference),
        LIGER: liger_loss,
        COMPILED: compiled(kernel.reference),
    }
    return loss_cases(setting, "linear_cross_entropy", ways, SHAPES)


def liger_loss(_: Inputs) -> Any:
    """Liger's loss with its defaults; it returns further values behind the loss."""
    function: Any = library("liger_kernel.ops", "LigerFusedLinearCrossEntropyFunction")
    return lambda hidden, weight, labels: function.apply(hidden, weight, labels)[0]
