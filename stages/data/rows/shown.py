"""Prepared rows for a person to look at: tokens in pieces of one role, each trained on, scored or masked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

# What training does with tokens: learns to write them, learns what they are worth, or only reads them.
Mark = Literal["trained", "scored", "masked"]
# Of a text in a table of examples.
SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class ShownTokens:
    """Tokens of one role and mark. `before` are those in front of them, which tell where a token's text begins."""

    role: str
    mark: Mark
    ids: tuple[int, ...]
    before: tuple[int, ...] = ()


@dataclass(frozen=True)
class ShownRow:
    """One row; `number` is that of the row in its source, from 1."""

    number: int
    pieces: tuple[ShownTokens, ...]


def shown_tokens(role: str, mark: Mark, ids: Sequence[int], start: int, end: int) -> ShownTokens:
    """The tokens `start` to `end` of a row."""
    return ShownTokens(role, mark, tuple(ids[start:end]), tuple(ids[max(0, start - 1) : start]))


def beginning(text: str) -> str:
    """A text, cut where it is too long for a table."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def first_rows(path: Path, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` rows of a file."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        for index in range(reader.num_record_batches):
            if count <= 0:
                return
            batch = reader.get_batch(index).slice(0, count)
            yield from batch.to_pylist()
            count -= batch.num_rows
