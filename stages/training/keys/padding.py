"""The keys of padding that methods read which pad each micro batch to its longest sequence."""

from collections.abc import Iterator

from pydantic import Field

from tunemill.stages.declaration import Idle, Runtime
from tunemill.stages.training.keys.training import TrainingKeys


class PaddedKeys(TrainingKeys):
    """What every method reads, and padding that changes nothing but the time a step takes."""

    pad_to_sequence_len: Runtime[bool | None] = Field(
        None, description="asks for nothing: a micro batch is padded to its longest sequence"
    )

    def idle(self) -> Iterator[Idle]:
        """Padding that no answer would notice."""
        yield from super().idle()
        if self.pad_to_sequence_len:
            yield Idle(
                "pad_to_sequence_len",
                "a micro batch is padded to its longest sequence, and more would only cost time",
            )
