"""Judged answers as the data stages write them, and what a base model says of them."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from support.tiny_model import Heard, workspace
from tunemill.stages.artifacts import Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.training.reference_logprobs.body import reference_logprobs
from tunemill.stages.training.reference_logprobs.config import ReferenceConfig

Judged = tuple[str, str, bool]
COLUMNS = ("prompt", "completion", "label")
LETTERS = "ABCDEFGH"


def rated_data(folder: Path, rows: Sequence[Judged], held_out: Sequence[Judged] = ()) -> PreferenceData:
    """(prompt, completion, label) as `rows.arrow`; those that are held out beside them, if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, given in (("rows", rows), ("held_out", held_out)):
        if given or name == "rows":
            columns = list(zip(*given, strict=True)) or [(), (), ()]
            kinds = (pa.string(), pa.string(), pa.bool_())
            table = pa.table({
                column: pa.array(values, kind)
                for column, values, kind in zip(COLUMNS, columns, kinds, strict=True)
            })  # fmt: skip
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
                pa.ipc.new_file(file, table.schema) as out,
            ):
                # Two record batches: no reader may count on one.
                out.write_table(table, max_chunksize=max(1, (len(given) + 1) // 2))
    return PreferenceData(folder)


def said_by(folder: Path, base: Model, data: PreferenceData, **settings: Any) -> ReferenceLogProbs:
    """What the base says of the answers."""
    out = workspace(folder)
    reference_logprobs(ReferenceConfig(**settings), base, data, out, Heard().report)
    return ReferenceLogProbs(out.data)


def signs(count: int, skip: int = 0) -> list[tuple[str, str, str]]:
    """(prompt, right answer, wrong answer): whether the last of three letters is in the first half of `LETTERS`.

    There are 512, in an order drawn once: the first so many behind those that are skipped.
    """
    texts = ["".join(letters) for letters in itertools.product(LETTERS, repeat=3)]
    random.Random(0).shuffle(texts)
    first = LETTERS[: len(LETTERS) // 2]
    return [
        (f"{text}=", *(("+", "-") if text[-1] in first else ("-", "+")))
        for text in texts[skip : skip + count]
    ]


def judged(count: int, skip: int = 0) -> list[Judged]:
    """One answer to each prompt of `signs`, about half of them right."""
    draw = random.Random(skip)
    rows = []
    for prompt, right, wrong in signs(count, skip):
        is_right = draw.random() < 0.5
        rows.append((prompt, right if is_right else wrong, is_right))
    return rows


def unequal(count: int, skip: int = 0) -> list[Judged]:
    """Judged answers whose prompts and answers have unequal lengths."""
    return [
        (prompt * (1 + i % 3), answer * (1 + i % 4), label)
        for i, (prompt, answer, label) in enumerate(judged(count, skip))
    ]
