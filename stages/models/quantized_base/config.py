"""What the `quantized_base` stage reads from the YAML."""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Settings, StageConfig
from tunemill.stages.models.linearized import KEY as LINEARIZED

FloatType = Literal["float32", "bfloat16", "float16"]
QuantType = Literal["nf4", "fp4"]
# Keys that stand at the top of the YAML, and in bnb_config_kwargs, where Axolotl's examples have them.
TOP_KEYS = ("bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")


class BitsAndBytesSettings(Settings):
    """`bnb_config_kwargs`: arguments of transformers' BitsAndBytesConfig. What is unset is Axolotl's default."""

    bnb_4bit_compute_dtype: FloatType | None = Field(
        None, description="type in which 4-bit weights are multiplied; unset: the precision of the training"
    )
    bnb_4bit_quant_type: QuantType | None = Field(None, description="the sixteen values; unset: nf4")
    bnb_4bit_use_double_quant: bool | None = Field(
        None, description="store the scales of 4-bit blocks in 8 bits; unset: true"
    )
    bnb_4bit_quant_storage: Literal["uint8", "bfloat16", "float16", "float32"] | None = Field(
        None,
        description="type that packed 4-bit weights are stored as, whose numbers mean nothing; unset: bfloat16",
    )
    llm_int8_threshold: NonNegativeFloat | None = Field(
        None, description="inputs from this size on are multiplied in 16 bits beside 8-bit weights; unset: 6"
    )
    llm_int8_skip_modules: list[str] | None = Field(
        None, description="names of linear modules that stay as they are; unset: the output head"
    )
    llm_int8_has_fp16_weight: Literal[False] = Field(
        False, description="keep 16-bit weights beside the 8-bit ones, to train them: refused"
    )
    llm_int8_enable_fp32_cpu_offload: Literal[False] = Field(
        False, description="keep a part of the model in main memory: refused"
    )


class QuantizedBaseConfig(StageConfig):
    """How the frozen weights beside an adapter are stored."""

    load_in_4bit: bool = Field(False, description="store the frozen base in 4 bits, by bitsandbytes")
    load_in_8bit: bool = Field(False, description="store the frozen base in 8 bits, by bitsandbytes")
    quantize_moe_experts: bool = Field(
        False,
        description="the experts of a mixture in 4 or 8 bits too, which are no linear modules",
    )
    llama4_linearized_experts: bool = Field(
        False, description="the experts of a Llama 4 are linear modules, in 4 bits like any other"
    )
    bnb_4bit_compute_dtype: FloatType | None = Field(
        None, description="type in which 4-bit weights are multiplied; unset: the precision of the training"
    )
    bnb_4bit_quant_type: QuantType | None = Field(
        None, description="the sixteen values of 4-bit weights; unset: nf4"
    )
    bnb_4bit_use_double_quant: bool | None = Field(
        None, description="store the scales of 4-bit blocks in 8 bits; unset: true"
    )
    bnb_config_kwargs: BitsAndBytesSettings = Field(
        BitsAndBytesSettings(), description="arguments of transformers' BitsAndBytesConfig"
    )

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        for key in TOP_KEYS:
            top, inside = getattr(self, key), getattr(self.bnb_config_kwargs, key)
            if top is not None and inside is not None and top != inside:
                raise ConflictError(
                    f"{key} is {top}, and in bnb_config_kwargs it is {inside}. Keep one",
                    key,
                    "bnb_config_kwargs",
                )
        return self

    @model_validator(mode="after")
    def _of_these_bits(self) -> Self:
        """Where the same settings stand at the top they are noted; here a note would be of the whole key."""
        of_4_bits = (*TOP_KEYS, "bnb_4bit_quant_storage")
        misplaced = {"load_in_4bit": ("llm_int8_threshold",), "load_in_8bit": of_4_bits}
        for bits, keys in misplaced.items():
            for key in keys:
                if getattr(self, bits) and getattr(self.bnb_config_kwargs, key) is not None:
                    raise ConflictError(
                        f"bnb_config_kwargs: {key} asks for nothing with {bits}. Take it out",
                        "bnb_config_kwargs",
                        bits,
                    )
        return self

    @model_validator(mode="after")
    def _linear_experts_in_4_bits(self) -> Self:
        if self.load_in_8bit and self.llama4_linearized_experts:
            raise ConflictError(
                f"load_in_8bit: with {LINEARIZED} the experts of a Llama 4 are held in 4 bits only. Set load_in_4bit: "
                f"true, or train on the model in 16 bits",
                "load_in_8bit",
                LINEARIZED,
            )
        return self

    def asked(self, key: str) -> Any:
        """The value of a setting of bitsandbytes by either of its places; None where it is unset."""
        top = getattr(self, key) if key in TOP_KEYS else None
        return getattr(self.bnb_config_kwargs, key) if top is None else top

    def idle(self) -> Iterator[Idle]:
        """Settings of 4-bit weights beside 8-bit ones."""
        yield from super().idle()
        if self.load_in_8bit:
            for key in TOP_KEYS:
                if self.is_set(key):
                    yield Idle(key, "a setting of 4-bit weights, and load_in_8bit is set")
