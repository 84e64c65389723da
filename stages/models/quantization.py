"""How weights are stored, and activations rounded while computing: the settings of `quantization` and of `qat`."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import Settings
from tunemill.stages.errors import UserError

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
# Types in which that many inputs share a scale, and no other number; and in which torchao looks up no embedding.
FOUR_BIT_FLOATS = ("nvfp4", "mxfp4")
# NVFP4 has a scale for each 16 inputs, and torchao wants as many outputs at a time.
NVFP4_BLOCK = 16
# Where more of the weights of linear layers stays as it is, a model is not called quantized.
MOST_LEFT_OUT = 0.5
# What torchao computes products of such activations with.
NEEDED = {
    "fp8": "an NVIDIA GPU from Ada or Hopper on (compute capability 8.9)",
    "nvfp4": "an NVIDIA GPU from Blackwell on (compute capability 10.0)",
}


def is_stored(weight_dtype: str | None, activation_dtype: str | None) -> bool:
    """Whether a model can be stored in a type, or only trained for it."""
    return weight_dtype != "mxfp4" or activation_dtype == "mxfp4"


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
    quantize_embedding: bool = Field(
        False,
        description="store the embeddings in weight_dtype too, and with them an output head that is tied to them",
    )

    @field_validator("weight_dtype", "activation_dtype", mode="before")
    @classmethod
    def _known_types(cls, value: object) -> object:
        return SAME_TYPE.get(value, value) if isinstance(value, str) else value

    @field_validator("quantize_embedding", mode="before")
    @classmethod
    def _unset_is_false(cls, value: object) -> object:
        return False if value is None else value

    @model_validator(mode="after")
    def _embeddings_are_looked_up(self) -> Self:
        if self.quantize_embedding and self.weight_dtype in FOUR_BIT_FLOATS:
            raise ValueError(
                f"quantize_embedding: torchao looks up no embeddings in {self.weight_dtype}: the model would not run. "
                f"Leave it out, or use int8, int4 or fp8"
            )
        return self

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
        fixed = GROUPS[self.weight_dtype] if self.weight_dtype in FOUR_BIT_FLOATS else self.group_size
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
    def stored(self) -> bool:
        """Whether a model can be stored so: torchao rounds to mxfp4 only where it rounds activations to it too."""
        return is_stored(self.weight_dtype, self.activation_dtype)

    @property
    def key(self) -> str:
        """The key that these are the value of."""
        return "quantization"

    @property
    def words(self) -> str:
        """The types, as a sentence names them."""
        return self.weight_dtype + (f" with {self.activation_dtype} inputs" if self.activation_dtype else "")

    @property
    def needs(self) -> str | None:
        """What a machine must have to compute with activations of this type; None: nothing."""
        return NEEDED.get(self.activation_dtype or "")


class QatSettings(QuantizationSettings):
    """`qat`: train with weights and activations rounded as they will be when the model is quantized."""

    fake_quant_after_n_steps: NonNegativeInt | None = Field(
        None, description="steps to train without rounding first; unset: none"
    )

    @property
    def key(self) -> str:
        """The key that these are the value of."""
        return "qat"

    @model_validator(mode="after")
    def _rounding_has_a_slope(self) -> Self:
        if self.weight_dtype == "fp8":
            raise ValueError(
                "weight_dtype: fp8 is not supported in training: fp8: true trains with float8 products, and "
                "quantization: {weight_dtype: fp8} stores what was trained in float8"
            )
        return self


def fault_of_size(settings: QuantizationSettings, name: str, outputs: int, inputs: int) -> str | None:
    """Why a linear layer of this size cannot be stored so, beginning with the key within the settings."""
    if settings.group is not None and inputs % settings.group:
        if settings.weight_dtype in FOUR_BIT_FLOATS:
            return (
                f"weight_dtype: {settings.weight_dtype}: {name} has {inputs} inputs, no multiple of {settings.group}. "
                f"Use int8"
            )
        return (
            f"group_size: {settings.group} does not divide the {inputs} inputs of {name}. Choose a divisor, or leave "
            f"it out for one scale per row"
        )
    if settings.weight_dtype == "nvfp4" and outputs % NVFP4_BLOCK:
        return f"weight_dtype: nvfp4: {name} has {outputs} outputs, no multiple of {NVFP4_BLOCK}. Use int8"
    return None


def fault_of_embedding(settings: QuantizationSettings, width: int) -> str | None:
    """Why a table of embeddings so wide cannot be stored so, beginning with the key within the settings."""
    if settings.group is None or width % settings.group == 0:
        return None
    return (
        f"group_size: {settings.group} does not divide the {width} numbers of an embedding. Choose a divisor, or leave "
        f"quantize_embedding out"
    )


def check_left_out(share: float, settings: QuantizationSettings) -> None:
    """Raise UserError where more than half of the weights of linear layers would stay as they are."""
    if share <= MOST_LEFT_OUT:
        return
    way = (
        "Train without qat, and use quantization: {weight_dtype: int8}"
        if isinstance(settings, QatSettings)
        else "Use weight_dtype: fp8, or int8 without group_size"
    )
    raise UserError(
        f"{settings.key}: {share:.0%} of the weights of linear layers would stay as they are: they are those of "
        f"experts, for which there is no format in {settings.words}. {way}, or take it out."
    )
