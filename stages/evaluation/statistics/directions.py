"""Of which metrics less is better, and of which neither is."""

import re
from typing import Literal

Better = Literal["higher", "lower", "neither"]

# Words of names, between underscores.
LOWER = {
    "loss", "perplexity", "kl", "ter", "wer", "cer", "error", "errors", "edits", "distance", "failures", "rejected",
    "undesirable", "off", "mistakes", "deviation", "divergence", "mae", "mse", "rmse", "cost", "latency",
}  # fmt: skip
NEITHER = {"tokens", "rows", "steps", "length", "characters", "count", "seconds"}


def better_of(metric: str) -> Better:
    """Which way a metric improves, by the words of its name: `eval_loss` is better lower; others higher."""
    words = set(re.split(r"[_\W]+", metric.lower()))
    return "neither" if words & NEITHER else "lower" if words & LOWER else "higher"
