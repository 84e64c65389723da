"""Pairs of answers as tokens: what every method reads that learns from preferences without a judge.

B: pairs of a micro batch, L: tokens of the longest of their 2B sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunemill.stages.data.rows.collate_body import Batch, Collator, Row
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.errors import SettingError
from tunemill.stages.training.order_body import Examples

TEXTS_AT_ONCE = 1024
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Pair:
    """The prompt with either answer: token ids, and labels that are masked over the prompt."""

    chosen: Row
    rejected: Row


class PairReader:
    """Pairs of a prepared file by number, tokenized when they are read.

    A BOS token goes before a prompt and an EOS token behind an answer where they are not there already, as TRL does
    it; what is then longer than `longest` tokens loses its end. `numbers` are those of the pairs in which something
    is left of both answers.
    """

    def __init__(self, rows: Path, tokenizer: Any, longest: int) -> None:
        if tokenizer.eos_token_id is None:
            raise SettingError(
                "the tokenizer has no EOS token to end answers with; set special_tokens: eos_token"
            )
        self._table = pa.ipc.open_file(pa.memory_map(str(rows))).read_all()
        self._tokenizer = tokenizer
        self._longest = longest
        pairs = [pair for first in range(0, len(self._table), TEXTS_AT_ONCE) for pair in self._sizes(first)]
        sizes = np.asarray(pairs, dtype=np.int64).reshape(len(pairs), 2)
        self.numbers = np.flatnonzero(sizes.min(axis=1, initial=np.iinfo(np.int64).max) > 0)
        self.lengths = sizes.sum(axis=1)[self.numbers]
        """Tokens of each pair, of both sequences together."""

    def read(self, place: int) -> Pair:
        """The pair at a place among `numbers`."""
        (pair,) = self._pairs(int(self.numbers[place]), 1)
        return pair

    def _sizes(self, first: int) -> list[tuple[int, int]]:
        """Tokens of either side of some pairs; 0 where nothing of the answer is left."""
        return [(_size(pair.chosen), _size(pair.rejected)) for pair in self._pairs(first, TEXTS_AT_ONCE)]

    def _pairs(self, first: int, count: int) -> list[Pair]:
        rows = self._table.slice(first, count)
        prompts = rows["prompt"].to_pylist()
        whole = {
            side: [p + a for p, a in zip(prompts, rows[side].to_pylist(), strict=True)] for side in SIDES
        }
        ids = {name: self._encode(texts) for name, texts in {"prompt": prompts, **whole}.items()}
        made = zip(ids["prompt"], *(ids[side] for side in SIDES), strict=True)
        return [Pair(*(self._row(prompt, side) for side in sides)) for prompt, *sides in made]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found

    def _row(self, prompt: list[int], whole: list[int]) -> Row:
        """A token that reaches from the prompt into the answer belongs to the answer."""
        start = len(prompt) if whole[: len(prompt)] == prompt else len(prompt) - 1
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        before = [bos] if bos is not None and whole[:1] != [bos] else []
        after = [] if whole[start:] and whole[-1] == eos else [eos]
        ids = np.asarray([*before, *whole, *after][: self._longest], dtype=np.int32)
        labels = ids.copy()
        labels[: len(before) + start] = IGNORED
        return ids, labels


def _size(row: Row) -> int:
    ids, labels = row
    return len(ids) if (labels != IGNORED).any() else 0


def pair_examples(reader: PairReader, seed: int, keep_order: bool) -> Examples:
    """The pairs in the order of each epoch."""
    return Examples(reader.read, reader.lengths, seed, keep_order=keep_order)


def collate_pairs(pairs: Sequence[Pair]) -> Batch:
    """[2B, L] ids, labels and attention mask: the chosen sequences, then the rejected ones."""
    rows = [[pair.chosen] for pair in pairs] + [[pair.rejected] for pair in pairs]
    return Collator("padded", None)(rows)
