"""Reading and writing `rows.arrow` of tokenized, training and evaluation data."""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunemill.stages.data.rows.columns import column, numbers_of
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.pieces import pieces

TOKEN_COLUMNS = [("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))]
ROLE_COLUMNS = ("roles", "role_ends")
SCHEMA = pa.schema(TOKEN_COLUMNS)
# Tokenized data also says which row of the source each row came from, counted from 1, and where roles begin.
NUMBERED_SCHEMA = pa.schema(
    [
        *TOKEN_COLUMNS,
        ("source_row", pa.int64()),
        ("roles", pa.list_(pa.string())),
        ("role_ends", pa.list_(pa.int32())),
    ]
)
# Rows to evaluate on also say which tokens are whose: that tells an answer from what else is trained on.
ROLE_SCHEMA = pa.schema(
    [*TOKEN_COLUMNS, *((name, NUMBERED_SCHEMA.field(name).type) for name in ROLE_COLUMNS)]
)
# Metadata of a dataset whose too long rows are cut into several, or lose their end, whatever the config says.
LONG_ROWS, SPLIT, CUT = b"long_rows", b"split", b"cut"
BATCH_ROWS = 1024
# Batches read between two releases of mapped pages.
RELEASE_EVERY = 16

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@contextmanager
def open_writer(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    """An Arrow IPC file that takes batches; the same batches are the same bytes."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        yield writer


def list_array(rows: Sequence[Sequence[int] | Int32s]) -> pa.ListArray:
    """A list column of int32. At most 2**31 values."""
    return column(rows, pa.list_(pa.int32()))


@dataclass(frozen=True)
class Chunk:
    """One batch of a file, flat. Row i has the tokens `offsets[i]` to `offsets[i + 1]`.

    `roles` and `role_ends` are its columns of these names, None where the file does not have them.
    """

    ids: Int32s
    labels: Int32s
    offsets: Int64s
    roles: pa.ListArray | None
    role_ends: pa.ListArray | None


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens on disk, memory mapped: the files' batches, and of each row where it lies.

    `files` are the mapped files. The arrays have one element per row: which chunk, which row of it, the first token
    in it, how many tokens, how many of them trained; the number of the dataset and of the row in it (both from 1, 0
    where unknown); and whether a row that is too long becomes several, or loses its end.
    """

    files: tuple[mmap.mmap, ...]
    chunks: tuple[Chunk, ...]
    chunk: Int64s
    place: Int64s
    start: Int64s
    length: Int64s
    trained: Int64s
    dataset: Int64s
    source_row: Int64s
    splits: Bools
    cuts: Bools

    def __len__(self) -> int:
        return len(self.length)

    def ids(self, row: int) -> Int32s:
        values: Int32s = self.chunks[self.chunk[row]].ids[self._tokens(row)]
        return values

    def labels(self, row: int) -> Int32s:
        values: Int32s = self.chunks[self.chunk[row]].labels[self._tokens(row)]
        return values

    def roles(self, row: int) -> list[tuple[str, int]]:
        """Whose the tokens are: roles, each with the token that it ends before; none where that is unknown."""
        chunk, place = self.chunks[self.chunk[row]], int(self.place[row])
        if chunk.roles is None or chunk.role_ends is None:
            return []
        # A piece of a row begins behind the row's first token.
        before = int(self.start[row] - chunk.offsets[place])
        length = int(self.length[row])
        found: list[tuple[str, int]] = []
        for role, end in zip(chunk.roles[place].as_py(), chunk.role_ends[place].as_py(), strict=True):
            last = found[-1][1] if found else 0
            if last < min(end - before, length):
                found.append((role, min(end - before, length)))
        return found

    def release(self) -> None:
        """Take the files' pages out of this process's memory; reading on brings back those that are needed."""
        for file in self.files:
            file.madvise(mmap.MADV_DONTNEED)

    def by_chunk(self) -> Iterator[tuple[Chunk, Int64s]]:
        """Each chunk with the indices of the rows that lie in it, in the order of the files."""
        order = np.argsort(self.chunk, kind="stable")
        borders = np.searchsorted(self.chunk[order], np.arange(len(self.chunks) + 1))
        for number, chunk in enumerate(self.chunks):
            yield chunk, order[borders[number] : borders[number + 1]]
            if number % RELEASE_EVERY == 0:
                self.release()

    def _tokens(self, row: int) -> slice:
        start = int(self.start[row])
        return slice(start, start + int(self.length[row]))

    def take(self, rows: Int64s | Bools) -> "TokenRows":
        """The rows at these indices, or where the mask is true."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_ARRAYS})

    def cut_to(self, limit: int, only: Bools | None = None) -> "TokenRows":
        """Every row, or those where `only` is true, cut off after `limit` tokens."""
        long = self.length > limit if only is None else (self.length > limit) & only
        trained = self.trained.copy()
        for row in np.flatnonzero(long).tolist():
            trained[row] = np.count_nonzero(self.labels(row)[:limit] != IGNORED)
        return replace(self, length=np.where(long, limit, self.length), trained=trained)

    def fitted(self, limit: int, shortest: int) -> "TokenRows":
        """Too long rows in pieces of `limit` tokens and a rest, or without their end, where they ask for that.

        No rest is shorter than `shortest`, which would leave it out, and with it the end of the row.
        """
        return self.cut_to(limit, self.cuts)._split_at(limit, shortest)

    def _split_at(self, limit: int, shortest: int) -> "TokenRows":
        long = self.splits & (self.length > limit)
        if not long.any():
            return self
        cut = pieces(np.where(long, self.length, 0), limit, shortest)
        rows, whole = self.take(cut.row), ~long[cut.row]
        length = np.where(whole, rows.length, cut.end - cut.start)
        rows = replace(rows, start=rows.start + cut.start, length=length)
        trained = rows.trained.copy()
        for row in np.flatnonzero(~whole).tolist():
            trained[row] = np.count_nonzero(rows.labels(row) != IGNORED)
        return replace(rows, trained=trained)


ROW_ARRAYS = ("chunk", "place", "start", "length", "trained", "dataset", "source_row", "splits", "cuts")


def read_token_rows(path: Path, dataset: int = 0) -> TokenRows:
    """Opens `rows.arrow`; of the rows no more than bounds and counts come into memory."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = pa.ipc.open_file(pa.py_buffer(mapped))
    long_rows = (reader.schema.metadata or {}).get(LONG_ROWS)
    parts = []
    for index in range(reader.num_record_batches):
        parts.append(_batch_rows(reader.get_batch(index), dataset, long_rows))
        if index % RELEASE_EVERY == 0:
            mapped.madvise(mmap.MADV_DONTNEED)
    return replace(concatenated(parts), files=(mapped,))


def _batch_rows(batch: pa.RecordBatch, dataset: int, long_rows: bytes | None) -> TokenRows:
    ids, labels = batch.column("input_ids"), batch.column("labels")
    offsets = numbers_of(ids.offsets).astype(np.int64)
    flat_labels = numbers_of(labels.values)
    rows = batch.num_rows
    names = batch.schema.names
    numbered, with_roles = "source_row" in names, set(ROLE_COLUMNS) <= set(names)
    roles, role_ends = (batch.column(name) if with_roles else None for name in ROLE_COLUMNS)
    return TokenRows(
        files=(),
        chunks=(Chunk(numbers_of(ids.values), flat_labels, offsets, roles, role_ends),),
        chunk=np.zeros(rows, np.int64),
        place=np.arange(rows),
        start=offsets[:-1],
        length=np.diff(offsets),
        trained=count_trained(flat_labels, offsets),
        dataset=np.full(rows, dataset, np.int64),
        source_row=numbers_of(batch.column("source_row")) if numbered else np.zeros(rows, np.int64),
        splits=np.full(rows, long_rows == SPLIT),
        cuts=np.full(rows, long_rows == CUT),
    )


def concatenated(parts: Sequence[TokenRows]) -> TokenRows:
    """The rows of all parts, one part after the other."""
    counts = np.cumsum([0, *(len(part.chunks) for part in parts)])
    moved = [replace(part, chunk=part.chunk + before) for part, before in zip(parts, counts, strict=False)]
    if not moved:
        nothing, never = np.zeros(0, np.int64), np.zeros(0, np.bool_)
        return TokenRows((), (), **dict.fromkeys(ROW_ARRAYS[:-2], nothing), splits=never, cuts=never)
    arrays = {name: np.concatenate([getattr(part, name) for part in moved]) for name in ROW_ARRAYS}
    return TokenRows(
        files=tuple(file for part in parts for file in part.files),
        chunks=tuple(chunk for part in parts for chunk in part.chunks),
        **arrays,
    )


def count_trained(labels: Int32s, offsets: Int64s) -> Int64s:
    """Trained tokens of each row; `offsets` has one element more than there are rows."""
    # One more, for rows without a token at the end.
    trained = np.append(labels[: offsets[-1]] != IGNORED, False)
    counts: Int64s = np.add.reduceat(trained, offsets[:-1], dtype=np.int64)
    # Of nothing `reduceat` makes what stands there.
    counts[offsets[1:] == offsets[:-1]] = 0
    return counts


def write_token_rows(rows: TokenRows, path: Path, *, with_roles: bool = False) -> None:
    """Write `rows.arrow` in the rows' order, a batch at a time; `with_roles`, also whose the tokens are."""
    schema = ROLE_SCHEMA if with_roles else SCHEMA
    with open_writer(path, schema) as writer:
        for first in range(0, len(rows), BATCH_ROWS):
            batch = range(first, min(first + BATCH_ROWS, len(rows)))
            columns = [list_array([rows.ids(r) for r in batch]), list_array([rows.labels(r) for r in batch])]
            if with_roles:
                roles = [rows.roles(r) for r in batch]
                columns.append(column([[role for role, _ in row] for row in roles], pa.list_(pa.string())))
                columns.append(list_array([[end for _, end in row] for row in roles]))
            writer.write_batch(pa.record_batch(columns, schema=schema))
            # Shuffled rows touch pages all over the files.
            rows.release()
