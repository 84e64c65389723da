"""Rows as token ids and labels, a batch of them flat."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from tunemill.stages.data.rows.columns import column, list_column, offsets_of_lengths
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.token_rows import NUMBERED_SCHEMA, Int32s, Int64s


@dataclass(frozen=True)
class Run:
    """Tokens `start` to `end` of a row, which belong to one role."""

    role: str
    start: int
    end: int


@dataclass(frozen=True)
class Sample:
    """Token ids and labels of one row, and which role each run of tokens belongs to."""

    ids: list[int]
    labels: list[int]
    runs: list[Run]

    @property
    def trained_tokens(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True)
class Samples(Sequence[Sample]):
    """A batch of rows. Row i has the tokens `offsets[i]` to `offsets[i + 1]`, and the runs that `run_offsets` tells.

    Run j belongs to `roles[run_roles[j]]` and reaches to the token `run_ends[j]` of its row.
    """

    ids: Int32s
    labels: Int32s
    offsets: Int64s
    roles: Sequence[str]
    run_roles: Int64s
    run_ends: Int64s
    run_offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Sample:  # type: ignore[override]
        if not 0 <= row < len(self):
            raise IndexError(row)
        tokens = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        runs: list[Run] = []
        for run in range(int(self.run_offsets[row]), int(self.run_offsets[row + 1])):
            start = runs[-1].end if runs else 0
            runs.append(Run(self.roles[self.run_roles[run]], start, int(self.run_ends[run])))
        return Sample(self.ids[tokens].tolist(), self.labels[tokens].tolist(), runs)

    def lengths(self) -> Int64s:
        """How many tokens each row has."""
        return np.diff(self.offsets)

    def trained_before(self) -> Int64s:
        """Of each token boundary, how many trained tokens there are before it."""
        return offsets_of_lengths(self.labels != IGNORED)

    def run_bounds(self) -> tuple[Int64s, Int64s]:
        """First and last token boundary of each run, in tokens of the batch."""
        before = np.repeat(self.offsets[:-1], np.diff(self.run_offsets))
        ends = before + self.run_ends
        starts = np.concatenate([before[:1], ends[:-1]])
        opens = self.run_offsets[:-1][np.diff(self.run_offsets) > 0]
        starts[opens] = before[opens]
        return starts, ends

    def batch(self, numbers: Sequence[int]) -> pa.RecordBatch:
        """The rows as they are stored; `numbers` are the numbers of the rows that they came from."""
        roles = [self.roles[code] for code in self.run_roles.tolist()]
        runs = np.diff(self.run_offsets)
        columns = [
            list_column(self.ids, self.lengths(), pa.int32()),
            list_column(self.labels, self.lengths(), pa.int32()),
            column(numbers, pa.int64()),
            list_column(roles, runs, pa.string()),
            list_column(self.run_ends, runs, pa.int32()),
        ]
        return pa.record_batch(columns, schema=NUMBERED_SCHEMA)


def of_rows(rows: Sequence[Sample]) -> Samples:
    """The rows as a batch."""
    offsets = offsets_of_lengths([len(row.ids) for row in rows])
    count = int(offsets[-1])
    names = {run.role: None for row in rows for run in row.runs}
    codes = {name: code for code, name in enumerate(names)}
    runs = [run for row in rows for run in row.runs]
    return Samples(
        np.fromiter(chain.from_iterable(row.ids for row in rows), np.int32, count),
        np.fromiter(chain.from_iterable(row.labels for row in rows), np.int32, count),
        offsets,
        tuple(names),
        np.array([codes[run.role] for run in runs], np.int64),
        np.array([run.end for run in runs], np.int64),
        offsets_of_lengths([len(row.runs) for row in rows]),
    )


def merged(parts: Sequence[tuple[Sequence[int], Samples]], count: int) -> Samples:
    """Batches as one of `count` rows; each part says where its rows go."""
    if len(parts) == 1:
        return parts[0][1]
    rows: list[Sample | None] = [None] * count
    for places, samples in parts:
        for place, sample in zip(places, samples, strict=True):
            rows[place] = sample
    return of_rows([row for row in rows if row is not None])
