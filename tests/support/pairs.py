"""Preference data as the data stages write it: texts, in training order. And batches of it, and a model, by hand."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import torch

from tunemill.stages.artifacts import PreferenceData

Texts = tuple[str, str, str]
LETTERS = "abcdefghijklmnopqrst"


def preference_data(folder: Path, rows: Sequence[Texts], held_out: Sequence[Texts] = ()) -> PreferenceData:
    """(prompt, chosen, rejected) as `rows.arrow`; those that are held out beside them, if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("rows", rows), ("held_out", held_out)):
        if texts or name == "rows":
            columns = list(zip(*texts, strict=True)) or [(), (), ()]
            kinds = [pa.array(column, pa.string()) for column in columns]
            table = pa.table(dict(zip(("prompt", "chosen", "rejected"), kinds, strict=True)))
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
                pa.ipc.new_file(file, table.schema) as out,
            ):
                # Two record batches: no reader may count on one.
                out.write_table(table, max_chunksize=max(1, (len(texts) + 1) // 2))
    return PreferenceData(folder)


def echoes(letters: str = LETTERS) -> list[Texts]:
    """Pairs in which the letter that is asked for is the better answer, and a fixed word the worse one."""
    return [
        (f"<|im_start|>user\nsay {letter}<|im_end|>\n<|im_start|>assistant\n", f"{letter}{letter}", "never")
        for letter in letters
    ]


Ids = tuple[list[int], list[int]]


def reward_data(folder: Path, pairs: Sequence[Ids], held_out: Sequence[Ids] = ()) -> PreferenceData:
    """(chosen, rejected) token ids as `rows.arrow`; those that are held out beside them, if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = pa.list_(pa.int32())
    for name, rows in (("rows", pairs), ("held_out", held_out)):
        if rows or name == "rows":
            sides = {
                "chosen_ids": [chosen for chosen, _ in rows],
                "rejected_ids": [other for _, other in rows],
            }
            table = pa.table({side: pa.array(ids, kind) for side, ids in sides.items()})
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
                pa.ipc.new_file(file, table.schema) as out,
            ):
                out.write_table(table, max_chunksize=max(1, (len(rows) + 1) // 2))
    return PreferenceData(folder)


def thanked(count: int, seed: int = 0) -> list[Ids]:
    """Pairs of conversations of unequal lengths: of the better one the middle token is 5, of the other one 6."""
    random = Random(seed)
    pairs = []
    for _ in range(count):
        sides = [[random.randrange(10, 400) for _ in range(random.randrange(3, 9))] for _ in range(2)]
        for ids, told in zip(sides, (5, 6), strict=True):
            ids.insert(len(ids) // 2, told)
        pairs.append((sides[0], sides[1]))
    return pairs


def halves(count: int, seed: int) -> list[Texts]:
    """Random pairs that show a preference: letters from the first half of the alphabet before those from the second.

    A model that knows nothing of it prefers about half of them.
    """
    random = Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"

    def some(among: str) -> str:
        return "".join(random.choices(among, k=6))

    return [
        (
            f"<|im_start|>user\n{some(letters)}<|im_end|>\n<|im_start|>assistant\n",
            some(letters[:13]),
            some(letters[13:]),
        )
        for _ in range(count)
    ]


class Says(torch.nn.Module):
    """A model that says the same whatever it is asked: logits of [2B, L, V]."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, **_inputs: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits)


def batch_of(
    ids: list[list[int]], labels: list[list[int]], mask: list[list[int]] | None = None
) -> dict[str, Any]:
    """A batch of pairs as `collate_pairs` makes it: the chosen sequences, then the rejected ones."""
    named = {"input_ids": ids, "labels": labels, "attention_mask": mask or [[1] * len(row) for row in ids]}
    return {name: torch.tensor(rows) for name, rows in named.items()}
