"""The keys that say how the model is computed: precision, attention, recomputation, compilation."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError, GpuMark, Idle, StageConfig, not_yet

GPU_ATTENTION = ("flash_attention_2", "flash_attention_3", "flex_attention")
AttentionName = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
# Axolotl's older keys for attentions.
LEGACY_ATTENTION: dict[str, AttentionName] = {
    "sdp_attention": "sdpa",
    "flash_attention": "flash_attention_2",
    "eager_attention": "eager",
    "flex_attention": "flex_attention",
}


class MachineKeys(StageConfig):
    """How numbers are computed."""

    bf16: Annotated[
        Literal["auto", "full"] | bool, GpuMark("auto", "float32 on this machine, which has no GPU")
    ] = Field(
        "auto", description="bfloat16 weights under autocast; full: no autocast; auto: where the GPU has it"
    )
    fp16: bool = Field(False, description="float16 under autocast; needs a GPU")
    tf32: bool | None = Field(None, description="TF32 matrix products; needs a GPU")
    float32: bool = Field(False, description="plain float32")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them"
    )
    gradient_checkpointing_kwargs: dict[str, Any] | None = Field(
        None, description="arguments of torch.utils.checkpoint; unset: use_reentrant false"
    )
    attn_implementation: AttentionName | None = Field(
        None, description="attention; unset: what the model prefers"
    )
    sdp_attention: bool | None = Field(None, description="older name of attn_implementation: sdpa")
    flash_attention: bool | None = Field(
        None, description="older name of attn_implementation: flash_attention_2"
    )
    eager_attention: bool | None = Field(None, description="older name of attn_implementation: eager")
    flex_attention: bool | None = Field(None, description="older name of attn_implementation: flex_attention")
    torch_compile: bool | Literal["auto"] = Field(False, description="compile the model; auto is true")

    _checkpointing_to_come = not_yet("gradient_checkpointing", "offload", "offload_disk")

    @property
    def attention(self) -> AttentionName | None:
        """The attention that the config asks for under any of its names; None leaves it to the model."""
        older = {
            "sdp_attention": self.sdp_attention,
            "flash_attention": self.flash_attention,
            "eager_attention": self.eager_attention,
            "flex_attention": self.flex_attention,
        }
        chosen = (LEGACY_ATTENTION[key] for key, is_chosen in older.items() if is_chosen)
        return self.attn_implementation or next(chosen, None)

    @property
    def checkpoints_reentrantly(self) -> bool:
        """Whether only the output of a checkpointed layer passes a gradient on: torch's own default."""
        arguments = self.gradient_checkpointing_kwargs
        return bool(self.gradient_checkpointing and arguments and arguments.get("use_reentrant", True))

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        chosen = [key for key in ("fp16", "float32") if getattr(self, key)]
        if self.bf16 in (True, "full"):
            chosen.insert(0, "bf16")
        if len(chosen) > 1:
            raise ConflictError(f"{' and '.join(chosen)}: choose one precision", *chosen)
        return self

    @model_validator(mode="after")
    def _check_attention(self) -> Self:
        chosen = [key for key in LEGACY_ATTENTION if getattr(self, key)]
        if self.attn_implementation is not None:
            chosen.append("attn_implementation")
        if len(chosen) > 1:
            raise ConflictError(f"{' and '.join(chosen)}: choose one attention", *chosen)
        return self

    def needs_gpu(self) -> Iterator[Idle]:
        """Precisions and attentions of a GPU."""
        yield from super().needs_gpu()
        if self.fp16:
            yield Idle("fp16", "true needs a GPU; without one use bf16: true or float32: true")
        if self.tf32:
            yield Idle("tf32", "true needs an NVIDIA GPU from Ampere on; without one remove it")
        if self.attention in GPU_ATTENTION:
            key = next((key for key in LEGACY_ATTENTION if getattr(self, key)), "attn_implementation")
            reason = f"{getattr(self, key)}: needs a GPU to train; without one use attn_implementation: sdpa"
            yield Idle(key, reason.replace("True", "true"))

    def idle(self) -> Iterator[Idle]:
        """How to recompute activations that are kept."""
        yield from super().idle()
        if self.gradient_checkpointing_kwargs and not self.gradient_checkpointing:
            yield Idle(
                "gradient_checkpointing_kwargs", "gradient_checkpointing is off, so nothing reads them"
            )
