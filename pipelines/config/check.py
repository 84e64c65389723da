"""What can be said of keys without touching a source: unknown ones, and those that nobody reads in this graph."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunemill.pipelines.config.document import Document, KeyPath, spell
from tunemill.pipelines.config.graph_config import ENTRY_LISTS
from tunemill.pipelines.config.idle_keys import is_idle
from tunemill.pipelines.config.problems import Kind, Problem
from tunemill.pipelines.config.renamed_keys import REMOVED
from tunemill.pipelines.config.schema import KeyTree, axolotl_keys, key_tree, off_when_false
from tunemill.pipelines.config.slices import cut, problem_at, validate
from tunemill.stages.declaration import EntryMark, RuntimeMark, Stage, StageConfig

# What asks for nothing where nothing is the default.
OFF: tuple[Any, ...] = (None, False, [], {}, "")


def unknown_keys(document: Document) -> Iterator[Problem]:
    """Keys that no stage reads: typos, and keys of Axolotl that are not supported yet."""
    yield from _walk(document.raw, (), key_tree(), document)


def _walk(value: Any, place: KeyPath, tree: KeyTree | None, document: Document) -> Iterator[Problem]:
    if tree is None:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*place, index), tree, document)
    elif place == ("pipeline",) and not isinstance(value, dict) and value is not None:
        message = f"input should be a mapping (given: {value!r})"
        yield Problem("pipeline", *document.position(place), "value", message)
    elif isinstance(value, dict):
        for key, item in value.items():
            here = (*place, key)
            if key in tree:
                yield from _walk(item, here, tree[key], document)
            elif not _asks_for_nothing(key, here, item):
                yield _unknown(str(key), here, tree, document)


def _asks_for_nothing(key: str, place: KeyPath, value: Any) -> bool:
    """A key of Axolotl that is switched off, or that has a note or an error of its own."""
    if value is None and _is_axolotls(place):
        return True
    if len(place) == 1 and (key in REMOVED or is_idle(key, value)):
        return True
    return value is False and key in off_when_false()


def _is_axolotls(place: KeyPath) -> bool:
    return _pattern(place) in axolotl_keys() or _pattern(place[:-1]) + ".*" in axolotl_keys()


def _unknown(key: str, place: KeyPath, tree: KeyTree, document: Document) -> Problem:
    line, column = document.position(place)
    elsewhere = [name for name in _lists_with(key) if len(place) == 3 and name != place[0]]
    if elsewhere:
        message = f"is a key of {' and '.join(elsewhere)}, and is not read under {place[0]}; take it out"
        return Problem(spell(place), line, column, "unread", message)
    if _is_axolotls(place):
        message = "a key of Axolotl that Tunemill does not support yet; take it out or set it to null"
        return Problem(spell(place), line, column, "unsupported", message)
    near = difflib.get_close_matches(key, list(tree), n=1, cutoff=0.6) or difflib.get_close_matches(
        key, _axolotl_siblings(place), n=1, cutoff=0.6
    )
    return Problem(spell(place), line, column, "unknown", "unknown key", near[0] if near else None)


def _lists_with(key: str) -> list[str]:
    """The lists of dataset entries whose entries may have this key."""
    return [name for name in ENTRY_LISTS if key in (key_tree()[name] or ())]


def _pattern(place: KeyPath) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _axolotl_siblings(place: KeyPath) -> list[str]:
    parent = _pattern(place[:-1])
    prefix = f"{parent}." if parent else ""
    return [
        k.removeprefix(prefix) for k in axolotl_keys() if k.startswith(prefix) and "." not in k[len(prefix) :]
    ]


def unread_keys(
    document: Document,
    readers: Mapping[KeyPath, Sequence[type[StageConfig]]],
    others: Sequence[Stage],
    trains: str,
) -> Iterator[Problem]:
    """Keys that some stage reads, but none of this graph does.

    `readers` are the configs of the graph, by the dataset entry that they read (`()`: none); `others` the stages that
    the graph lacks, `trains` the method that it trains by. Keys that ask for nothing are passed over.
    """
    for place, value in _set_keys(document):
        entry = place[:2] if len(place) == 3 else ()
        read = {key for config in readers.get(entry, ()) for key in keys_of(config, entry)}
        would = {stage.name: keys_of(stage.config, entry) for stage in others}
        key = spell(place[len(entry) :])
        missed = [stage for stage in others if key in would[stage.name]]
        if key in read or not missed:
            continue
        defaults = [stage.config.defaults().get(would[stage.name][key]) for stage in missed]
        if any(value == default or (value in OFF and default in OFF) for default in defaults):
            continue
        yield _unread(
            place, document, missed, {stage.name: would[stage.name][key] for stage in missed}, trains
        )


def _unread(
    place: KeyPath, document: Document, missed: Sequence[Stage], fields: Mapping[str, str], trains: str
) -> Problem:
    names = ", ".join(stage.name for stage in missed)
    absent = [stage.idle_without for stage in missed]
    kind: Kind = "idle"
    if all(absent):
        return problem_at(place, document, kind, f"asks for nothing: {absent[0]}")
    if all(fields[stage.name] in stage.config.marked(RuntimeMark) for stage in missed):
        message = f"asks for nothing: it is read by {names}, which this pipeline lacks, and changes no result"
        return problem_at(place, document, kind, message)
    here = (
        "the rows of this entry are not prepared so" if len(place) == 3 else f"this pipeline trains {trains}"
    )
    return problem_at(place, document, "unread", f"is read by {names}; {here}. Take it out")


def _set_keys(document: Document) -> Iterator[tuple[KeyPath, Any]]:
    """Every key that a stage may read by itself: of the top level, below `pipeline`, and of dataset entries."""
    for key, value in document.data.items():
        if key == "pipeline" and isinstance(value, dict):
            yield from (((key, name), item) for name, item in value.items())
        elif key in ENTRY_LISTS and isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, dict):
                    yield from (((key, index, name), item) for name, item in entry.items())
        else:
            yield (key,), value


def keys_of(config: type[StageConfig], entry: KeyPath) -> dict[str, str]:
    """The keys that a config reads of this entry (or, without one, of the top level), each with its field."""
    return config.entry_keys(str(entry[0])) if entry else config.top_keys()


def wrong_values(
    document: Document, others: Sequence[Stage], readers: Sequence[type[StageConfig]]
) -> Iterator[Problem]:
    """Values that are wrong for the stages that the graph lacks, of keys that none of its `readers` reads."""
    read = {key for config in readers for key in config.top_keys()}
    for stage in others:
        if stage.config.marked(EntryMark):
            continue
        found = validate(stage.config, cut(stage.config, document), document)
        for problem in found if isinstance(found, list) else []:
            key = problem.path.partition(".")[0]
            if problem.kind == "value" and key in document.data and key not in read:
                yield problem
