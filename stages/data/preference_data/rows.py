"""Preference rows on disk, memory mapped, in any order and with their answers cut off."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunemill.stages.data.rows.columns import column, numbers_of
from tunemill.stages.data.rows.token_rows import Bools, Int64s, open_writer

ANSWERS = ("chosen", "rejected", "completion")
# Columns that only prepared datasets have.
MEASURES = (
    "source_row",
    "tokens",
    "prompt_tokens",
    "same_tokens",
    *(f"{answer}_{measure}" for answer in ANSWERS for measure in ("ends", "quiet")),
)
ROW_ARRAYS = (
    "chunk",
    "place",
    "dataset",
    "source_row",
    "length",
    "prompt_length",
    "limit",
    "answers",
    "quiet",
    "same",
)
BATCH_ROWS = 1024
UNCUT = np.iinfo(np.int64).max


@dataclass(frozen=True)
class PreferenceRows:
    """Rows of one or several prepared datasets. `files` are the mapped files, `chunks` their batches.

    The arrays have one element per row: which chunk, where in it, the number of the dataset and of the row in it
    (both from 1), tokens of the prompt with the longer answer, of the prompt alone (0 where there is none),
    how many tokens an answer may have, and how many both answers begin with (0 where there is one answer). `answers`
    and `quiet` have a column for each answer: its tokens, and how many it may have and still say nothing.
    """

    files: tuple[mmap.mmap, ...]
    chunks: tuple[pa.RecordBatch, ...]
    schema: pa.Schema
    chunk: Int64s
    place: Int64s
    dataset: Int64s
    source_row: Int64s
    length: Int64s
    prompt_length: Int64s
    limit: Int64s
    answers: Int64s
    quiet: Int64s
    same: Int64s

    def __len__(self) -> int:
        return len(self.length)

    @property
    def is_reward(self) -> bool:
        """Whether these are pairs of whole conversations."""
        return "chosen_ids" in self.schema.names

    @property
    def columns(self) -> pa.Schema:
        """What a row holds beside its measures."""
        return pa.schema([field for field in self.schema if field.name not in MEASURES])

    def release(self) -> None:
        """Take the files' pages out of this process's memory; reading on brings back those that are needed."""
        for file in self.files:
            file.madvise(mmap.MADV_DONTNEED)

    def take(self, rows: Int64s | Bools) -> "PreferenceRows":
        """The rows at these indices, or where the mask is true."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_ARRAYS})

    def cut_to(self, longest: int) -> "PreferenceRows":
        """Rows whose answers end where prompt and answer have `longest` tokens. No prompt may be as long."""
        return replace(self, limit=longest - self.prompt_length)

    @property
    def empty(self) -> Bools:
        """Where nothing is said by an answer, as far as it may go."""
        return np.asarray((self._kept <= self.quiet).any(axis=1))

    @property
    def equal(self) -> Bools:
        """Where two answers are the same, as far as they may go: the same tokens, or cut off to the same text."""
        kept = self._kept
        if kept.shape[1] < 2:
            return np.zeros(len(self), np.bool_)
        found: Bools = (kept[:, 0] == kept[:, 1]) & (kept[:, 0] <= self.same)
        if not self.is_reward:
            # Of a character that is cut in half nothing is left, whichever of its bytes differ.
            places = [self.columns.names.index(name) for name in ANSWERS[:2]]
            for row in np.flatnonzero((kept < self.answers).any(axis=1) & ~found).tolist():
                values = self.values(row)
                found[row] = values[places[0]] == values[places[1]]
        return found

    @property
    def _kept(self) -> Int64s:
        """Tokens of each answer, as far as it may go."""
        return np.minimum(self.answers, self.limit[:, None])

    def values(self, row: int) -> list[Any]:
        """What the row holds, in the order of `columns`; token ids as an array."""
        chunk, place, limit = self.chunks[self.chunk[row]], int(self.place[row]), int(self.limit[row])
        return [_value(chunk, name, place, limit) for name in self.columns.names]


