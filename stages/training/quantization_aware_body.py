"""Quantization-aware training: the model computes as if it was quantized, and the gradient passes the rounding by."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from tunemill.stages.models.quantization import QatSettings
from tunemill.stages.models.quantization_body import round_in_forward, rounding_parts
from tunemill.stages.report import Report


class RoundLater(TrainerCallback):  # type: ignore[misc]
    """Trains some steps in full precision first. What a step does follows from its number, also after a resume."""

    def __init__(self, parts: Sequence[Any], after: int) -> None:
        self._parts, self.after = parts, after

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """`global_step` is the number of steps taken so far."""
        for part in self._parts:
            part.enabled = state.global_step >= self.after

    def on_train_end(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """What looks at the model afterwards sees it rounded."""
        for part in self._parts:
            part.enabled = True


def prepare(settings: QatSettings, model: Any, report: Report) -> list[TrainerCallback]:
    """Round in the model's linear modules from now on, and return what switches that on later, where it is asked for.

    Raises UserError and SettingError as `round_in_forward` does.
    """
    parts = round_in_forward(model, settings)
    activations = (
        "" if settings.activation_dtype is None else f", their inputs to {settings.activation_dtype}"
    )
    embedding = " and the embeddings" if parts.embedding is not None else ""
    report.log(
        f"qat: {len(parts.linears)} linear modules{embedding} round their weights to "
        f"{settings.weight_dtype}{activations}"
    )
    if parts.left_out:
        report.log(
            f"qat: {parts.left_out:.0%} of the weights of linear layers are those of experts, and stay as they are"
        )
    if not settings.fake_quant_after_n_steps:
        return []
    return [RoundLater(list(rounding_parts(model)), settings.fake_quant_after_n_steps)]
