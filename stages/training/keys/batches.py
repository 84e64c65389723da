"""The keys that say how many examples a step takes, how many steps there are, and in which order."""

from collections.abc import Iterator

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tunemill.stages.declaration import Idle, Runtime, StageConfig


class BatchKeys(StageConfig):
    """Examples of a step, and how often the data is read."""

    micro_batch_size: PositiveInt = Field(1, description="sequences per forward pass")
    gradient_accumulation_steps: PositiveInt = Field(1, description="forward passes per optimizer step")
    num_epochs: PositiveFloat = Field(1.0, description="passes over the data")
    max_steps: PositiveInt | None = Field(None, description="optimizer steps; goes before num_epochs")
    curriculum_sampling: bool = Field(False, description="read every epoch in the order of the data")
    seed: NonNegativeInt = Field(42, description="adapter weights, dropout, order from the second epoch on")
    dataloader_num_workers: Runtime[NonNegativeInt] = Field(
        0, description="processes that collate batches: the order and the batches stay the same"
    )
    dataloader_pin_memory: Runtime[bool] = Field(
        True, description="page-locked batches: a faster copy of the same numbers"
    )
    dataloader_prefetch_factor: Runtime[PositiveInt | None] = Field(
        None, description="batches each worker prepares ahead: the order stays the same"
    )

    def idle(self) -> Iterator[Idle]:
        """What worker processes would fetch, where there are none."""
        yield from super().idle()
        if self.dataloader_prefetch_factor is not None and not self.dataloader_num_workers:
            yield Idle("dataloader_prefetch_factor", "dataloader_num_workers is 0, so nobody fetches ahead")

    @property
    def prefetch_factor(self) -> int | None:
        """Batches that each worker prepares ahead; None where there are no workers."""
        return self.dataloader_prefetch_factor if self.dataloader_num_workers else None
