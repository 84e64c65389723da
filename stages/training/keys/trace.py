"""The keys of what is kept of a run beside its result: a trace of some steps, an early checkpoint; and long inputs."""

from collections.abc import Iterator

from pydantic import Field, NonNegativeInt, PositiveInt

from tunemill.stages.declaration import Idle, Runtime, StageConfig


class TraceKeys(StageConfig):
    """None of them changes a weight, but in the last bits where an MLP is cut into tiles."""

    profiler_steps: Runtime[PositiveInt | None] = Field(
        None, description="keep a trace of so many steps beside the log: times what runs, changes no weight"
    )
    profiler_steps_start: Runtime[NonNegativeInt] = Field(
        0, description="steps before the trace begins: times what runs, changes no weight"
    )
    save_first_step: Runtime[bool | None] = Field(
        None, description="a checkpoint after the first step: for resuming only"
    )
    tiled_mlp: bool = Field(
        False,
        description="compute each MLP some tokens at a time, and again in the backward pass: memory for one tile",
    )
    tiled_mlp_num_shards: PositiveInt | None = Field(
        None, description="tiles of a sequence; unset: tokens over width of the model, rounded up"
    )
    tiled_mlp_use_original_mlp: Runtime[bool | None] = Field(
        None, description="compute a tile by the model's own MLP: always"
    )

    def idle(self) -> Iterator[Idle]:
        """Settings of what is off, or what is so anyway."""
        yield from super().idle()
        if self.profiler_steps_start and self.profiler_steps is None:
            yield Idle("profiler_steps_start", "profiler_steps is unset, so no trace is kept")
        if self.tiled_mlp_num_shards is not None and not self.tiled_mlp:
            yield Idle("tiled_mlp_num_shards", "tiled_mlp is off")
        if self.tiled_mlp_use_original_mlp is not None:
            yield Idle("tiled_mlp_use_original_mlp", "tiles are always computed by the model's own MLP")
