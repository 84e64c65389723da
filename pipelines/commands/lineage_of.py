"""`tunemill lineage --of`: which models contain a dataset, and which of its rows are in them."""

from collections.abc import Sequence
from typing import Any

from tunemill.pipelines.commands.listing import listing, stdout
from tunemill.pipelines.commands.options import print_json
from tunemill.pipelines.graph.contained import Asked, Contained, asked_for, models_with, revisions
from tunemill.pipelines.run.row_lineage import RowLineage, count, row_lineages, shown_ranges
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Store

ALL = "all"


def lineage_of(name: str, rows: str | None, store: Store, *, as_json: bool) -> int:
    """Print the models; 1 if no model contains what is named."""
    asked = asked_for(name, store.stat_cache)
    found = models_with(asked, store)
    number = _number(rows)
    followed = {} if rows is None else _followed(found, store)
    if as_json:
        print_json(_document(asked, found, followed, number))
    else:
        _print(name, asked, found, followed, number)
    return 0 if found else 1


def _number(rows: str | None) -> int | None:
    if rows in (None, ALL):
        return None
    assert rows is not None
    if not (rows.isascii() and rows.isdigit() and int(rows) > 0):
        raise StoreError(
            f"--rows {rows}: give the number of a row of the file, from 1, or nothing for all rows"
        )
    return int(rows)


def _followed(found: Sequence[Contained], store: Store) -> dict[tuple[str, str], list[RowLineage]]:
    """The rows of each dataset in each model; models made of the same training data are followed once."""
    known: dict[tuple[str, frozenset[str]], list[RowLineage]] = {}
    followed = {}
    for one in found:
        data = frozenset(one.lineage["ancestors"])
        place = (one.item["key"], data)
        if place not in known:
            known[place] = row_lineages(one, store)
        followed[one.lineage["key"], one.item["key"]] = known[place]
    return followed


def _document(
    asked: Asked,
    found: Sequence[Contained],
    followed: dict[tuple[str, str], list[RowLineage]],
    number: int | None,
) -> dict[str, Any]:
    models = []
    for one in found:
        document = one.as_json()
        if (files := followed.get((one.lineage["key"], one.item["key"]))) is not None:
            document["files"] = [file.as_json() for file in files]
            if number is not None:
                document["row"] = {file.file: file.of(number) for file in files}
        models.append(document)
    return {"of": asked.name, "contents": asked.contents, "revisions": revisions(found), "models": models}


def _print(
    name: str,
    asked: Asked,
    found: Sequence[Contained],
    followed: dict[tuple[str, str], list[RowLineage]],
    number: int | None,
) -> None:
    console = stdout()
    if not found:
        console.print(f"{name}: no model in the store was made from it, as far as lineages say")
        return
    rows = []
    for one in found:
        files = followed.get((one.lineage["key"], one.item["key"]), [])
        cells = [
            ", ".join(one.nodes) or one.lineage["node"],
            one.lineage["digest"][:SHORT],
            one.lineage["started"],
            one.item["node"],
            (one.contents or "not known")[:SHORT],
            one.revision,
        ]
        if not files:
            rows.append([*cells, str(one.item["metrics"].get("rows", ""))])
        rows += [[*cells, _said(file, number)] for file in files]
    columns = ("model", "digest", "made", "dataset", "contents", "revision")
    console.print(listing((*columns, "rows" if number is None else f"row {number}"), rows))
    if not number and followed:
        _print_dropped(found, followed)
    told = revisions(found)
    if asked.contents is not None and (others := [held for held in told if held != asked.contents]):
        state = f"its contents now are {asked.contents[:SHORT]}"
        read = ", ".join(f"{held[:SHORT]} (read {told[held]['read']})" for held in others)
        console.print(f"\n{name}: {state}; models also have {read}", markup=False)


def _said(file: RowLineage, number: int | None) -> str:
    if file.problem is not None:
        return file.problem
    if number is not None:
        return file.of(number)
    left = sum(count(part.ranges) for part in file.dropped)
    return f"{count(file.trained)} of {count(file.trained) + left}: {shown_ranges(file.trained)}"


def _print_dropped(found: Sequence[Contained], followed: dict[tuple[str, str], list[RowLineage]]) -> None:
    rows = [
        [one.lineage["node"], file.file, f"{file.unit} {shown_ranges(part.ranges)}", part.node, part.why]
        for one in found
        for file in followed.get((one.lineage["key"], one.item["key"]), [])
        for part in file.dropped
    ]
    if rows:
        console = stdout()
        console.print()
        console.print(listing(("not in", "file", "rows", "left out by", "why"), rows))
