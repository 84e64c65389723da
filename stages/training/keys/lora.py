"""The keys of PEFT's variants of LoRA: what else gets factors, and what is trained beside them."""

from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Runtime
from tunemill.stages.training.keys.factors import FactorKeys


class LoraKeys(FactorKeys):
    """What LoRA can do beside two factors for each module."""

    peft_use_dora: bool = Field(
        False, description="train a magnitude for each output beside the direction (DoRA)"
    )
    lora_target_parameters: list[str] | None = Field(
        None,
        description="names of parameters that get an adapter and belong to no linear module, such as experts",
    )
    lora_rank_pattern: dict[str, PositiveInt] = Field(
        {}, description="other ranks, by the name of a module (its end, or a regular expression)"
    )
    lora_alpha_pattern: dict[str, PositiveInt] = Field(
        {}, description="other values of lora_alpha, by such names"
    )
    lora_exclude_modules: list[str] | str | None = Field(
        None, description="modules that get no adapter: names, or one regular expression"
    )
    peft_layers_pattern: list[str] | None = Field(
        None,
        description="what stands before the number of a layer in a module's name, for peft_layers_to_transform",
    )
    peft_layers_to_transform: list[NonNegativeInt] | None = Field(
        None, description="only these layers, from 0"
    )
    peft_layer_replication: list[tuple[NonNegativeInt, PositiveInt]] | None = Field(
        None,
        description="the layers of a deeper model, as ranges of the base's: [[0, 4], [2, 5]]; each with an adapter",
    )
    peft_trainable_token_indices: list[NonNegativeInt] | dict[str, list[NonNegativeInt]] | None = Field(
        None,
        description="ids of tokens whose embeddings are trained too; or these by the name of the embeddings",
    )
    peft_ensure_weight_tying: bool = Field(
        False, description="train head and embeddings as one where the base ties them"
    )
    peft_autocast_adapter_dtype: bool | None = Field(
        None, description="keep the adapter in float32 beside a 16-bit base; unset: true"
    )
    lora_on_cpu: Runtime[bool] = Field(
        False, description="adapters in main memory while they are made: that is where they are always made"
    )

    @field_validator("lora_target_parameters", mode="before")
    @classmethod
    def _one_parameter_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) and value else value

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        asked: dict[str, Any] = {key: getattr(self, key, None) for key in ("adapter", "lora_dropout")}
        if asked["adapter"] is None:
            return self
        if self.lora_target_parameters and asked["lora_dropout"]:
            raise ConflictError(
                "lora_target_parameters goes without lora_dropout: a product with a bare parameter has no input that "
                "could be dropped. Set lora_dropout: 0",
                "lora_target_parameters",
                "lora_dropout",
            )
        if self.lora_target_parameters and self.peft_use_dora:
            raise ConflictError(
                "peft_use_dora: PEFT has no magnitudes for lora_target_parameters. Remove one",
                "peft_use_dora",
                "lora_target_parameters",
            )
        if any(first >= end for first, end in self.peft_layer_replication or []):
            raise ConflictError(
                "peft_layer_replication: a range is [first, end], and the end is no part of it, so it must be greater",
                "peft_layer_replication",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """Where layers are numbered, where all are meant."""
        yield from super().idle()
        if self.peft_layers_pattern and self.peft_layers_to_transform is None:
            yield Idle("peft_layers_pattern", "peft_layers_to_transform is unset, so every layer is meant")
        if self.lora_on_cpu:
            yield Idle("lora_on_cpu", "an adapter is made in main memory, and then moved with the model")
