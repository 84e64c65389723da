"""The keys of what is learned from again, and of what is asked again."""

from collections.abc import Iterator
from math import ceil
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from tunemill.stages.declaration import Idle, StageConfig, YamlMark
from tunemill.stages.training.schedule import share_of


class ReuseKeys(StageConfig):
    """How many groups are held to learn from them again, and which prompts are asked again."""

    replay_buffer_size: Annotated[NonNegativeInt, YamlMark("trl.replay_buffer_size")] = Field(
        0,
        description="most groups that are held, to learn from them once more where all completions of a prompt are as "
        "good; 0: none",
    )
    replay_recompute_logps: Annotated[bool, YamlMark("trl.replay_recompute_logps")] = Field(
        True,
        description="a group that is learned from again counts as the policy is now, weighted by how likely it still "
        "is; false: as it was when it was sampled",
    )
    reroll_start_fraction: Annotated[float, YamlMark("trl.reroll_start_fraction")] = Field(
        1.0,
        ge=0,
        le=1,
        description="from this share of the training on, ask prompts again of whose completions none has a reward "
        "above 0; 1: never",
    )
    reroll_max_groups: Annotated[PositiveInt, YamlMark("trl.reroll_max_groups")] = Field(
        1, description="most prompts of a round that are asked again, in place of others"
    )

    @property
    def rerolls(self) -> bool:
        """Whether any prompt is asked again."""
        return self.reroll_start_fraction < 1

    def first_reroll(self, rounds: int) -> int:
        """The round from which on prompts are asked again, of a training with so many rounds."""
        return ceil(share_of(rounds, self.reroll_start_fraction))

    def idle(self) -> Iterator[Idle]:
        """How to learn from a group again where none is held, how many prompts to ask again where none is asked."""
        yield from super().idle()
        if self.is_set("replay_recompute_logps") and not self.replay_buffer_size:
            yield Idle("replay_recompute_logps", "trl.replay_buffer_size is 0")
        if self.is_set("reroll_max_groups") and not self.rerolls:
            yield Idle("reroll_max_groups", "trl.reroll_start_fraction is 1")
