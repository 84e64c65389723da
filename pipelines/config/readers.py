"""Keys that some stage reads, but none of this graph: an error, or a note where they ask for nothing here."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mode
from typing import Any

from tunemill.pipelines.config.dataset_entries import dataset_entries, entry_of, group_of
from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.graph_config import ENTRY_LISTS
from tunemill.pipelines.config.key_paths import KeyPath, lies_in, spell
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.config.slices import cut, validate
from tunemill.stages.declaration import EntryMark, RuntimeMark, Stage, StageConfig

# What asks for nothing where nothing is the default.
OFF: tuple[Any, ...] = (None, False, [], {}, "")
ANY_TEXT: tuple[Any, ...] = (str, str | None)


def are_all_read(document: Document, readers: Mapping[KeyPath, Sequence[type[StageConfig]]]) -> bool:
    """Whether `readers` read every key; see `unread_keys`."""
    everywhere = readers[()]
    return all(
        any(spell(place[len(entry) :]) in _keys_of(config, entry) for config in readers.get(entry, ()))
        for place, _ in _set_keys(document, everywhere)
        for entry in (entry_of(place),)
    )


def unread_keys(
    document: Document,
    readers: Mapping[KeyPath, Sequence[type[StageConfig]]],
    stages: Sequence[Stage],
    trains: str,
) -> Iterator[Problem]:
    """What is said of each key that one of `stages` reads and that none of the graph's does.

    `readers` are the configs of the graph, by the dataset entry that they read (`()`: the top level); `trains` is the
    method that it trains by. Keys at the default that they would have, whoever reads them, are passed over.
    """
    for place, value in _set_keys(document, [stage.config for stage in stages]):
        entry = entry_of(place)
        key = spell(place[len(entry) :])
        if any(key in _keys_of(config, entry) for config in readers.get(entry, ())):
            continue
        fields = [(stage, keys[key]) for stage in stages if key in (keys := _keys_of(stage.config, entry))]
        defaults = [stage.config.defaults().get(field) for stage, field in fields]
        # One stage's default may ask another stage for something.
        is_off = value in OFF and any(default in OFF for default in defaults)
        if is_off or all(value == default for default in defaults):
            continue
        if fields:
            yield _unread(place, document, fields, trains)


def wrong_values(
    document: Document, stages: Sequence[Stage], readers: Sequence[type[StageConfig]]
) -> Iterator[Problem]:
    """Values that are wrong for `stages`, which the graph lacks, of keys that none of its `readers` reads."""
    # A reader that takes any text says nothing of a value.
    read = {
        key
        for config in readers
        for key, field in config.top_keys().items()
        if config.model_fields[field].annotation not in ANY_TEXT
    }
    unread = {spell(place) for place, _ in _set_keys(document, [stage.config for stage in stages])} - read
    for stage in stages:
        # Most graphs lack stages, and few documents have a key for one of these: their models need not be built.
        at_stake = unread & stage.config.top_keys().keys()
        if stage.config.marked(EntryMark) or not at_stake:
            continue
        found = validate(stage.config, cut(stage.config, document), document)
        for problem in found if isinstance(found, list) else []:
            if problem.kind == "value" and any(
                problem.path == key or lies_in(problem.path, key) for key in at_stake
            ):
                yield problem


def _unread(place: KeyPath, document: Document, fields: Sequence[tuple[Stage, str]], trains: str) -> Problem:
    names = ", ".join(stage.name for stage, _ in fields)
    absent = [stage.idle_without for stage, _ in fields]
    if all(absent):
        # What most of its readers lack is true of all that have the key; one alone may lack more.
        return problem_at(place, document, "idle", f"asks for nothing: {mode(absent)}")
    if all(field in stage.config.marked(RuntimeMark) for stage, field in fields):
        message = f"asks for nothing: it is read by {names}, which this pipeline lacks, and changes no result"
        return problem_at(place, document, "idle", message)
    message = f"is read by {names}; this pipeline trains {trains}. Take it out"
    return problem_at(place, document, "unread", message)


def _set_keys(document: Document, configs: Sequence[type[StageConfig]]) -> Iterator[tuple[KeyPath, Any]]:
    """Every key that a config may read by itself: of the top level, of groups of keys, and of dataset entries."""
    groups = {key.rpartition(".")[0] for config in configs for key in config.top_keys()}
    for key, value in document.data.items():
        if key in groups and isinstance(value, dict):
            yield from (((key, name), item) for name, item in value.items())
        elif key not in ENTRY_LISTS or not isinstance(value, list):
            yield (key,), value
    for place, entry in dataset_entries(document.data):
        yield from (((*place, name), item) for name, item in entry.items()) if isinstance(entry, dict) else ()


def _keys_of(config: type[StageConfig], entry: KeyPath) -> dict[str, str]:
    """The keys that a config reads of this entry (or, without one, of the top level), each with its field."""
    return config.entry_keys(group_of(entry)) if entry else config.top_keys()
