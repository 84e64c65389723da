"""The examples that training reads, and their order in each epoch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from tunemill.stages.data.rows.collate_body import Row
from tunemill.stages.data.rows.mapped import Rows

# So many rows of a step are named.
NAMED = 20


class Examples:
    """Example number -> what `read` gives of it, in the order of the current epoch.

    The first epoch reads the stored order (already shuffled with its own seed); each later one a permutation
    drawn from `seed` and the epoch alone, or with `keep_order` the same. With `group` (examples per step) every
    epoch puts examples of like length together. No global random state is read, so neither resuming nor worker
    processes change the order.
    """

    def __init__(
        self,
        read: Callable[[int], Any],
        lengths: npt.NDArray[np.int64],
        seed: int,
        group: int | None = None,
        keep_order: bool = False,
        file: Path | None = None,
    ) -> None:
        self._read = read
        self._file = file
        self.lengths = lengths
        """Tokens of each example, by stored number."""
        self.longest_row = int(lengths.max(initial=0))
        """Tokens of the longest row that counts its positions by itself."""
        self._seed = seed
        self._group = group
        self._keep_order = keep_order
        self._order = self.order(0)

    def __len__(self) -> int:
        return len(self.lengths)

    def order(self, epoch: int) -> list[int]:
        """Stored numbers of the examples in the order of an epoch (from 0)."""
        random = torch.Generator().manual_seed(self._seed + epoch)
        if self._group is not None:
            return [
                int(i)
                for i in get_length_grouped_indices(self.lengths.tolist(), self._group, generator=random)
            ]
        if epoch == 0 or self._keep_order:
            return list(range(len(self)))
        numbers: list[int] = torch.randperm(len(self), generator=random).tolist()
        return numbers

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self._order = self.order(epoch)

    def rows(self, number: int) -> list[int]:
        """The rows, counted from 0, that an example is made of."""
        return [number]

    def rows_of(self, numbers: Sequence[int]) -> list[int]:
        """The rows, counted from 0, that these examples are made of, each once."""
        return sorted({row for number in numbers for row in self.rows(number)})

    def named(self, numbers: Sequence[int]) -> str:
        """The rows of these examples, counted from 1, as a message names them."""
        rows = self.rows_of(numbers)
        listed = ", ".join(str(row + 1) for row in rows[:NAMED])
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        return f"{'row' if len(rows) == 1 else 'rows'} {listed}{more} of {self._file or 'the training data'}"

    def __getitem__(self, place: int) -> Any:
        return self._read(self._order[place])


class Sequences(Examples):
    """Examples that are sequences of rows of tokens: those that `packs` names, out of `rows`."""

    def __init__(
        self, rows: Path, packs: Path, seed: int, group: int | None = None, keep_order: bool = False
    ) -> None:
        self._rows = Rows(rows)
        column = pa.ipc.open_file(pa.memory_map(str(packs))).read_all()["rows"]
        counts = pc.list_value_length(column).to_numpy().astype(np.int64)
        assert (counts > 0).all(), f"{packs}: a sequence without rows"
        self._packed = np.asarray(pc.list_flatten(column), dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        tokens = np.concatenate([[0], np.cumsum(self._rows.lengths[self._packed])])
        super().__init__(self._sequence, np.diff(tokens[self._starts]), seed, group, keep_order, rows)
        self.longest_row = int(self._rows.lengths[self._packed].max(initial=0))

    def rows(self, number: int) -> list[int]:
        """The rows that share a sequence."""
        return [int(row) for row in self._packed[self._starts[number] : self._starts[number + 1]]]

    def _sequence(self, number: int) -> list[Row]:
        return [(self._rows.ids(row), self._rows.labels(row)) for row in self.rows(number)]
