"""Rows as the readers give them, and the parts of a source that rows come from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload


class Row(NamedTuple):
    """One row: its line in a file of lines, else its number; both from 1. `value` or `problem` is set.

    `text` is what was read of a row with a problem.
    """

    number: int
    value: Any = None
    problem: str | None = None
    text: str = ""


@dataclass(frozen=True)
class JoinedTexts(Sequence[bytes]):
    """Texts behind each other in one, and the length of each: a thousand of them cost as much to handle as a few."""

    joined: bytes
    lengths: Sequence[int]

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> "JoinedTexts":
        return texts if isinstance(texts, cls) else cls(b"".join(texts), list(map(len, texts)))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[bytes]:
        end = 0
        for length in self.lengths:
            end += length
            yield self.joined[end - length : end]

    @overload
    def __getitem__(self, part: int) -> bytes: ...

    @overload
    def __getitem__(self, part: slice) -> "JoinedTexts": ...

    def __getitem__(self, part: int | slice) -> "bytes | JoinedTexts":
        if isinstance(part, int):
            return self[part:][:1].joined if part >= 0 else self[len(self) + part]
        first, stop, step = part.indices(len(self))
        assert step == 1, "texts are taken out one behind the other"
        start = sum(self.lengths[:first])
        lengths = self.lengths[first:stop]
        return JoinedTexts(self.joined[start : start + sum(lengths)], lengths)


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

    `title` is what a person calls it, `kind` what it is, `commit` and `licence` those of a Hub dataset.
    """

    title: str
    kind: str
    splits: dict[str, list[RowFile]]
    commit: str | None = None
    licence: str | None = None
