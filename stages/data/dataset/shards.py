"""`shards` and `shards_idx`: the rows are shuffled, cut into pieces of one size, and one of them is taken."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Numbers = npt.NDArray[np.int64]
BATCH_ROWS = 1024


def rows_of_shard(rows: int, shards: int, index: int, seed: int) -> Numbers:
    """The numbers (from 0) of the rows of shard `index` (from 0), in the order in which they are taken.

    It is what `shuffle(seed).shard(shards, index)` of the datasets library takes; the first shards get the odd rows.
    """
    size, odd = divmod(rows, shards)
    first = size * index + min(index, odd)
    order = np.random.default_rng(seed).permutation(rows)
    return order[first : first + size + (1 if index < odd else 0)]


def write_in_order(source: Path, numbers: Numbers, order: Numbers, target: Path) -> None:
    """Write the rows of an Arrow file in another order.

    `numbers` are those of the file's rows, ascending; `order` lists numbers, those that the file lacks are left out.
    """
    places = np.searchsorted(numbers, order)
    found = places < len(numbers)
    found[found] = numbers[places[found]] == order[found]
    with pa.memory_map(str(source)) as file, pa.ipc.open_file(file) as reader:
        table = reader.read_all()
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            for wanted in _pieces(places[found]):
                writer.write_table(table.take(wanted).combine_chunks())


def _pieces(numbers: Numbers) -> Iterator[Numbers]:
    bounds = [*range(0, len(numbers), BATCH_ROWS), len(numbers)]
    for start, stop in pairwise(bounds):
        yield numbers[start:stop]
