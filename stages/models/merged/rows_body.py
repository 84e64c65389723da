"""Tensors that go from file to file some rows at a time: nothing as large as a tensor is in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tunemill.stages.models.merged.change_body import blocks
from tunemill.stages.models.merged.shards_body import Shard
from tunemill.stages.models.stored_tensor_body import TYPES, read_blocks, read_part
from tunemill.stages.models.weights import StoredTensor


def copied(place: StoredTensor, shard: Shard) -> int:
    """Write a tensor as it is. Returns 0: as many as differ."""
    for start, numbers in read_blocks(place):
        shard.write_part(place, start * numbers.element_size(), numbers)
    return 0


def changed_by_rows(place: StoredTensor, shard: Shard, change: Callable[[Any, slice], Any]) -> int:
    """Write a matrix changed by `change`, which is given some rows in float32. Returns 1 if any number differs, else
    0."""
    dtype = TYPES[place.dtype]
    parts = list(blocks(place.shape))
    row = place.shape[1] * dtype.itemsize
    first = parts[0].stop if parts else 0
    raw = np.empty(first * row, dtype=np.uint8)
    floats, changed = (torch.empty(first, place.shape[1], dtype=one) for one in (torch.float32, dtype))
    same = True
    with place.file.open("rb", buffering=0) as file:
        for rows in parts:
            count = rows.stop - rows.start
            read_part(file, place, rows.start * row, raw[: count * row])
            old = torch.from_numpy(raw[: count * row]).view(dtype).view(count, -1)
            new = changed[:count].copy_(change(floats[:count].copy_(old), rows))
            same = same and torch.equal(old, new)
            shard.write_part(place, rows.start * row, new)
    return int(not same)
