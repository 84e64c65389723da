"""Entropy of each token's distribution. Liger has no such function."""

from __future__ import annotations

from benchmarks.kernels.case import Case, Setting
from benchmarks.kernels.logit_cases import logit_cases
from tunemill.kernels.functions import entropy


def cases(setting: Setting) -> list[Case]:
    """See `logit_cases`."""
    return logit_cases(setting, "entropy", entropy.entropy, entropy.reference, indexed=False)
