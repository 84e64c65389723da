"""The keys that spare memory while training: where activations wait, and when memory is given back."""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Runtime, StageConfig

# Values of gradient_checkpointing that say where activations wait, and what they mean.
OFFLOADS = {"offload": True, "offload_disk": "disk"}


class MemoryKeys(StageConfig):
    """What is kept where between the two halves of a pass."""

    gradient_checkpointing: bool = Field(
        False,
        description="compute activations twice instead of keeping them; offload, offload_disk: true, with "
        "activation_offloading: true or disk",
    )
    gradient_checkpointing_kwargs: dict[str, Any] | None = Field(
        None, description="arguments of torch.utils.checkpoint; unset: use_reentrant false"
    )
    activation_offloading: Runtime[bool | Literal["legacy", "disk", "hidden_states"]] = Field(
        False,
        description="what is kept for the backward pass waits in main memory, with disk in files: copied there and "
        "back bit by bit",
    )
    layer_offloading: Runtime[bool] = Field(
        False,
        description="frozen layers wait in main memory and are on the GPU while they compute: copied there bit by bit",
    )
    gc_steps: Runtime[int | None] = Field(
        None, description="older key of gc_collect_steps and torch_empty_cache_steps: moves no number"
    )
    gc_collect_steps: Runtime[int | None] = Field(
        None,
        description="steps between two runs of Python's garbage collector, -1: at each epoch's end: moves no number",
    )
    torch_empty_cache_steps: Runtime[PositiveInt | None] = Field(
        None, description="steps after which PyTorch gives unused memory back: moves no number"
    )
    auto_find_batch_size: bool = Field(
        False,
        description="where memory runs out, begin again with half of micro_batch_size and twice of "
        "gradient_accumulation_steps",
    )

    @model_validator(mode="before")
    @classmethod
    def _offload_says_two_things(cls, given: Any) -> Any:
        asked = given.get("gradient_checkpointing") if isinstance(given, dict) else None
        if not isinstance(asked, str) or asked not in OFFLOADS:
            return given
        return {"activation_offloading": OFFLOADS[asked], **given, "gradient_checkpointing": True}

    @field_validator("gc_steps", "gc_collect_steps", mode="after")
    @classmethod
    def _steps_or_epochs(cls, value: int | None) -> int | None:
        if value is not None and value != -1 and value < 1:
            raise ValueError("must be a number of steps above 0, or -1: at each epoch's end")
        return value

    @model_validator(mode="after")
    def _check_offloading(self) -> Self:
        if self.activation_offloading == "hidden_states" and not self.gradient_checkpointing:
            raise ConflictError(
                "activation_offloading: hidden_states moves what recomputation starts from; set "
                "gradient_checkpointing: true",
                "activation_offloading",
                "gradient_checkpointing",
            )
        return self

    @property
    def checkpoints_reentrantly(self) -> bool:
        """Whether only the output of a checkpointed layer passes a gradient on: torch's own default."""
        arguments = self.gradient_checkpointing_kwargs
        return bool(self.gradient_checkpointing and arguments and arguments.get("use_reentrant", True))

    @property
    def collects_garbage(self) -> int | None:
        """Steps between two runs of the garbage collector; -1: at each epoch's end; None: as Python likes."""
        return self.gc_collect_steps if self.gc_collect_steps is not None else self._older_steps

    @property
    def empties_cache(self) -> int | None:
        """Steps after which unused memory is given back."""
        older = self._older_steps
        return self.torch_empty_cache_steps or (older if older and older > 0 else None)

    @property
    def _older_steps(self) -> int | None:
        both = (self.gc_collect_steps, self.torch_empty_cache_steps)
        return self.gc_steps if both == (None, None) else None

    def depends_on_machine(self) -> Iterator[Idle]:
        """A size that is known when memory has run out."""
        yield from super().depends_on_machine()
        if self.auto_find_batch_size:
            reason = (
                "where memory runs out the same steps are added up in smaller micro batches, so the last bits of the "
                "result depend on the machine's memory; the report says which size was used"
            )
            yield Idle("auto_find_batch_size", reason)

    def needs_gpu(self) -> Iterator[Idle]:
        """What leaves a GPU's memory."""
        yield from super().needs_gpu()
        if self.activation_offloading and self.activation_offloading != "disk":
            reason = "moves activations from a GPU's memory to main memory, where they are without one"
            yield Idle("activation_offloading", reason)
        if self.layer_offloading:
            yield Idle("layer_offloading", "there is no device to offload from without a GPU")

    def idle(self) -> Iterator[Idle]:
        """How to recompute activations that are kept, and an older key beside the newer ones."""
        yield from super().idle()
        if self.gradient_checkpointing_kwargs and not self.gradient_checkpointing:
            yield Idle(
                "gradient_checkpointing_kwargs", "gradient_checkpointing is off, so nothing reads them"
            )
        if self.gc_steps is not None and self._older_steps is None:
            yield Idle("gc_steps", "gc_collect_steps and torch_empty_cache_steps go before it")
