"""The keys of attention: which implementation computes it, under all of the names that Axolotl has had for it."""

import re
from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from tunemill.stages.choices import ChoiceError
from tunemill.stages.declaration import ConflictError, Idle, Runtime, StageConfig

NAMES = (
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
    "xformers",
)
GPU_ATTENTION = ("flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
# `owner/name@revision:function`: a kernel of the Hub, which the package `kernels` loads.
HUB_KERNEL = re.compile(r"[^/:@\s]+/[^/:@\s]+(@[^/:@\s]+)?(:[^/:@\s]+)?")
# PyTorch's memory-efficient attention is that of xFormers.
MEANT = {"xformers": "sdpa"}
SHORT = {"flash": "flash_attention_2", "flex": "flex_attention", "sdp": "sdpa"}
PATCHED_IN = (
    "is no attention of transformers: Axolotl patches it into the model's classes, which Tunemill does not. Use "
    "sdpa, or flash_attention_2 on a GPU"
)


class AttentionKeys(StageConfig):
    """How attention is computed. What each name stands for is the same up to rounding."""

    attn_implementation: str | None = Field(
        None,
        description="attention: eager, sdpa, flash_attention_2, _3 or _4, flex_attention, xformers (sdpa: PyTorch has "
        "its kernel), or a kernel of the Hub as owner/name@revision; unset: what the model prefers",
    )
    sdp_attention: bool | None = Field(None, description="older name of attn_implementation: sdpa")
    flash_attention: bool | None = Field(
        None, description="older name of attn_implementation: flash_attention_2"
    )
    eager_attention: bool | None = Field(None, description="older name of attn_implementation: eager")
    flex_attention: bool | None = Field(None, description="older name of attn_implementation: flex_attention")
    xformers_attention: bool | None = Field(None, description="older name of attn_implementation: xformers")
    sage_attention: bool | None = Field(None, description="refused: it is no attention of transformers")
    gemma4_hybrid_attn_impl: bool = Field(
        False, description="for heads of Gemma 4 that are too wide for flash attention: sdpa in every layer"
    )
    flex_attn_compile_kwargs: Runtime[dict[str, Any] | None] = Field(
        None, description="arguments of flex attention's compiler: they change its time"
    )

    @field_validator("attn_implementation", mode="after")
    @classmethod
    def _known_attention(cls, value: str | None) -> str | None:
        if value is None or value in NAMES or HUB_KERNEL.fullmatch(value):
            return value
        if value in ("sage", "fp8"):
            raise ValueError(f"{value} {PATCHED_IN}")
        if value in SHORT:
            raise ValueError(f"write {SHORT[value]}")
        raise ChoiceError(value, NAMES)

    @property
    def older_attentions(self) -> dict[str, str]:
        """The older keys that are set, and the attention that each asks for."""
        chosen = {
            "sdp_attention": ("sdpa", self.sdp_attention),
            "flash_attention": ("flash_attention_2", self.flash_attention),
            "eager_attention": ("eager", self.eager_attention),
            "flex_attention": ("flex_attention", self.flex_attention),
            "xformers_attention": ("xformers", self.xformers_attention),
        }
        return {key: name for key, (name, is_chosen) in chosen.items() if is_chosen}

    @property
    def attention(self) -> str | None:
        """The attention that the config asks for under any of its names; None leaves it to the model."""
        if self.gemma4_hybrid_attn_impl:
            return "sdpa"
        asked = self.attn_implementation or next(iter(self.older_attentions.values()), None)
        return asked and MEANT.get(asked, asked)

    @property
    def attention_needs_gpu(self) -> bool:
        """Whether it computes gradients on a GPU only."""
        return self.attention is not None and (self.attention in GPU_ATTENTION or "/" in self.attention)

    @property
    def attention_key(self) -> str:
        """The key that says which attention."""
        return next(iter(self.older_attentions), "attn_implementation")

    @model_validator(mode="after")
    def _check_attention(self) -> Self:
        if self.sage_attention:
            raise ConflictError(f"sage_attention: true: sage {PATCHED_IN}", "sage_attention")
        chosen = [*self.older_attentions]
        if self.attn_implementation is not None:
            chosen.append("attn_implementation")
        if len(chosen) > 1:
            raise ConflictError(f"{' and '.join(chosen)}: choose one attention", *chosen)
        asked = self.attn_implementation or next(iter(self.older_attentions.values()), None)
        if self.gemma4_hybrid_attn_impl and asked not in (None, "sdpa", "flash_attention_2"):
            raise ConflictError(
                f"gemma4_hybrid_attn_impl: true computes attention by sdpa, and {chosen[0]} asks for {asked}. Keep one",
                "gemma4_hybrid_attn_impl",
                *chosen,
            )
        return self

    def used_libraries(self) -> tuple[str, ...]:
        """The package that loads kernels of the Hub."""
        return (*super().used_libraries(), *(("kernels",) if "/" in (self.attention or "") else ()))

    def needs_gpu(self) -> Iterator[Idle]:
        """Attentions of a GPU."""
        yield from super().needs_gpu()
        if self.attention_needs_gpu:
            key = self.attention_key
            given = self.attn_implementation if key == "attn_implementation" else "true"
            yield Idle(key, f"{given}: needs a GPU to train; without one use attn_implementation: sdpa")

    def idle(self) -> Iterator[Idle]:
        """How a compiler is called that calls itself."""
        yield from super().idle()
        if self.flex_attn_compile_kwargs:
            reason = "transformers compiles flex attention by itself, with PyTorch's defaults: the result is the same"
            yield Idle("flex_attn_compile_kwargs", reason)
