"""Texts of a buffer, as tokens, to sequences: packed, concatenated, or each by itself."""

from collections.abc import Iterator, Sequence

import numpy as np

from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.rows.packing import pack, pack_in_sequence
from tunemill.stages.data.rows.pieces import pieces
from tunemill.stages.data.rows.token_rows import Int32s

# The rows of a sequence: tokens that do not see those of other rows.
Rows = list[Int32s]


class Sequencer:
    """Turns one buffer of texts after the other into sequences of at most `sequence_len` tokens.

    What concatenation leaves over of a buffer goes before the next one. Wherever texts are cut, their EOS stays behind
    the token that predicts it.
    """

    def __init__(self, config: PretrainingDataConfig, eos_id: int) -> None:
        self._config = config
        self._eos_id = eos_id
        self._buffers = 0
        self._rest: Int32s = np.zeros(0, np.int32)
        self._before: Int32s = np.zeros(0, np.int32)
        self.too_short = 0
        """Pieces of texts that were left out."""

    def sequences(self, texts: Sequence[Int32s]) -> Iterator[Rows]:
        """The sequences of a buffer, in training order."""
        seed = self._config.seed + self._buffers
        self._buffers += 1
        if self._config.pretraining_sample_concatenation:
            return self._concatenated(self._in_order(texts, seed))
        if not self._config.sample_packing:
            return ([piece] for piece in self._pieces(self._in_order(texts, seed)))
        return self._packed(self._pieces(texts), seed)

    def rest(self) -> Iterator[Rows]:
        """What is left over in the end; where that is too short, with tokens of the sequence before it."""
        missing = max(0, self._config.min_sample_len - len(self._rest))
        if len(self._rest) and missing <= len(self._before):
            yield [np.concatenate([self._before[len(self._before) - missing :], self._rest])]

    def _in_order(self, texts: Sequence[Int32s], seed: int) -> list[Int32s]:
        if not self._config.shuffles:
            return list(texts)
        return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]

    def _pieces(self, texts: Sequence[Int32s]) -> list[Int32s]:
        """Texts, longer ones cut into several. Their first token is the first of a row only in the first piece."""
        shortest = self._config.min_sample_len
        cut = pieces(np.array([len(text) for text in texts], np.int64), self._config.sequence_len, shortest)
        found = [
            texts[row][start:end] for row, start, end in zip(*(part.tolist() for part in cut), strict=True)
        ]
        kept = [piece for piece in found if len(piece) >= shortest]
        self.too_short += len(found) - len(kept)
        return kept

    def _packed(self, pieces: list[Int32s], seed: int) -> Iterator[Rows]:
        config = self._config
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        limits = {"max_rows": config.sample_packing_bin_size, "group_size": config.sample_packing_group_size}
        if config.sample_packing_sequentially:
            pieces = self._in_order(pieces, seed)
            lengths = np.array([len(piece) for piece in pieces], np.int64)
            packs = pack_in_sequence(lengths, config.sequence_len, **limits)
        else:
            packs = pack(lengths, config.sequence_len, seed, in_order=not config.shuffles, **limits)
        for first, last in zip(packs.offsets[:-1], packs.offsets[1:], strict=True):
            rows = [pieces[i] for i in packs.rows[first:last]]
            yield rows if config.pretrain_multipack_attn else [np.concatenate(rows)]

    def _concatenated(self, texts: Sequence[Int32s]) -> Iterator[Rows]:
        length = self._config.sequence_len
        stream = np.concatenate([self._rest, *texts])
        start = 0
        found: list[Rows] = []
        while start + length <= len(stream):
            found.append([stream[start : start + length]])
            start += length
            # An EOS that would be the first token of a sequence repeats the one before it.
            if length > 1 and start < len(stream) and stream[start] == self._eos_id:
                start -= 1
        # Copies: the rest must not keep the whole buffer in memory.
        if found:
            self._before = stream[max(0, start - self._config.min_sample_len) : start].copy()
        self._rest = stream[start:].copy()
        return iter(found)
