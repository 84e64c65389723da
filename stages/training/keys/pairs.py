"""The keys of every method that learns from pairs of answers."""

from typing import ClassVar

from pydantic import Field, PositiveInt

from tunemill.stages.training.keys.padding import PaddedKeys

# What `pairs_body.compared` says of pairs, by TRL's names.
COMPARED = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)


class PairKeys(PaddedKeys):
    """What every method reads, and how long a pair may be.

    A method that shows more than `COMPARED` names it in `own_figures` too. `sequences_of_a_row`: how many the model
    learns from at a time for each row of a micro batch.
    """

    own_figures: ClassVar[tuple[str, ...]] = COMPARED
    sequences_of_a_row: ClassVar[int] = 2

    @property
    def flattens(self) -> bool:
        """Whether the sequences of a batch stand in one line, without padding."""
        return False

    sequence_len: PositiveInt = Field(
        512, description="most tokens of a prompt with either answer, BOS and EOS counted: more are cut off"
    )
