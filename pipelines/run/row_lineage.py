"""Which rows of a dataset are in a model, and what became of the others: followed through what the artifacts keep.

Stages that declare `traces` say where each of their rows comes from. They are asked of every row, from the rows that
were trained on back to the files.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from tunemill.pipelines.graph.contained import Contained
from tunemill.pipelines.graph.rebuilt import Rebuilt, rebuilt
from tunemill.pipelines.run.team import with_files
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Published, Store
from tunemill.stages.data.rows.bad_rows import REJECTED
from tunemill.stages.errors import RowOf, RowPlace

# How figures are called that say of rows that they were left out.
LEFT_OUT = ("dropped", "held_out", "duplicate", "truncated", "rejected", "skipped")

Ranges = list[tuple[int, int]]
"""First and last numbers, from 1, both inside."""


@dataclass(frozen=True)
class Dropped:
    """Rows that went no further than to a node, and what it says of them."""

    node: str
    why: str
    ranges: Ranges


@dataclass(frozen=True)
class RowLineage:
    """Rows of one file in one model, counted as `unit` says. `problem` says why they could not be followed."""

    file: str
    unit: str = "line"
    trained: Ranges = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    problem: str | None = None

    def of(self, number: int) -> str:
        """What became of one row."""
        if self.problem is not None:
            return self.problem
        if _within(number, self.trained):
            return "in it"
        for part in self.dropped:
            if _within(number, part.ranges):
                return f"dropped by {part.node}: {part.why}"
        return "not read: it is not among the rows that the dataset took"

    def as_json(self) -> dict[str, Any]:
        dropped = [
            {"node": one.node, "why": one.why, "ranges": [list(pair) for pair in one.ranges]}
            for one in self.dropped
        ]
        return {
            "file": self.file,
            "unit": self.unit,
            "trained": [list(pair) for pair in self.trained],
            "dropped": dropped,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class _Step:
    """A node of a lineage with its artifact."""

    found: Rebuilt
    made: Published


def row_lineages(one: Contained, store: Store) -> list[RowLineage]:
    """What became of the rows of a dataset on their way into a model: for each of its files."""
    try:
        steps = {
            step.name: _Step(step, _artifact(step, store)) for step in rebuilt(one.lineage) if _traces(step)
        }
        dataset = next(name for name, step in steps.items() if step.found.item["key"] == one.item["key"])
        above = {name: list(_origins(step, steps, dataset)) for name, step in steps.items()}
        used = _used_by_others(one.lineage, steps)
        return list(_by_file(dataset, steps, above, used))
    except StopIteration:
        problem = (
            "its rows cannot be followed: they are read as a stream, and nothing says which were reached"
        )
        return [RowLineage(str(one.source["path"]), problem=problem)]
    except StoreError as error:
        return [RowLineage(str(one.source["path"]), problem=f"its rows cannot be followed: {error}")]


def _traces(step: Rebuilt) -> bool:
    return step.node is not None and step.node.stage.traces is not None


def _artifact(step: Rebuilt, store: Store) -> Published:
    made = store.lookup(step.item["stage"], step.item["key"])
    if not isinstance(made, Published):
        raise StoreError(f"{step.full_name} is no longer in the store")
    return with_files(store, made)


def _origins(step: _Step, steps: Mapping[str, _Step], dataset: str) -> Iterator[RowPlace | RowOf | None]:
    """Of each row of a node's artifact the place that it says; None for rows of other datasets."""
    node, made = step.found.node, step.made
    assert node is not None and node.stage.traces is not None
    if node.name != dataset and not _is_behind(dataset, step, steps):
        return
    module, _, function = node.stage.traces.partition(":")
    given: dict[str, Any] = {}
    for name, upstream in node.inputs.items():
        declared = node.stage.inputs[name]
        if not all(above in steps for above in upstream):
            continue
        ones = [declared.artifact(steps[above].made.data) for above in upstream]
        given[name] = ones if declared.many else ones[0]
    rows = range(int(made.manifest["metrics"].get("rows", 0)))
    found = getattr(import_module(module), function)(node.config, node.stage.output(made.data), rows, **given)
    yield from found


def _is_behind(dataset: str, step: _Step, steps: Mapping[str, _Step]) -> bool:
    """Whether a node's rows come from the dataset, among others."""
    assert step.found.node is not None
    ups = [up for ups in step.found.node.inputs.values() for up in ups if up in steps]
    return dataset in ups or any(_is_behind(dataset, steps[up], steps) for up in ups)


