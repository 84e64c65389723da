"""Answers that are judged good or bad by themselves, as tokens: one by one out of a file, and as a batch.

B: answers of a batch, L: tokens of the longest of their B sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from tunemill.stages.data.rows.answer_tokens import AnswerTokens, has_answer
from tunemill.stages.data.rows.collate_body import Batch, Collator, Row
from tunemill.stages.data.rows.log_p_columns import Int64s, read_log_p

TEXTS_AT_ONCE = 1024
# The stored log probabilities of a row: of its own answer, and of that of the row before it.
ANSWERS = ("completion", "kl")
# How the tensors of the other answers are called in a batch.
OTHERS = "kl_"


@dataclass(frozen=True)
class Rated:
    """The prompt with its answer, and with the answer of another row: token ids, and labels masked over the prompt.

    `reference`: log probabilities of both answers under a frozen model, where they are stored.
    """

    own: Row
    other: Row
    is_desirable: bool
    reference: tuple[float, float] | None = None


class RatedReader:
    """Judged answers of a prepared file by number, tokenized when they are read.

    `AnswerTokens` says where BOS and EOS go, and what is longer than `longest` tokens loses its end. `numbers` are
    those of the rows in which something is left of the answer; `left_out` is how many others there are. Each row's
    other answer is that of the row before it among these, and the first one's that of the last. `reference` is the file
    of stored log probabilities of these rows.
    """

    def __init__(self, rows: Path, tokenizer: Any, longest: int, reference: Path | None = None) -> None:
        self.file = rows
        self._table = pa.ipc.open_file(pa.memory_map(str(rows))).read_all()
        self._tokens = AnswerTokens(tokenizer, longest)
        self.rows = len(self._table)
        everything = np.arange(self.rows)
        own_n, are_answered_n = self._measured(everything, everything)
        self.numbers = np.flatnonzero(are_answered_n)
        self.left_out = self.rows - len(self.numbers)
        self._others = np.roll(self.numbers, 1)
        other_n, _ = self._measured(self.numbers, self._others)
        own_n = own_n[self.numbers]
        self.longest_row = int(max(own_n.max(initial=0), other_n.max(initial=0)))
        """Tokens of the longest sequence."""
        self.lengths = own_n + other_n
        """Tokens of each row, of both sequences together."""
        self.are_desirable = self._table["label"].to_numpy().astype(np.bool_)[self.numbers]
        self._log_p_n2 = None if reference is None else read_log_p(reference, ANSWERS, self.numbers)

    def read(self, place: int) -> Rated:
        """The row at a place among `numbers`."""
        number, other = int(self.numbers[place]), int(self._others[place])
        own, mismatched = self._rows(np.asarray([number, number]), np.asarray([number, other]))
        rated = Rated(own, mismatched, bool(self.are_desirable[place]))
        if self._log_p_n2 is None:
            return rated
        of_own, of_other = self._log_p_n2[place].tolist()
        return replace(rated, reference=(of_own, of_other))

    def _measured(self, prompts: Int64s, answers: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
        """Of N sequences their tokens, and whether something of the answer is left."""
        lengths, are_answered = np.zeros(len(prompts), np.int64), np.zeros(len(prompts), np.bool_)
        for first in range(0, len(prompts), TEXTS_AT_ONCE):
            part = slice(first, first + TEXTS_AT_ONCE)
            rows = self._rows(prompts[part], answers[part])
            lengths[part] = [len(ids) for ids, _ in rows]
            are_answered[part] = [has_answer(row) for row in rows]
        return lengths, are_answered

    def _rows(self, prompts: Int64s, answers: Int64s) -> list[Row]:
        """The prompts of some rows with the answers of as many."""
        return self._tokens.rows(
            self._table["prompt"].take(prompts).to_pylist(),
            self._table["completion"].take(answers).to_pylist(),
        )


def collate_rated(rows: Sequence[Rated]) -> Batch:
    """[B, L] ids, labels and attention mask of the rows; `kl_...`, those with the other answers; `is_desirable`, [B].

    Where log probabilities of a frozen model are stored, they are `reference_b` and `kl_reference_b`.
    """
    own, other = passes_of(rows)
    batch = own | {f"{OTHERS}{name}": tensor_bl for name, tensor_bl in other.items()}
    batch["is_desirable"] = torch.tensor([row.is_desirable for row in rows])
    stored = [row.reference for row in rows if row.reference is not None]
    if stored:
        of_own, of_other = zip(*stored, strict=True)
        batch |= {"reference_b": torch.tensor(of_own), f"{OTHERS}reference_b": torch.tensor(of_other)}
    return batch


def others_of(batch: Batch) -> Batch:
    """The part of a batch that has the other answers, by its usual names."""
    return {name.removeprefix(OTHERS): value for name, value in batch.items() if name.startswith(OTHERS)}


def passes_of(rows: Sequence[Rated]) -> tuple[Batch, Batch]:
    """What a model reads of some rows: their own answers, and the others, each padded by themselves."""
    collate = Collator("padded", None)
    return collate([[row.own] for row in rows]), collate([[row.other] for row in rows])
