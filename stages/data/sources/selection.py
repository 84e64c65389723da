"""Which rows of a source are meant: its splits, and the slices of them."""

from collections.abc import Collection, Iterator

from tunemill.stages.data.sources.rows import Row, RowFile, RowSource, taken
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
    """The rows of the ranges in order, each with its file and its number in it."""
    for item in ranges:
        yield from taken(source.splits[item.name], item.start, item.stop)