def _used_by_others(lineage: Mapping[str, Any], steps: Mapping[str, _Step]) -> set[str]:
    """The nodes whose rows go into something that has no rows any more: those were trained on."""
    names = {step.found.item["key"]: name for name, step in steps.items()}
    # What is asked about may have rows itself: then these are those that count.
    used = {names[lineage["key"]]} if lineage["key"] in names else set()
    for item in (lineage, *lineage["ancestors"].values()):
        if item["key"] not in names:
            used |= {
                names[edge["key"]]
                for edges in item["inputs"].values()
                for edge in edges
                if edge["key"] in names
            }
    return used


def _by_file(
    dataset: str,
    steps: Mapping[str, _Step],
    above: Mapping[str, Sequence[RowPlace | RowOf | None]],
    used: set[str],
) -> Iterator[RowLineage]:
    """Follow the rows from the dataset's own places on, in the order of the graph."""
    places = [place for place in above[dataset] if isinstance(place, RowPlace)]
    # Of each node the numbers of the dataset's rows that its own rows are made of.
    reached: dict[str, list[int | None]] = {dataset: list(range(len(places)))}
    order = [name for name in steps if name == dataset or above[name]]
    for name in order[1:]:
        node = steps[name].found.node
        assert node is not None
        inputs, taken = node.inputs, list[int | None]()
        for origin in above[name]:
            up = inputs[origin.input][origin.index] if isinstance(origin, RowOf) else ""
            known = reached.get(up)
            taken.append(known[origin.row] if known is not None and isinstance(origin, RowOf) else None)
        reached[name] = taken
    members = {name: {row for row in reached[name] if row is not None} for name in order}
    trained = set().union(*(members[name] for name in order if name in used))
    files = list(dict.fromkeys(place.file for place in places))
    for file in files:
        mine = {row: place.number for row, place in enumerate(places) if place.file == file}
        # Of each number of the file the node that left it out, and why.
        left = {}
        for row, number in mine.items():
            if row not in trained:
                by = _left_out_by(row, order, members)
                left[number] = (by, _tallies(steps[by]))
        for name in order:
            for number, reason in _rejected(steps[name].made, file, is_only=len(files) == 1):
                left[number] = (name, reason)
        grouped: dict[tuple[str, str], list[int]] = {}
        for number, cause in left.items():
            grouped.setdefault(cause, []).append(number)
        dropped = [
            Dropped(steps[by].found.full_name, why, ranges_of(numbers))
            for (by, why), numbers in grouped.items()
        ]
        in_it = ranges_of(number for row, number in mine.items() if row in trained)
        yield RowLineage(file, places[next(iter(mine))].unit, in_it, dropped)


def _left_out_by(row: int, order: Sequence[str], members: Mapping[str, set[int]]) -> str:
    """The node after the last that has the row."""
    last = max(number for number, name in enumerate(order) if row in members[name])
    return order[min(last + 1, len(order) - 1)]


def _tallies(step: _Step) -> str:
    """What a node counts of rows that it left out; it may be several things, and it does not say which row is which."""
    counted = [
        f"{name} {value}"
        for name, value in step.made.manifest["metrics"].items()
        if name.startswith(LEFT_OUT) and isinstance(value, int) and value
    ]
    return f"left out there ({', '.join(counted)})" if counted else "left out there"


def _rejected(made: Published, file: str, *, is_only: bool) -> Iterator[tuple[int, str]]:
    """The rows that a stage set aside, with its reasons."""
    path = made.data / REJECTED
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            number = entry.get("line", entry.get("number"))
            if isinstance(number, int) and (entry.get("file", file) == file or is_only):
                yield number, str(entry.get("reason", "set aside"))


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Whole numbers as ranges, in order."""
    found: Ranges = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def shown_ranges(ranges: Ranges, most: int = 12) -> str:
    """`1-120, 122` and how many more there are."""
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    more = f" and {len(ranges) - most} more ranges" if len(ranges) > most else ""
    return (", ".join(parts) or "none") + more


def count(ranges: Ranges) -> int:
    """How many numbers are in the ranges."""
    return sum(last - first + 1 for first, last in ranges)


def _within(number: int, ranges: Ranges) -> bool:
    return any(first <= number <= last for first, last in ranges)
