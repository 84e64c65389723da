"""What the `distillation` stage reads from the YAML."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.texts import TextKeys


class DistillationConfig(TextKeys):
    """Learning from what a teacher says of each trained token, full or LoRA. Names and defaults are Axolotl's."""

    kd_alpha: float = Field(1.0, ge=0, le=1, description="weight of the divergence from the teacher")
    kd_ce_alpha: float = Field(
        0.0, ge=0, le=1, description="weight of the cross entropy of the rows' own tokens"
    )
    kd_temperature: PositiveFloat = Field(
        1.0,
        description="what logits of student and teacher are divided by; the divergence counts times its square",
    )
    kd_beta: float = Field(
        0.0,
        ge=0,
        le=1,
        description="0: forward KL divergence, 1: reverse, between: Jensen-Shannon with this weight of the teacher",
    )
    kd_normalize_topk: bool = Field(
        True,
        description="the student's probabilities too are of the teacher's likeliest tokens alone; false: of the whole "
        "vocabulary",
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if not self.kd_alpha and not self.kd_ce_alpha:
            raise ConflictError(
                "kd_alpha and kd_ce_alpha are both 0, so nothing would be learned. Give one of them a weight",
                "kd_alpha",
                "kd_ce_alpha",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """How the divergence is computed where it counts nothing."""
        yield from super().idle()
        if not self.kd_alpha:
            for key in ("kd_temperature", "kd_beta", "kd_normalize_topk"):
                if self.is_set(key):
                    yield Idle(key, "kd_alpha is 0, so the divergence from the teacher counts nothing")
