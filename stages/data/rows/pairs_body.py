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
from tokenizers import Encoding

from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.rows.collate_body import Batch, Collator, Row
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.log_p_columns import read_log_p
from tunemill.stages.errors import SettingError

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

    A BOS token goes before a prompt and an EOS token behind an answer where they are not there already, as TRL does
    it; what is then longer than `longest` tokens loses its end. `numbers` are those of the pairs in which something
    is left of both answers, and not the same; `left_out` is how many others there are. `reference` is the file of
    stored log probabilities of these pairs.
    """

    def __init__(self, rows: Path, tokenizer: Any, longest: int, reference: Path | None = None) -> None:
        if tokenizer.eos_token_id is None:
            raise SettingError(
                "the tokenizer has no EOS token to end answers with; set special_tokens: eos_token"
            )
        self.file = rows
        self._table = pa.ipc.open_file(pa.memory_map(str(rows))).read_all()
        self._tokenizer = tokenizer
        self._reference = Reference(tokenizer.backend_tokenizer)
        self._longest = longest
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
        whole = {
            side: [p + a for p, a in zip(prompts, rows[side].to_pylist(), strict=True)] for side in SIDES
        }
        encoded = [self._reference.bare.encode_batch(whole[side], add_special_tokens=False) for side in SIDES]
        made = zip(prompts, *encoded, strict=True)
        return [
            Pair(self._row(len(prompt), chosen), self._row(len(prompt), rejected))
            for prompt, chosen, rejected in made
        ]

    def _row(self, prompt: int, encoding: Encoding) -> Row:
        """A token that reaches from the prompt, of so many characters, into the answer belongs to the answer."""
        whole = encoding.ids
        start = sum(end <= prompt for _, end in encoding.offsets)
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        before = [bos] if bos is not None and whole[:1] != [bos] else []
        after = [] if whole[start:] and whole[-1] == eos else [eos]
        ids = np.asarray([*before, *whole, *after][: self._longest], dtype=np.int32)
        labels = ids.copy()
        labels[: len(before) + start] = IGNORED
        return ids, labels


def _are_equal(pair: Pair) -> bool:
    return np.array_equal(pair.chosen[0], pair.rejected[0])


def _size(row: Row) -> int:
    ids, labels = row
    return len(ids) if (labels != IGNORED).any() else 0


def collate_pairs(pairs: Sequence[Pair]) -> Batch:
    """[2B, L] ids, labels and attention mask: the chosen sequences, then the rejected ones.

    Where log probabilities of a frozen model are stored, they are `reference_2b`.
    """
    rows = [[pair.chosen] for pair in pairs] + [[pair.rejected] for pair in pairs]
    batch = Collator("padded", None)(rows)
    stored = [pair.reference for pair in pairs if pair.reference is not None]
    if stored:
        chosen, rejected = zip(*stored, strict=True)
        batch["reference_2b"] = torch.tensor([*chosen, *rejected])
    return batch
