"""The key that lets a training know how its model will be quantized."""

from pydantic import Field

from tunemill.stages.declaration import StageConfig
from tunemill.stages.models.quantization import QatSettings


class QuantizationAwareKeys(StageConfig):
    """Quantization-aware training."""

    qat: QatSettings | None = Field(
        None,
        description="train with weights, and activations, rounded as `quantized` will store them",
    )
