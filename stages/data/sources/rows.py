"""Rows as the readers give them, and the parts of a source that rows come from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One row: its line in a file of lines, else its number; both from 1. `value` or `problem` is set.

    `text` is what was read of a row with a problem.
    """

    number: int
    value: Any = None
    problem: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Block:
    """Rows one behind the other: each is its JSON text in UTF-8, or a Row with the problem that it has.

    `numbers` are what Row.number is, `is_whole` says whether there are texts only.
    """

    numbers: Sequence[int]
    rows: Sequence[bytes | Row]
    is_whole: bool

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> "Block":
        return replace(self, numbers=self.numbers[part], rows=self.rows[part])


@dataclass(frozen=True)
class RowFile:
    """A file or a table of rows.

    `name` is seen from the source ("" where it is the only one), `shown` is for messages, `unit` says what the
    rows' numbers count: line or row. `read` yields the rows after the first so many, `count` counts them all.
    `blocks` yields them as their JSON texts, where that goes faster than by way of their values.
    """

    name: str
    shown: str
    unit: str
    read: Callable[[int], Iterator[Row]]
    count: Callable[[], int]
    blocks: Callable[[int], Iterator[Block]] | None = None


@dataclass(frozen=True)
class RowSource:
    """Everything that a config names: the files of each split, in order.

    `title` is what a person calls it, `kind` what it is, `commit` that of a Hub dataset.
    """

    title: str
    kind: str
    splits: dict[str, list[RowFile]]
    commit: str | None = None
