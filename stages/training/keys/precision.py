"""The keys that say in which precision the model is computed."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError, GpuMark, Idle, StageConfig


class PrecisionKeys(StageConfig):
    """Types of weights and of products."""

    bf16: Annotated[
        Literal["auto", "full"] | bool, GpuMark("auto", "float32 on this machine, which has no GPU")
    ] = Field(
        "auto", description="bfloat16 weights under autocast; full: no autocast; auto: where the GPU has it"
    )
    fp16: bool = Field(False, description="float16 under autocast; needs a GPU")
    tf32: bool | None = Field(None, description="TF32 matrix products; needs a GPU")
    float32: bool = Field(False, description="plain float32")
    float16: bool = Field(False, description="float16 weights without autocast, below an adapter in float32")
    bfloat16: bool = Field(False, description="as bf16: full, unless bf16 says another precision")
    fp8: bool = Field(
        False,
        description="matrix products of linear modules in float8, all but the first and the last; needs a GPU",
    )

    @property
    def is_pure_bfloat16(self) -> bool:
        """Whether weights are bfloat16 and there is no autocast."""
        return self.bf16 == "full" or (self.bfloat16 and self.bf16 in ("auto", False))

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        chosen = [key for key in ("fp16", "float16", "float32") if getattr(self, key)]
        if self.bf16 in (True, "full"):
            chosen.insert(0, "bf16")
        elif self.bfloat16:
            chosen.insert(0, "bfloat16")
        if self.fp8:
            chosen = ["fp8", *(key for key in chosen if key != "bf16")]
        if len(chosen) > 1:
            raise ConflictError(f"{' and '.join(chosen)}: choose one precision", *chosen)
        return self

    def needs_gpu(self) -> Iterator[Idle]:
        """Precisions of a GPU."""
        yield from super().needs_gpu()
        if self.fp16:
            yield Idle("fp16", "true needs a GPU; without one use bf16: true or float32: true")
        if self.tf32:
            yield Idle("tf32", "true needs an NVIDIA GPU from Ampere on; without one remove it")
        if self.fp8:
            yield Idle("fp8", "true needs an NVIDIA GPU from Ada or Hopper on; without one use bf16: true")

    def used_libraries(self) -> tuple[str, ...]:
        """What computes in float8."""
        return (*super().used_libraries(), *(("torchao",) if self.fp8 else ()))

    def idle(self) -> Iterator[Idle]:
        """A precision that another key says."""
        yield from super().idle()
        if self.bfloat16 and self.bf16 in (True, "full"):
            yield Idle("bfloat16", f"bf16: {'true' if self.bf16 is True else 'full'} says the precision")
