"""What the `quantized` stage reads from the YAML."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, StageConfig
from tunemill.stages.models.quantization import QatSettings, QuantizationSettings


class QuantizedConfig(StageConfig):
    """Quantization of what was trained: after a plain training, or as a quantization-aware one has foreseen it."""

    quantization: QuantizationSettings = Field(QuantizationSettings(), description="how weights are stored")
    qat: QatSettings | None = Field(
        None, description="how a quantization-aware training rounded: weights are stored in the same way"
    )

    @field_validator("quantization", mode="after")
    @classmethod
    def _can_be_stored(cls, value: QuantizationSettings) -> QuantizationSettings:
        if not value.stored:
            raise ValueError(
                f"weight_dtype: {value.weight_dtype} is stored only where activations are rounded to it too. Add "
                f"activation_dtype: {value.weight_dtype}, or use nvfp4 or int4"
            )
        return value

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if self.qat is not None and "quantization" in self.model_fields_set:
            raise ConflictError(
                "quantization: the model is trained for the way that qat names, and is stored in it. Keep qat alone",
                "quantization",
                "qat",
            )
        return self

    @property
    def chosen(self) -> QuantizationSettings:
        """How weights are stored."""
        return self.quantization if self.qat is None else self.qat
