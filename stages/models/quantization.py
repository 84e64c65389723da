"""How weights are stored, and activations rounded while computing: the settings of `quantization` and of `qat`."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import Settings

# Axolotl's other names of a type.
SAME_TYPE = {"float8": "fp8", "float8_e4m3fn": "fp8"}
# Types of weights, and those of activations that go with each. None: left as they are.
ACTIVATIONS: dict[str, tuple[str | None, ...]] = {
    "int8": (None, "int8"),
    "int4": (None, "int8"),
    "fp8": (None, "fp8"),
    "nvfp4": (None, "nvfp4"),
    "mxfp4": (None, "mxfp4"),
}
# Inputs that share a scale where nothing is said; types that are not here have one scale per output row.
GROUPS = {"int4": 32, "nvfp4": 16, "mxfp4": 32}
# Types in which that many inputs share a scale, and no other number.
FIXED_GROUPS = ("nvfp4", "mxfp4")
# What can be trained for, and not stored: transformers has no file for torchao's MX tensors.
NOT_STORED = ("mxfp4",)
# What torchao computes products of such activations with.
NEEDED = {
    "fp8": "an NVIDIA GPU from Ada or Hopper on (compute capability 8.9)",
    "nvfp4": "an NVIDIA GPU from Blackwell on (compute capability 10.0)",
}


class QuantizationSettings(Settings):
    """`quantization`: how weights are stored, and how activations are rounded before each linear module."""

    weight_dtype: Literal["int8", "int4", "fp8", "nvfp4", "mxfp4"] = Field(
        "int8", description="type of the weights of linear modules, all but the output head"
    )
    activation_dtype: Literal["int8", "fp8", "nvfp4", "mxfp4"] | None = Field(
        None, description="type of what goes into linear modules while computing; unset: left as it is"
    )
    group_size: PositiveInt | None = Field(
        None,
        description="inputs that share a scale; unset: 32 for int4 and mxfp4, 16 for nvfp4, else one scale per "
        "output row",
    )
    quantize_embedding: Literal[False] = Field(
        False, description="store embeddings in weight_dtype too: refused"
    )

    @field_validator("weight_dtype", "activation_dtype", mode="before")
    @classmethod
    def _known_types(cls, value: object) -> object:
        return SAME_TYPE.get(value, value) if isinstance(value, str) else value

    @field_validator("quantize_embedding", mode="before")
    @classmethod
    def _embeddings_as_they_are(cls, value: object) -> object:
        if value is True:
            raise ValueError(
                "true is not supported yet; leave it out, so that only linear modules are quantized"
            )
        return False if value is None else value

    @model_validator(mode="after")
    def _types_fit(self) -> Self:
        fitting = ACTIVATIONS[self.weight_dtype]
        if self.activation_dtype not in fitting:
            raise ValueError(
                f"activation_dtype: {self.activation_dtype} does not go with weights in {self.weight_dtype}. Use "
                f"{fitting[1]}, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.group_size is None:
            return self
        if self.weight_dtype == "fp8":
            raise ValueError("group_size: weights in fp8 have one scale per output row. Leave it out")
        fixed = GROUPS[self.weight_dtype] if self.weight_dtype in FIXED_GROUPS else self.group_size
        if self.group_size != fixed:
            raise ValueError(
                f"group_size: {self.group_size}: in {self.weight_dtype} {fixed} inputs share a scale. Leave it out"
            )
        return self

    @property
    def group(self) -> int | None:
        """Inputs that share a scale; None: all of a row."""
        return GROUPS.get(self.weight_dtype) if self.group_size is None else self.group_size

    @property
    def needs(self) -> str | None:
        """What a machine must have to compute with activations of this type; None: nothing."""
        return NEEDED.get(self.activation_dtype or "")


class QatSettings(QuantizationSettings):
    """`qat`: train with weights and activations rounded as they will be when the model is quantized."""

    fake_quant_after_n_steps: NonNegativeInt | None = Field(
        None, description="steps to train without rounding first; unset: none"
    )

    @model_validator(mode="after")
    def _rounding_has_a_slope(self) -> Self:
        if self.weight_dtype == "fp8":
            raise ValueError(
                "weight_dtype: fp8 is not supported in training: fp8: true trains with float8 products, and "
                "quantization: {weight_dtype: fp8} stores what was trained in float8"
            )
        return self
