"""Kernels inside of a model that scores; there is none for its loss."""

import pytest
from pydantic import ValidationError
from support.interpreter import run_interpreted

from tunemill.stages.training.reward.config import RewardConfig


@pytest.mark.slow
def test_under_the_interpreter() -> None:
    run_interpreted("reward_kernels", at_least=2)


def test_kernels_of_a_language_models_loss_are_refused() -> None:
    with pytest.raises(
        ValidationError, match="linear_cross_entropy computes the loss of supervised training"
    ):
        RewardConfig(learning_rate=1, kernels=["linear_cross_entropy"])
