"""Held-out preferences as texts and tokens: pairs of answers, or answers that are each judged by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunemill.stages.data.rows.answer_tokens import AnswerTokens, has_answer
from tunemill.stages.data.rows.mapped import Tokens
from tunemill.stages.data.rows.pairs_body import SIDES

JUDGED = ("completion",)


@dataclass(frozen=True)
class Item:
    """A row: its number from 0, its texts by column, and of each answer the token ids and labels."""

    row: int
    texts: dict[str, Any]
    answers: tuple[tuple[Tokens, Tokens], ...]


@dataclass(frozen=True)
class Items:
    """The rows that are scored, of one kind, and how many are left out.

    `sides` are the columns of their answers. A row is left out where nothing of an answer is left, cut off after so
    many tokens, or both are the same: training leaves out the same ones.
    """

    sides: tuple[str, ...]
    items: Sequence[Item]
    left_out: int


def read_items(file: Path, tokens: AnswerTokens, most: int | None) -> Items:
    """The rows of a prepared file, at most so many of its first ones."""
    with pa.memory_map(str(file)) as mapped:
        table = pa.ipc.open_file(mapped).read_all().slice(0, most)
        sides = SIDES if SIDES[0] in table.column_names else JUDGED
        texts = table.select(
            [name for name in ("prompt", *sides, "label") if name in table.column_names]
        ).to_pylist()
    prompts = [row["prompt"] for row in texts]
    answers = zip(*(tokens.rows(prompts, [row[side] for row in texts]) for side in sides), strict=True)
    items = [Item(row, shown, found) for row, (shown, found) in enumerate(zip(texts, answers, strict=True))]
    kept = [item for item in items if all(map(has_answer, item.answers)) and not _are_equal(item.answers)]
    return Items(sides, kept, len(items) - len(kept))


def _are_equal(answers: Sequence[tuple[Tokens, Tokens]]) -> bool:
    first, *others = (ids for ids, _ in answers)
    return any(np.array_equal(first, other) for other in others)
