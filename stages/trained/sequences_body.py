"""The sequences that training reads, their order, and how a batch of them becomes tensors.

B: sequences of a micro batch, L: tokens of the longest (or of `pad_to`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from tunemill.stages.evaluation.loss_body import IGNORED
from tunemill.stages.evaluation.rows import Rows, Tokens

Batch = dict[str, Any]
Row = tuple[Tokens, Tokens]


class Sequences:
    """Sequence number -> the rows in it, in the order of the current epoch.

    The first epoch reads the stored order (already shuffled with its own seed); each later one a permutation
    drawn from `seed` and the epoch alone, or with `keep_order` the same. With `group` (sequences per step) every
    epoch puts sequences of like length together. No global random state is read, so neither resuming nor worker
    processes change the order.
    """

    def __init__(
        self, rows: Path, packs: Path, seed: int, group: int | None = None, keep_order: bool = False
    ) -> None:
        self._rows = Rows(rows)
        column = pa.ipc.open_file(pa.memory_map(str(packs))).read_all()["rows"]
        counts = pc.list_value_length(column).to_numpy().astype(np.int64)
        assert (counts > 0).all(), f"{packs}: a sequence without rows"
        self._packed = np.asarray(pc.list_flatten(column), dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._seed = seed
        self._group = group
        self._keep_order = keep_order
        tokens = np.concatenate([[0], np.cumsum(self._rows.lengths[self._packed])])
        self.lengths: npt.NDArray[np.int64] = np.diff(tokens[self._starts])
        """Tokens of each sequence, by stored number."""
        self._order = self.order(0)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def order(self, epoch: int) -> list[int]:
        """Stored numbers of the sequences in the order of an epoch (from 0)."""
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

    def __getitem__(self, place: int) -> list[Row]:
        number = self._order[place]
        rows = self._packed[self._starts[number] : self._starts[number + 1]]
        return [(self._rows.ids(int(row)), self._rows.labels(int(row))) for row in rows]


@dataclass(frozen=True)
class Collator:
    """Turns B sequences into the model's arguments.

    `padded`: one row per sequence, padding on the right under an attention mask.
    `packed`: position ids start anew at each row and at the padding, and there is no attention mask: transformers
    then keeps rows apart by itself, also for B > 1. `flat`: the same with all sequences in one line, because flash
    attention reads position ids only for B = 1; there, only `pad_to` pads each sequence. Without it L is a multiple
    of `multiple`.
    """

    layout: Literal["padded", "packed", "flat"]
    pad_to: int | None
    multiple: int = 1

    def __call__(self, sequences: Sequence[Sequence[Row]]) -> Batch:
        if self.layout == "flat" and self.pad_to is None:
            sequences = [[row for rows in sequences for row in rows]]
        joined = [_join(rows) for rows in sequences]
        longest = self.pad_to or max(len(ids) for ids, _, _ in joined)
        longest += -longest % self.multiple
        padded = [_pad(sequence, longest) for sequence in joined]
        ids_bl, labels_bl, positions_bl = (_stack(parts) for parts in zip(*padded, strict=True))
        if self.layout != "padded":
            batch = {"input_ids": ids_bl, "labels": labels_bl, "position_ids": positions_bl}
            return (
                {name: t_bl.reshape(1, -1) for name, t_bl in batch.items()}
                if self.layout == "flat"
                else batch
            )
        lengths_b = torch.tensor([len(ids) for ids, _, _ in joined])
        mask_bl = (torch.arange(longest)[None, :] < lengths_b[:, None]).long()
        return {"input_ids": ids_bl, "labels": labels_bl, "attention_mask": mask_bl}


def _join(rows: Sequence[Row]) -> tuple[Tokens, Tokens, Tokens]:
    """Ids, labels and positions of one sequence.

    The model predicts each token from the one before it, so a row's first label would be predicted from the row
    before: it is masked, also where a row stands alone and nothing precedes it.
    """
    labels = [np.concatenate([np.asarray([IGNORED], dtype=np.int32), labels[1:]]) for _, labels in rows]
    positions = [np.arange(len(ids), dtype=np.int32) for ids, _ in rows]
    return np.concatenate([ids for ids, _ in rows]), np.concatenate(labels), np.concatenate(positions)


def _pad(sequence: tuple[Tokens, Tokens, Tokens], length: int) -> tuple[Tokens, Tokens, Tokens]:
    """Padding is a row of its own: token 0, never trained, never seen by another row."""
    ids, labels, positions = sequence
    missing = length - len(ids)
    assert missing >= 0, f"a sequence of {len(ids)} tokens does not fit in sequence_len {length}"
    return (
        np.concatenate([ids, np.zeros(missing, dtype=np.int32)]),
        np.concatenate([labels, np.full(missing, IGNORED, dtype=np.int32)]),
        np.concatenate([positions, np.arange(missing, dtype=np.int32)]),
    )


def _stack(parts: Sequence[Tokens]) -> Any:
    return torch.from_numpy(np.stack(parts).astype(np.int64))


def rows_leak(forward: Callable[..., Any], device: Any) -> bool:
    """Whether a row in a pack sees its neighbour: the model ignores where position ids start anew.

    Two rows of six tokens; other tokens in the first must leave the second's logits alone, up to rounding
    (a hundredth of what they change in the first).
    """
    positions = torch.arange(6, device=device).repeat(1, 2)
    one = torch.tensor([[1, 2, 3, 4, 5, 6, 1, 3, 5, 2, 4, 6]], device=device)
    other = one.clone()
    other[0, :6] = torch.tensor([6, 5, 4, 3, 2, 1], device=device)
    with torch.no_grad():
        a, b = (
            forward(input_ids=ids, position_ids=positions, use_cache=False).logits for ids in (one, other)
        )
    change = (a - b).abs().float()
    return bool(change[0, 6:].max() > 0.01 * change[0, :6].max())
