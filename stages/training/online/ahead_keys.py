"""The keys of sampling ahead: completions of an older policy than the one that learns from them."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from tunemill.stages.declaration import Idle, Runtime, StageConfig, YamlMark


class AheadKeys(StageConfig):
    """How many rounds are sampled ahead, and how old what is learned from may be."""

    use_data_producer: Annotated[Runtime[bool], YamlMark("trl.use_data_producer")] = Field(
        False, description="asks for nothing: completions are made round by round in any case"
    )
    async_prefetch: Annotated[bool, YamlMark("trl.async_prefetch")] = Field(
        False,
        description="sample rounds before the steps of the rounds before them are taken; vLLM does it meanwhile",
    )
    prefetch_depth: Annotated[PositiveInt | None, YamlMark("trl.prefetch_depth")] = Field(
        None, description="how many rounds ahead; unset: 1"
    )
    max_staleness: Annotated[NonNegativeInt | None, YamlMark("trl.max_staleness")] = Field(
        None,
        description="most steps between the weights that completions are sampled of and those that begin to learn from "
        "them; 0: none, whatever else is asked for; unset: as many as prefetch_depth and vllm_sync_interval make",
    )

    streaming_partial_batch: Annotated[bool, YamlMark("trl.streaming_partial_batch")] = Field(
        False,
        description="ask rewards of some prompts at a time, while others are sampled; false: of a round at once",
    )
    streaming_min_groups: Annotated[PositiveInt | None, YamlMark("trl.streaming_min_groups")] = Field(
        None, description="of how many prompts at a time; unset: 1"
    )

    def depth(self, steps: int) -> int:
        """Rounds that are sampled ahead, of so many steps each."""
        if not self.async_prefetch:
            return 0
        asked = self.prefetch_depth or 1
        return asked if self.max_staleness is None else min(asked, self.max_staleness // steps)

    def idle(self) -> Iterator[Idle]:
        """What is the same in any case, and how far ahead where nothing is."""
        yield from super().idle()
        if self.is_set("use_data_producer"):
            yield Idle("use_data_producer", "completions are made round by round in any case")
        if self.is_set("prefetch_depth") and not self.async_prefetch:
            yield Idle("prefetch_depth", "trl.async_prefetch is off")
        if self.is_set("streaming_min_groups") and not self.streaming_partial_batch:
            yield Idle("streaming_min_groups", "trl.streaming_partial_batch is off")
