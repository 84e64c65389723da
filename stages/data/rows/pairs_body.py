"""Pairs of answers as tokens: one by one out of a file, and as a batch.

B: pairs of a batch, L: tokens of the longest of their 2B sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunemill.stages.data.rows.answer_tokens import AnswerTokens, has_answer
from tunemill.stages.data.rows.collate_body import Batch, Collator, Row
from tunemill.stages.data.rows.log_p_columns import read_log_p

TEXTS_AT_ONCE = 1024
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Pair:
    """The prompt with either answer: token ids, and labels that are masked over the prompt.

    `reference`: log probabilities of the chosen and the rejected answer under a frozen model, where they are stored.
    """

    chosen: Row
    rejected: Row
    reference: tuple[float, float] | None = None


class PairReader:
    """Pairs of a prepared file by number, tokenized when they are read.

    `AnswerTokens` says where BOS and EOS go, and what is longer than `longest` tokens loses its end. `numbers` are
    those of the pairs in which something is left of both answers, and not the same; `left_out` is how many others
    there are. `reference` is the file of stored log probabilities of these pairs.
    """

    def __init__(self, rows: Path, tokenizer: Any, longest: int, reference: Path | None = None) -> None:
        self.file = rows
        self._table = pa.ipc.open_file(pa.memory_map(str(rows))).read_all()
        self._tokens = AnswerTokens(tokenizer, longest)
        pairs = [pair for first in range(0, len(self._table), TEXTS_AT_ONCE) for pair in self._sizes(first)]
        sizes = np.asarray(pairs, dtype=np.int64).reshape(len(pairs), 2)
        self.numbers = np.flatnonzero(sizes.min(axis=1, initial=np.iinfo(np.int64).max) > 0)
        self.rows = len(pairs)
        self.left_out = self.rows - len(self.numbers)
        self._log_p_n2 = None if reference is None else read_log_p(reference, SIDES, self.numbers)
        self.longest_row = int(sizes[self.numbers].max(initial=0))
        """Tokens of the longest sequence of a pair."""
        self.lengths = sizes.sum(axis=1)[self.numbers]
        """Tokens of each pair, of both sequences together."""

    def read(self, place: int) -> Pair:
        """The pair at a place among `numbers`."""
        (pair,) = self._pairs(int(self.numbers[place]), 1)
        if self._log_p_n2 is None:
            return pair
        chosen, rejected = self._log_p_n2[place].tolist()
        return replace(pair, reference=(chosen, rejected))

    def _sizes(self, first: int) -> list[tuple[int, int]]:
        """Tokens of either side of some pairs; 0 where nothing of the answer is left, or both are the same."""
        return [
            (0, 0) if _are_equal(pair) else (_size(pair.chosen), _size(pair.rejected))
            for pair in self._pairs(first, TEXTS_AT_ONCE)
        ]

    def _pairs(self, first: int, count: int) -> list[Pair]:
        rows = self._table.slice(first, count)
        prompts = rows["prompt"].to_pylist()
        sides = (self._tokens.rows(prompts, rows[side].to_pylist()) for side in SIDES)
        return [Pair(chosen, rejected) for chosen, rejected in zip(*sides, strict=True)]


def _are_equal(pair: Pair) -> bool:
    return np.array_equal(pair.chosen[0], pair.rejected[0])


def _size(row: Row) -> int:
    return len(row[0]) if has_answer(row) else 0


def collate_pairs(pairs: Sequence[Pair]) -> Batch:
    """[2B, L] ids, labels and attention mask: the chosen sequences, then the rejected ones.

    Where log probabilities of a frozen model are stored, they are `reference_2b`.
    """
    rows = [[pair.chosen] for pair in pairs] + [[pair.rejected] for pair in pairs]
    return _with_reference(Collator("padded", None)(rows), pairs)


def flatten_pairs(pairs: Sequence[Pair]) -> Batch:
    """[1, T] ids, labels and positions: the chosen sequences one behind the other, then the rejected ones.

    There is no padding: positions begin anew with each sequence.
    """
    line = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    return _with_reference(Collator("packed", None)([line]), pairs)


def _with_reference(batch: Batch, pairs: Sequence[Pair]) -> Batch:
    stored = [pair.reference for pair in pairs if pair.reference is not None]
    if stored:
        chosen, rejected = zip(*stored, strict=True)
        batch["reference_2b"] = torch.tensor([*chosen, *rejected])
    return batch
