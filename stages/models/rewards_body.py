"""Pairs of conversations as token ids, and what a reward model says of them. B: pairs of a batch, L: tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from tunemill.stages.data.rows.collate_body import Batch, Collator, Row
from tunemill.stages.data.rows.mapped import Tokens

SIDES = ("chosen_ids", "rejected_ids")


@dataclass(frozen=True)
class ScoredPair:
    """Token ids of the better conversation, and of the other one."""

    chosen: Tokens
    rejected: Tokens


class RewardPairs:
    """The pairs of a prepared file, by number. `lengths`: tokens of each, of both conversations together."""

    def __init__(self, file: Path) -> None:
        self.file = file
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        self._sides = [table[side].combine_chunks() for side in SIDES]
        sizes = np.stack([pc.list_value_length(side).to_numpy().astype(np.int64) for side in self._sides])
        self.lengths = sizes.sum(axis=0)
        self.longest_row = int(sizes.max(initial=0))
        """Tokens of the longest conversation."""

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, number: int) -> ScoredPair:
        """The pair of a number, from 0."""
        return ScoredPair(*(np.asarray(side[number].values, dtype=np.int32) for side in self._sides))


def collate_rewards(pairs: Sequence[ScoredPair], padding: int) -> Batch:
    """[2B, L] ids, labels and attention mask: the chosen conversations, then the rejected ones.

    Padding is the token `padding`: a model that scores sequences finds by it where they end.
    """
    rows: list[list[Row]] = [[(one.chosen, one.chosen)] for one in pairs]
    rows += [[(one.rejected, one.rejected)] for one in pairs]
    batch = Collator("padded", None)(rows)
    batch["input_ids"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, padding)
    return batch


def padding_of(model: Any) -> int:
    """The token by which a model that scores sequences knows padding."""
    padding: int | None = model.config.get_text_config().pad_token_id
    assert padding is not None, "base_model writes it into every config.json"
    return padding


def rewards_of(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """[B] float32 scores of the chosen conversations of a batch of `collate_rewards`, and of the rejected ones."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    scores_2b = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.squeeze(-1).float()
    chosen_b, rejected_b = scores_2b.chunk(2)
    return chosen_b, rejected_b
