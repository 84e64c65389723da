"""The keys of every method that teaches a model to write: supervised training, and distillation."""

from collections.abc import Iterator

from tunemill.stages.declaration import Idle
from tunemill.stages.training.keys.bench import BenchKeys
from tunemill.stages.training.keys.rhythm import NOTHING_HELD_OUT
from tunemill.stages.training.keys.rows import RowKeys
from tunemill.stages.training.keys.samples import SampleKeys


class TextKeys(SampleKeys, BenchKeys, RowKeys):
    """Rows of tokens, and samples of what the model writes and answers."""

    def idle(self) -> Iterator[Idle]:
        """How to put held-out rows into sequences that there are none of."""
        yield from super().idle()
        if self.eval_sample_packing and not self.has_held_out_rows:
            yield Idle("eval_sample_packing", NOTHING_HELD_OUT)
