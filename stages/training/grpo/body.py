"""GRPO (Shao et al. 2024, arXiv 2402.03300): completions compared with others of the same prompt."""

from typing import Any

from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.learning_body import learn


def grpo(config: GrpoConfig, **given: Any) -> None:
    """Train on completions of the model's own."""
    learn(config, **given)
