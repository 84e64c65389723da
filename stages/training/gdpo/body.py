"""GDPO (Liu et al. 2026, arXiv 2601.05242): completions compared by each reward, and then by all."""

from typing import Any

from tunemill.stages.training.gdpo.config import GdpoConfig
from tunemill.stages.training.online.learning_body import learn


def gdpo(config: GdpoConfig, **given: Any) -> None:
    """Train on completions of the model's own."""
    learn(config, **given)
