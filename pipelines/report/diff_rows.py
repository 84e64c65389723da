"""What is shown of a row that two evaluations have: what is the same on both sides, and what is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunemill.pipelines.run.figures import count_of, figure

if TYPE_CHECKING:
    from tunemill.pipelines.report.difference import Difference
    from tunemill.stages.evaluation.pairs import Measured, Pair

# Texts of a row that say which it is, and are in the title.
NAMES = ("id", "group")


@dataclass(frozen=True)
class ShownRow:
    """A row by its number, its values on both sides, texts that both share, and texts that differ: name, one, other."""

    title: str
    values: tuple[str, str]
    shared: Sequence[tuple[str, str]]
    differing: Sequence[tuple[str, str, str]]


def shown_row(pair: "Pair", main: "Measured") -> ShownRow:
    """A pair of rows for people. Where the sides have it at other numbers, both are named."""
    one, other = pair
    numbers = f"{one.get('row')}" + (
        "" if one.get("row") == other.get("row") else f" (there {other.get('row')})"
    )
    group = "" if one.get("group") is None else f" of {one['group']}"
    texts = [
        (name, value, str(other.get(name, "")))
        for name, value in one.items()
        if name not in NAMES and isinstance(value, str) and isinstance(other.get(name), str)
    ]
    return ShownRow(
        title=f"row {numbers}{group}",
        values=(value_text(one.get(main.values)), value_text(other.get(main.values))),
        shared=[(name, ours) for name, ours, theirs in texts if ours == theirs],
        differing=[(name, ours, theirs) for name, ours, theirs in texts if ours != theirs],
    )


def value_text(value: object) -> str:
    """A score of one row: right or wrong in words."""
    return ("right" if value else "wrong") if isinstance(value, bool) else figure(value)


def headline(difference: "Difference") -> list[str]:
    """What is compared, over which rows."""
    pairs = difference.pairs
    by = "by what they ask" if pairs.by == "id" else "by their numbers in the same evaluation data"
    lines = [
        f"{difference.other.name} against {difference.one.name}",
        f"{count_of(len(pairs.rows), 'row')} of both, paired {by}",
    ]
    only = ((pairs.only_one, difference.one), (pairs.only_other, difference.other))
    lines += [f"{count_of(count, 'row')} only in {side.name}, left out" for count, side in only if count]
    return lines


def kinds(difference: "Difference") -> list[tuple[str, Sequence["Pair"]]]:
    """Rows that got better, then those that got worse, each with a title."""
    main = difference.main
    words = ("higher", "lower") if main.better == "neither" else ("better", "worse")
    sides = zip(words, (difference.better, difference.worse), strict=True)
    return [(f"{count_of(len(rows), 'row')} {word} by {main.metric}", rows) for word, rows in sides]
