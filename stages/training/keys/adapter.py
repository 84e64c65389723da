"""The keys of an adapter: which kind, where, how large."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunemill.stages.artifacts import Adapter
from tunemill.stages.declaration import ConflictError, Fault, GraphMark, Idle, ModelSource, Runtime
from tunemill.stages.models.adapter_folder import fault_of_adapter, stored_settings
from tunemill.stages.models.heads import Head, kind_of_adapter
from tunemill.stages.models.prompts import LLAMA_ADAPTER
from tunemill.stages.training.adapters.stored import DECIDED, OF_NEW_ONES, disagreement, names_another_base
from tunemill.stages.training.keys.lora import LoraKeys
from tunemill.stages.training.keys.prompts import PromptKeys

# Text that PEFT takes in place of names: every linear module but the output head.
ALL_LINEAR = "all-linear"


class AdapterKeys(LoraKeys, PromptKeys):
    """Train an adapter in place of every weight."""

    adapter: Literal["lora", "qlora", "llama-adapter"] | None = Field(
        None,
        description="train a low-rank adapter, with qlora on a base in 4 bits; llama-adapter: prompts in the "
        "attention of the upper layers; unset: every parameter",
    )
    load_in_4bit: bool = Field(False, description="the base beside the adapter is in 4 bits")
    load_in_8bit: bool = Field(False, description="the base beside the adapter is in 8 bits")
    quantize_moe_experts: bool = Field(
        False,
        description="hold the experts of a mixture in 4 or 8 bits too, where none of them gets an adapter",
    )
    llama4_linearized_experts: bool = Field(
        False,
        description="Llama 4's experts are linear modules beside an adapter, named as in Axolotl: experts.gate_projs.0",
    )
    lora_model_dir: ModelSource[str | None] = Field(
        None,
        description="local folder of a stored adapter that is trained further, in place of a new one; unset when "
        "another node gives it",
    )
    has_stored_adapter: Annotated[bool, GraphMark()] = Field(
        False, description="whether another node gives an adapter that is trained further"
    )
    base_on_hub: Annotated[Runtime[str | None], GraphMark()] = Field(
        None, description="owner/name of base_model: compared with what a stored adapter says of its base"
    )
    lora_r: PositiveInt | None = Field(None, description="rank of the adapter")
    lora_alpha: PositiveInt | None = Field(None, description="scale of the adapter: alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter")
    lora_target_modules: list[str] | str | None = Field(
        None,
        description="names of the modules that get an adapter; a text is one regular expression, or all-linear: every "
        "linear module but the output head, as where it is unset",
    )
    lora_target_linear: bool = Field(
        False, description="give every linear module but the output head an adapter"
    )
    lora_modules_to_save: list[str] | None = Field(
        None, description="modules trained whole and saved beside it"
    )
    tokens: list[str] = Field([], description="added tokens: with an adapter they need lora_modules_to_save")
    lora_fan_in_fan_out: bool = Field(False, description="weights are stored (in, out), as in GPT-2")
    peft_use_rslora: bool = Field(False, description="scale by alpha / sqrt(r)")

    @field_validator("lora_target_modules", mode="after")
    @classmethod
    def _names_or_one_expression(cls, value: list[str] | str | None) -> list[str] | str | None:
        if isinstance(value, str) and value.lower() == ALL_LINEAR:
            return ALL_LINEAR
        if isinstance(value, list) and ALL_LINEAR in value:
            raise ValueError(
                f"{ALL_LINEAR} is no name of a module; it stands alone, in place of a list of names"
            )
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(
                    f"a text is a regular expression, and this is no valid one: {error}. Correct it, or give a list "
                    "of module names"
                ) from None
        return value

    @property
    def head(self) -> Head | None:
        """What the method trains in place of the output head of a language model; None where it trains that one."""
        return None

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        key = "adapter" if self.adapter == LLAMA_ADAPTER else "peft_adapter"
        if self.head is not None and (key == "adapter" or self.peft_adapter is not None):
            raise ConflictError(
                f"{key}: prompts of llama-adapter are those of language models, and {self.head} is trained. Use "
                f"adapter: lora",
                key,
            )
        return self

    @property
    def has_factors(self) -> bool:
        """Whether a low-rank adapter is trained, in place of prompts or of every weight."""
        return self.adapter in ("lora", "qlora")

    @property
    def trained_otherwise(self) -> str:
        """What is trained where low-rank factors are not, as a part of a sentence."""
        return (
            "adapter is unset: every parameter is trained"
            if self.adapter is None
            else f"adapter is {self.adapter}: prompts are trained"
        )

    @model_validator(mode="after")
    def _check_adapter(self) -> Self:
        self._check_base()
        if self.adapter == LLAMA_ADAPTER:
            self._check_prompts()
        if not self.has_factors:
            return self
        if self.goes_on:
            return self
        missing = [key for key in ("lora_r", "lora_alpha") if getattr(self, key) is None]
        if missing:
            raise ConflictError(f"adapter: {self.adapter} needs {' and '.join(missing)}", "adapter", *missing)
        if self.tokens and not self.lora_modules_to_save and not self.peft_trainable_token_indices:
            raise ConflictError(
                "tokens adds rows to the embeddings, which an adapter does not train. Set lora_modules_to_save to "
                "the names of embeddings and output head, for most models [embed_tokens, lm_head]; or "
                "peft_trainable_token_indices to the ids of the tokens",
                "tokens",
                "lora_modules_to_save",
                "peft_trainable_token_indices",
                "adapter",
            )
        given = self.lora_target_modules
        if isinstance(given, str) and given != ALL_LINEAR and self.lora_target_linear:
            raise ConflictError(
                "lora_target_modules as a regular expression and lora_target_linear: true exclude each other",
                "lora_target_modules",
                "lora_target_linear",
            )
        if isinstance(given, str) and given != ALL_LINEAR and self.peft_layers_to_transform is not None:
            raise ConflictError(
                "lora_target_modules as a regular expression says which layers it means itself; remove "
                "peft_layers_to_transform, or give a list of names",
                "lora_target_modules",
                "peft_layers_to_transform",
            )
        return self

    def _check_prompts(self) -> None:
        given = self.prompts
        if given.layers is None or given.len is None:
            raise ConflictError(
                "adapter: llama-adapter needs peft_adapter with layers, how many get prompts, and len, how many each "
                "gets: {layers: 30, len: 10} is what a Llama of 32 layers had first",
                "adapter",
                "peft_adapter",
            )
        for key in ("load_in_4bit", "load_in_8bit"):
            if getattr(self, key):
                raise ConflictError(
                    f"{key}: PEFT puts the prompts of llama-adapter through the weights of attention as plain numbers, "
                    f"and those of such a base are none. Remove it, or use adapter: lora",
                    key,
                    "adapter",
                )
        for key in ("lora_model_dir", "peft", "peft_init_lora_weights"):
            if self.is_set(key) or (key == "lora_model_dir" and self.has_stored_adapter):
                raise ConflictError(
                    f"{key} is about low-rank factors, and adapter: llama-adapter has none. Take it out, or use "
                    f"adapter: lora",
                    key,
                    "adapter",
                )

    @model_validator(mode="after")
    def _prompts_train_no_embedding(self) -> Self:
        if self.adapter == LLAMA_ADAPTER and self.tokens:
            raise ConflictError(
                "tokens adds rows to the embeddings, which llama-adapter never trains. Take it out, or use adapter: "
                "lora with lora_modules_to_save",
                "tokens",
                "adapter",
            )
        return self

    def _check_base(self) -> None:
        chosen = {"load_in_4bit": self.load_in_4bit, "load_in_8bit": self.load_in_8bit}
        bits = [key for key, value in chosen.items() if value]
        if len(bits) > 1:
            raise ConflictError("load_in_4bit and load_in_8bit: choose one", *bits)
        if bits and self.adapter is None:
            raise ConflictError(
                f"{bits[0]}: true: quantized weights cannot be trained, and without adapter every weight is. Set "
                f"adapter: {'qlora' if self.load_in_4bit else 'lora'}, or remove {bits[0]}",
                *bits,
                "adapter",
            )
        if self.quantize_moe_experts and not bits:
            raise ConflictError(
                "quantize_moe_experts: true holds the experts of a mixture in the bits of its linear modules. Set "
                "load_in_4bit: true or load_in_8bit: true, or take it out",
                "quantize_moe_experts",
                "load_in_4bit",
                "load_in_8bit",
            )
        if self.adapter == "qlora" and not self.load_in_4bit:
            instead = (
                "Set load_in_4bit: true" if not bits else "Use adapter: lora, or load_in_4bit: true instead"
            )
            raise ConflictError(
                f"adapter: qlora is a low-rank adapter on a base in 4 bits. {instead}", "adapter", "load_in_4bit",
                "load_in_8bit",
            )  # fmt: skip

    @property
    def goes_on(self) -> bool:
        """Whether a stored adapter is trained further, in place of a new one."""
        return self.lora_model_dir is not None or self.has_stored_adapter

    def going_on_from(self, adapter: Adapter | None) -> Self:
        """The same with the adapter that another node gives, if one does."""
        return self if adapter is None else self.model_copy(update={"lora_model_dir": str(adapter.path)})

    def doubts(self) -> Iterator[str]:
        """What a stored adapter says of its base, where that is another one."""
        if self.lora_model_dir is not None and (
            said := names_another_base(Path(self.lora_model_dir), self.base_on_hub)
        ):
            yield said

    def faults(self) -> Iterator[Fault]:
        """A stored adapter that is none, or another one than the keys beside it describe."""
        yield from super().faults()
        if self.adapter is None or not self.goes_on:
            return
        if self.lora_model_dir is None:
            # What the adapter decides is known when it is there.
            yield from (
                Fault(key, disagreement(key, None, {}) or "") for key in OF_NEW_ONES if self.is_set(key)
            )
            return
        folder = Path(self.lora_model_dir)
        if not folder.exists():
            return
        if reason := fault_of_adapter(folder):
            yield Fault("lora_model_dir", reason)
            return
        if reason := self._fault_of_head(stored_settings(folder) or {}):
            yield Fault("lora_model_dir", f"{folder}: {reason}")
            return
        for key in (*DECIDED, *OF_NEW_ONES):
            if self.is_set(key) and (
                reason := disagreement(key, getattr(self, key), stored_settings(folder) or {})
            ):
                yield Fault(key, reason)

    def _fault_of_head(self, stored: Mapping[str, Any]) -> str | None:
        """Why the head that a stored adapter was trained with is not the one to train on."""
        kind, wanted = kind_of_adapter(stored), None if self.head is None else self.head.kind
        if kind == wanted:
            return None
        whose = "a language model" if kind is None else f"a model that scores each {kind}"
        return (
            f"an adapter of {whose}, and {self.head or 'a language model'} is trained. Name another, or merge it into "
            f"its base and start from that"
        )

    @property
    def takes_every_linear(self) -> bool:
        """Whether every linear module but the output head gets an adapter."""
        unset = not self.lora_target_modules and not self.lora_target_parameters
        return self.lora_target_linear or unset or self.lora_target_modules == ALL_LINEAR

    def idle(self) -> Iterator[Idle]:
        """Settings of an adapter that is not trained."""
        yield from super().idle()
        if self.adapter is None:
            for key in AdapterKeys.model_fields:
                if key.startswith(("lora_", "peft")) and self.is_set(key):
                    yield Idle(
                        key, "a setting of an adapter, and adapter is unset: every parameter is trained"
                    )
        elif not self.has_factors:
            for key in AdapterKeys.model_fields:
                if key.startswith(("lora_", "peft_")) and key != "peft_adapter" and self.is_set(key):
                    yield Idle(key, "a setting of low-rank factors, and adapter: llama-adapter has none")
        elif self.is_set("peft_adapter"):
            yield Idle("peft_adapter", f"prompts of adapter: llama-adapter, and adapter is {self.adapter}")
