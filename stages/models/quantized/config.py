"""What the `quantized` stage reads from the YAML."""

from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from tunemill.stages.declaration import Settings, StageConfig

# Axolotl's other types: known, but not written yet.
NOT_YET = {"int4", "fp8", "float8", "nvfp4", "mxfp4", "float8_e4m3fn", "int8"}


class QuantizationSettings(Settings):
    """`quantization`: how weights are stored."""

    weight_dtype: Literal["int8"] = Field("int8", description="type of the stored weights of linear modules")
    activation_dtype: None = Field(None, description="type of activations while computing: left as they are")
    group_size: PositiveInt | None = Field(
        None, description="inputs that share a scale; unset: one scale per output row"
    )
    quantize_embedding: Literal[False] = Field(
        False, description="store embeddings in weight_dtype too: refused"
    )

    @field_validator("weight_dtype", mode="before")
    @classmethod
    def _weights_in_int8(cls, value: object) -> object:
        if isinstance(value, str) and value in NOT_YET - {"int8"}:
            raise ValueError(f"{value} is not supported yet; use int8")
        return value

    @field_validator("activation_dtype", mode="before")
    @classmethod
    def _activations_as_they_are(cls, value: object) -> object:
        if value is not None:
            raise ValueError(
                f"{value} is not supported yet; leave it out, so that only weights are quantized"
            )
        return value

    @field_validator("quantize_embedding", mode="before")
    @classmethod
    def _embeddings_as_they_are(cls, value: object) -> object:
        if value is True:
            raise ValueError(
                "true is not supported yet; leave it out, so that only linear modules are quantized"
            )
        return value


class QuantizedConfig(StageConfig):
    """Post-training quantization."""

    quantization: QuantizationSettings = Field(QuantizationSettings(), description="how weights are stored")
