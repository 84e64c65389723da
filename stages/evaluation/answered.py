"""Rows with the answer that a model has given: what a generations artifact holds, and what metrics look at."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Answered:
    """A row, its question and the answer to it, in token ids and as text.

    `id` is the same for the same question in any pipeline. Texts keep special tokens, but not the end token of the
    model behind an answer. `stops`: whether the reference ends as an answer of the model does; `finish_reason` says how
    the answer ends.
    """

    row: int
    id: str
    prompt: str
    reference: str
    prediction: str
    prompt_ids: list[int]
    reference_ids: list[int]
    answer_ids: list[int]
    stops: bool
    finish_reason: FinishReason
    group: str | None = None

    @property
    def tokens(self) -> int:
        """How many were generated, the end token among them."""
        return len(self.answer_ids)


def write_answered(rows: Iterable[Answered], file: Path) -> None:
    """One JSON object a line, in the order of the rows."""
    with file.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def read_answered(file: Path) -> Iterator[Answered]:
    """The rows of such a file."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield Answered(**json.loads(line))
