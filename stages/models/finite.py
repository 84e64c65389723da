"""Refusing a model whose figures are no numbers."""

import math

from tunemill.stages.errors import UserError


def check_finite(stage: str, what: str, value: float, dtype: object) -> None:
    """Raises UserError where a figure of a model that computes in `dtype` is NaN or infinite."""
    if not math.isfinite(value):
        raise UserError(
            f"{stage}: {what} is {value}: computed in {str(dtype).removeprefix('torch.')}, the model's numbers "
            f"overflow, or its weights are none. Start from weights in bfloat16 or float32, or train with a lower "
            f"learning_rate."
        )
