"""The keys of every method that learns from pairs of answers."""

from pydantic import Field, PositiveInt

from tunemill.stages.training.keys.training import TrainingKeys


class PairKeys(TrainingKeys):
    """What every method reads, and how long a pair may be."""

    sequence_len: PositiveInt = Field(
        512, description="most tokens of a prompt with either answer, BOS and EOS counted: more are cut off"
    )
