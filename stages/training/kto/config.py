"""What the `kto` stage reads from the YAML."""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field, PositiveFloat

from tunemill.stages.training.keys.reference import HeldKeys


class KtoConfig(HeldKeys):
    """Kahneman-Tversky optimization, full or LoRA: answers that are judged good or bad by themselves."""

    own_figures: ClassVar[tuple[str, ...]] = (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "logps/chosen",
        "logps/rejected",
        "kl",
    )
    sequences_of_a_row: ClassVar[int] = 1

    kto_desirable_weight: PositiveFloat = Field(1.0, description="weight of desirable answers in the loss")
    kto_undesirable_weight: PositiveFloat = Field(
        1.0, description="weight of undesirable answers in the loss"
    )

    def doubts(self) -> Iterator[str]:
        """A step that has one row."""
        yield from super().doubts()
        if self.micro_batch_size * self.gradient_accumulation_steps == 1:
            yield (
                "warning: a step has one row, and what answers are compared with (kl) is a mean over a step: raise "
                "micro_batch_size or gradient_accumulation_steps"
            )
