"""The loss in pieces, in plain PyTorch: what is left where Triton does not run."""

from __future__ import annotations

from benchmarks.kernels.case import Case, Setting, simple
from benchmarks.kernels.loss_cases import SHAPES, loss_cases
from benchmarks.kernels.ways import EAGER, OURS
from tunemill.kernels.functions import chunked_cross_entropy as kernel


def cases(setting: Setting) -> list[Case]:
    """See `loss_cases`; one shape, for its speed is that of its matrix products."""
    ways = {OURS: simple(kernel.chunked_cross_entropy), EAGER: simple(kernel.reference)}
    return loss_cases(setting, "chunked_cross_entropy", ways, SHAPES[:1])
