"""How rows become the tensors of a batch.

B: sequences of a micro batch, L: tokens of the longest (or of `pad_to`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Tokens

Batch = dict[str, Any]
Row = tuple[Tokens, Tokens]


@dataclass(frozen=True)
class Collator:
    """Turns B sequences into the model's arguments.

    `padded`: one row per sequence, padding on the right under an attention mask.
    `packed`: position ids start anew at each row and at the padding, and there is no attention mask: transformers
    then keeps rows apart by itself, also for B > 1. `flat`: the same with all sequences in one line, because flash
    attention reads position ids only for B = 1; there, only `pad_to` pads each sequence. Without it L is a multiple
    of `multiple`. `marks_padding`: these two have an attention mask as well, for a model that would not read it as one.
    `apart`: every row of every sequence as a row of a padded batch, for a model in which the rows of one sequence would
    see each other: the same sums as of packed rows that are kept apart, with more padding.
    `positions`: the model has a table of so many; padding beyond it gets positions that are in there.
    `places`: what gives the tokens of a `padded` row positions other than 0, 1, 2, ...
    `own_labels`: a label is what the model shall say of its own token, as a classifier of tokens does, and not that
    token, which is predicted from the one before it.
    """

    layout: Literal["padded", "packed", "flat", "apart"]
    pad_to: int | None
    multiple: int = 1
    marks_padding: bool = False
    positions: int | None = None
    places: Callable[[Tokens], Tokens] | None = None
    own_labels: bool = False

    def __call__(self, sequences: Sequence[Sequence[Row]]) -> Batch:
        if self.layout == "apart":
            return replace(self, layout="padded", pad_to=None)([[row] for rows in sequences for row in rows])
        if self.layout == "flat" and self.pad_to is None:
            sequences = [[row for rows in sequences for row in rows]]
        joined = [_join(rows, self.places or _counted, self.own_labels) for rows in sequences]
        longest = self.pad_to or max(len(ids) for ids, _, _ in joined)
        longest += -longest % self.multiple
        padded = [_pad(sequence, longest, self.positions or longest) for sequence in joined]
        ids_bl, labels_bl, positions_bl = (_stack(parts) for parts in zip(*padded, strict=True))
        batch = {"input_ids": ids_bl, "labels": labels_bl}
        if self.layout == "padded" or self.marks_padding:
            lengths_b = torch.tensor([len(ids) for ids, _, _ in joined])
            batch["attention_mask"] = (torch.arange(longest)[None, :] < lengths_b[:, None]).long()
        if self.layout != "padded" or self.places is not None:
            batch["position_ids"] = positions_bl
        elif self.positions is not None and longest > self.positions:
            # Never anew: under an attention mask the model counts on.
            batch["position_ids"] = torch.arange(longest).clamp(max=self.positions - 1).expand_as(ids_bl)
        if self.layout == "flat":
            return {name: t_bl.reshape(1, -1) for name, t_bl in batch.items()}
        return batch


def _counted(ids: Tokens) -> Tokens:
    return np.arange(len(ids), dtype=np.int32)


def _join(
    rows: Sequence[Row], places: Callable[[Tokens], Tokens], own_labels: bool
) -> tuple[Tokens, Tokens, Tokens]:
    """Ids, labels and positions of one sequence.

    Where the model predicts each token from the one before it, a row's first label would be predicted from the row
    before: it is masked, also where a row stands alone and nothing precedes it.
    """
    first = [] if own_labels else [IGNORED]
    labels = [np.concatenate([np.asarray(first, dtype=np.int32), labels[len(first) :]]) for _, labels in rows]
    positions = [places(ids) for ids, _ in rows]
    return np.concatenate([ids for ids, _ in rows]), np.concatenate(labels), np.concatenate(positions)


def _pad(
    sequence: tuple[Tokens, Tokens, Tokens], length: int, positions: int
) -> tuple[Tokens, Tokens, Tokens]:
    """Padding is a row of its own: token 0, never trained, never seen by another row."""
    ids, labels, places = sequence
    missing = length - len(ids)
    assert missing >= 0, f"a sequence of {len(ids)} tokens does not fit in sequence_len {length}"
    return (
        np.concatenate([ids, np.zeros(missing, dtype=np.int32)]),
        np.concatenate([labels, np.full(missing, IGNORED, dtype=np.int32)]),
        np.concatenate([places, np.arange(missing, dtype=np.int32) % positions]),
    )


def _stack(parts: Sequence[Tokens]) -> Any:
    return torch.from_numpy(np.stack(parts).astype(np.int64))
