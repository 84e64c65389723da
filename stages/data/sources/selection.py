"""Which rows of a source are meant: its splits, and the slices of them."""

from collections.abc import Callable, Collection, Iterator
from typing import Protocol, Self, TypeVar

from tunemill.stages.data.sources.rows import Row, RowFile, RowSource
from tunemill.stages.data.sources.split import Part, Range
from tunemill.stages.errors import SettingError


def default_parts(source: RowSource, *, held_out: bool = False) -> tuple[Part, ...]:
    """The split that is meant where none is named: the only one, or train, or test where rows are held out."""
    name = default_split(source.splits, held_out=held_out)
    if name is None:
        given = ", ".join(source.splits)
        raise SettingError(f"{source.title} has the splits {given}; set split to one of them")
    return (Part(name, name),)


def default_split(names: Collection[str], *, held_out: bool) -> str | None:
    """The one of these splits that is meant where none is named; None where that cannot be told."""
    meant = "test" if held_out else "train"
    if len(names) == 1:
        return next(iter(names))
    return meant if meant in names else None


def check_splits(parts: tuple[Part, ...], source: RowSource) -> None:
    """Raises SettingError for a split that the source does not have."""
    for part in parts:
        if part.name not in source.splits:
            given = ", ".join(source.splits)
            raise SettingError(
                f"split: {part.text!r}, but {source.title} has no split {part.name!r}, only {given}"
            )


def rows_of(source: RowSource, ranges: list[Range]) -> Iterator[tuple[RowFile, int, Row]]:
    """The rows of the ranges in order, each with its file and its number in it, from 1."""

    def read(file: RowFile, skip: int) -> Iterator[list[Row]]:
        return ([row] for row in file.read(skip))

    for file, number, (row,) in pieces_of(source, ranges, read):
        yield file, number, row


class Piece(Protocol):
    """Rows one behind the other; a slice of them is a piece too."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> Self: ...


P = TypeVar("P", bound=Piece)


def pieces_of(
    source: RowSource, ranges: list[Range], read: Callable[[RowFile, int], Iterator[P]]
) -> Iterator[tuple[RowFile, int, P]]:
    """The rows of the ranges in order, in pieces as `read` gives them: of a file, after so many of its rows.

    Each with its file and the number of its first row there, from 1. Nothing is read behind a range.
    """
    for item in ranges:
        yield from _taken(source.splits[item.name], item.start, item.stop, read)


def _taken(
    files: list[RowFile], start: int, stop: int | None, read: Callable[[RowFile, int], Iterator[P]]
) -> Iterator[tuple[RowFile, int, P]]:
    """The rows `start` up to `stop` (exclusive; None: to the end) of files put one behind the other."""
    before = 0
    for file in files:
        if stop is not None and max(before, start) >= stop:
            return
        first = max(start - before, 0)
        if first:
            size = file.count()
            if size <= first:
                before += size
                continue
        position = before + first
        for piece in read(file, first):
            taken = piece if stop is None else piece[: stop - position]
            if len(taken):
                yield file, position - before + 1, taken
            position += len(taken)
            if position == stop:
                return
        before = position
