"""Pairs of answers and judged answers as texts to compare: of each row the prompt, then its answers, each by itself."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from tunemill.stages.data.leakage.words import Block, split
from tunemill.stages.data.rows.columns import numbers_of

# The answers of a row, by the columns that hold them: texts beside a prompt, or tokens of whole conversations.
TEXTS, TOKENS = ("chosen", "rejected", "completion"), ("chosen_ids", "rejected_ids")
PROMPT = "prompt"


@dataclass(frozen=True)
class Units:
    """Rows of preference data as blocks of texts, `per_row` of each row: its prompt first, then its answers."""

    path: Path
    answers: tuple[str, ...]
    rows: int

    @property
    def per_row(self) -> int:
        return 1 + len(self.answers)

    def blocks(self, tokenizer: Tokenizer) -> Iterator[Block]:
        """The texts of all rows in their order. What special tokens part stays apart."""
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        border = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        with pa.memory_map(str(self.path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for index in range(reader.num_record_batches):
                texts = self._texts(reader.get_batch(index), tokenizer)
                rows = [[split(part) for part in border.split(text)] for text in texts]
                yield Block(rows, [blake2b(text.encode(), digest_size=16).digest() for text in texts])

    def _texts(self, batch: pa.RecordBatch, tokenizer: Tokenizer) -> Sequence[str]:
        if self.answers != TOKENS:
            columns = [batch.column(name).to_pylist() for name in (PROMPT, *self.answers)]
            return [text for row in zip(*columns, strict=True) for text in row]
        columns = [batch.column(name) for name in self.answers]
        parts = [
            part.tolist()
            for row in range(batch.num_rows)
            for part in _parted(*(numbers_of(column[row].values) for column in columns))
        ]
        found: list[str] = tokenizer.decode_batch(parts, skip_special_tokens=False)
        return found


def units_of(path: Path) -> Units:
    """The rows of a file of preference data."""
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        names = reader.schema.names
        rows = sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
    return Units(path, tuple(name for name in (*TEXTS, *TOKENS) if name in names), rows)


def _parted(
    chosen: npt.NDArray[np.int32], rejected: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], ...]:
    """What both conversations begin with, which is the prompt or little more, and the rest of each."""
    shorter = min(len(chosen), len(rejected))
    differs = np.flatnonzero(chosen[:shorter] != rejected[:shorter])
    same = int(differs[0]) if len(differs) else shorter
    return chosen[:same], chosen[same:], rejected[same:]