def _value(chunk: pa.RecordBatch, name: str, place: int, limit: int) -> Any:
    scalar = chunk.column(name)[place]
    if name.endswith("_ids"):
        return numbers_of(scalar.values)[:limit]
    value = scalar.as_py()
    if limit == UNCUT or name not in ANSWERS:
        return value
    return value[: cut_point(numbers_of(chunk.column(f"{name}_ends")[place].values), limit)]


def cut_point(ends: npt.NDArray[np.int32], limit: int) -> int | None:
    """The character before which a text of at most `limit` tokens ends, None for all of it.

    `ends` are where the text's tokens end. A character of several tokens is left out where not all of them fit.
    """
    if len(ends) <= limit:
        return None
    if limit == 0:
        return 0
    end = int(ends[limit - 1])
    return end - 1 if ends[limit] == end else end


def read_preference_rows(path: Path, dataset: int) -> PreferenceRows:
    """The rows of the prepared dataset number `dataset`, from 1."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = pa.ipc.open_file(pa.py_buffer(mapped))
    chunks = tuple(reader.get_batch(index) for index in range(reader.num_record_batches))
    counts = [chunk.num_rows for chunk in chunks]
    rows = sum(counts)

    def numbers(name: str) -> Int64s:
        if name not in reader.schema.names:
            return np.zeros(rows, np.int64)
        parts = [numbers_of(chunk.column(name)).astype(np.int64) for chunk in chunks]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    sides = [name for name in ANSWERS if f"{name}_quiet" in reader.schema.names]
    lists = [f"{name}_ids" if f"{name}_ids" in reader.schema.names else f"{name}_ends" for name in sides]
    lengths = [
        np.concatenate([np.zeros(0, np.int64), *(_lengths(chunk.column(name)) for chunk in chunks)])
        for name in lists
    ]
    return PreferenceRows(
        (mapped,),
        chunks,
        reader.schema,
        chunk=np.repeat(np.arange(len(chunks)), counts),
        place=np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
        dataset=np.full(rows, dataset),
        source_row=numbers("source_row"),
        length=numbers("tokens"),
        prompt_length=numbers("prompt_tokens"),
        limit=np.full(rows, UNCUT),
        answers=np.stack(lengths, axis=1),
        quiet=np.stack([numbers(f"{name}_quiet") for name in sides], axis=1),
        same=numbers("same_tokens"),
    )


def _lengths(lists: pa.ListArray) -> Int64s:
    """How many items each list has."""
    lengths: Int64s = np.diff(numbers_of(lists.offsets)).astype(np.int64)
    return lengths


def concatenated(parts: Sequence[PreferenceRows]) -> PreferenceRows:
    """The rows of all parts, which are of one kind, one part after the other."""
    assert len({tuple(part.schema.names) for part in parts}) == 1, "one method, one kind of rows"
    before = np.cumsum([0, *(len(part.chunks) for part in parts)])
    moved = [replace(part, chunk=part.chunk + first) for part, first in zip(parts, before, strict=False)]
    arrays = {name: np.concatenate([getattr(part, name) for part in moved]) for name in ROW_ARRAYS}
    chunks = tuple(chunk for part in parts for chunk in part.chunks)
    files = tuple(file for part in parts for file in part.files)
    return PreferenceRows(files, chunks, parts[0].schema, **arrays)


def write_preference_rows(rows: PreferenceRows, path: Path) -> None:
    """Write the rows in their order, a batch at a time."""
    with open_writer(path, rows.columns) as writer:
        for batch in in_batches(len(rows)):
            columns = zip(*(rows.values(row) for row in batch), strict=True)
            arrays = [column(values, field.type) for values, field in zip(columns, rows.columns, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=rows.columns))
            rows.release()


def in_batches(rows: int) -> Iterator[range]:
    """Row numbers, as many at a time as are written at once."""
    for first in range(0, rows, BATCH_ROWS):
        yield range(first, min(first + BATCH_ROWS, rows))
