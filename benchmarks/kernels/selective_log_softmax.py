"""Log probability of one entry per token. Liger has no such function."""

from __future__ import annotations

from benchmarks.kernels.case import Case, Setting
from benchmarks.kernels.logit_cases import logit_cases
from tunemill.kernels.functions import selective_log_softmax as kernel


def cases(setting: Setting) -> list[Case]:
    """See `logit_cases`."""
    return logit_cases(
        setting, "selective_log_softmax", kernel.selective_log_softmax, kernel.reference, indexed=True
    )
