"""The shape of a micro batch, before there is one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunemill.stages.artifacts import TrainingData
from tunemill.stages.memory import Above
from tunemill.stages.training.keys.pairs import PairKeys
from tunemill.stages.training.keys.sequences import SequenceKeys
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.order_body import Sequences

# Where neither the method nor its data says how long sequences are.
LENGTH = 512


@dataclass(frozen=True)
class BatchShape:
    """`rows` of `length` tokens.

    `masked`: attention reads a mask [rows, 1, length, length]. `packed`: there are position ids. `padded`: there is a
    mask of padding [rows, length].
    """

    rows: int
    length: int
    masked: bool
    packed: bool
    padded: bool


def batch_shape(config: TrainingKeys, above: Mapping[str, Above]) -> tuple[BatchShape, list[str]]:
    """The largest micro batch, and what was assumed of it."""
    data = above.get("training_data", Above({}))
    limit = int(getattr(config, "sequence_len", None) or data.settings.get("sequence_len") or LENGTH)
    flash = config.attention_needs_gpu
    if not isinstance(config, SequenceKeys):
        count = config.sequences_of_a_row if isinstance(config, PairKeys) else 2
        each = "each pair is taken for two sequences" if count == 2 else "each row is taken for a sequence"
        note = f"{each} of sequence_len, {limit} tokens"
        return BatchShape(count * config.micro_batch_size, limit, not flash, False, True), [note]
    length, notes = limit, []
    if not config.pads_to_sequence_len:
        longest = _longest(data.folder)
        length = limit if longest is None else longest
        length += -length % (config.pad_to_multiple_of or 1)
        if longest is None:
            notes = [f"the data is not prepared yet: every sequence is taken to have {limit} tokens"]
    rows, real = config.micro_batch_size, config.multipack_real_batches
    flattens = config.batch_flattening is True or (config.batch_flattening == "auto" and flash)
    packed = config.sample_packing or flattens
    padded = not packed and (rows > 1 or config.pads_to_sequence_len)
    if flattens or (packed and (flash if real is None else not real)):
        rows, length = 1, rows * length
    return BatchShape(rows, length, not flash and (packed or padded), packed, padded), notes


def _longest(folder: str | None) -> int | None:
    """Tokens of the longest sequence of prepared data; None where there is none."""
    if folder is None:
        return None
    data = TrainingData(Path(folder))
    return int(Sequences(data.rows, data.packs, 0).lengths.max(initial=1))
