"""Keys that no stage knows: typos, and keys of Axolotl that are not supported yet. Touches no source."""

from collections.abc import Iterator
from typing import Any

from tunemill.pipelines.config.dataset_entries import entry_of
from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.entry_keys import is_known
from tunemill.pipelines.config.graph_config import ENTRY_LISTS
from tunemill.pipelines.config.idle_keys import is_idle
from tunemill.pipelines.config.key_paths import KeyPath, spell
from tunemill.pipelines.config.own_keys import Declared, declared_by
from tunemill.pipelines.config.problems import Problem, given
from tunemill.pipelines.config.refused_keys import REFUSED
from tunemill.pipelines.config.renamed_keys import REMOVED
from tunemill.pipelines.config.schema import (
    Configs,
    KeyTree,
    axolotl_keys,
    grouping_keys,
    key_tree,
    off_when_false,
    tree_of,
)
from tunemill.pipelines.config.slices import cut, validate
from tunemill.stages.choices import nearest
from tunemill.stages.declaration import OwnKeysMark

# So many unknown keys are compared with the known ones; a file with more is no config with a typo.
SUGGESTIONS = 20
WHERE_KEYS_ARE = "`tunemill schema --markdown` lists the keys that there are"


def unknown_keys(document: Document, configs: Configs) -> Iterator[Problem]:
    """Keys that none of `configs` reads, wherever they stand, and what is no mapping where one must be."""
    unknown = 0
    for key, place, tree in _walk(document.raw, (), _known(document, configs)):
        problem = _foreign(key, place, document)
        if problem is None:
            unknown += 1
            near = _nearest(key, place, tree, document) if unknown <= SUGGESTIONS else None
            message = "unknown key" if near else f"unknown key; take it out. {WHERE_KEYS_ARE}"
            problem = problem_at(place, document, "unknown", message, near)
        yield problem
    yield from _no_mappings(document, configs)


def are_all_known(document: Document, configs: Configs) -> bool:
    """Whether `configs` alone say of every key that it may stand where it does."""
    known = _known(document, configs)
    unsaid = (*_walk(document.raw, (), known), *_open(document.raw, known), *_no_mappings(document, configs))
    return not unsaid


def own_keys(document: Document, configs: Configs) -> Iterator[Problem]:
    """What is wrong with the keys that a user's own classes declare, and with their values."""
    for key, declared in _declared(document, configs):
        for name, reason in declared.wrong:
            yield problem_at((key,), document, "value", f"{name}: {reason}")
        for taken in sorted(declared.by.keys() & key_tree().keys()):
            message = (
                f"{declared.by[taken]}: declares {taken}, which is a key already; give its own another name"
            )
            yield problem_at((key,), document, "conflict", message)
        found = validate(declared.model, cut(declared.model, document), document)
        yield from found if isinstance(found, list) else []


def _known(document: Document, configs: Configs) -> KeyTree:
    known = KeyTree(tree_of(configs))
    for _, declared in _declared(document, configs):
        known |= {key: known.get(key) for key in declared.by}
    return known


def _open(value: Any, tree: KeyTree | None) -> Iterator[Any]:
    """Keys below one of which `tree` says that anything may stand there."""
    if isinstance(value, list):
        for item in value:
            yield from _open(item, tree)
    elif isinstance(value, dict) and tree is None:
        yield value
    elif isinstance(value, dict) and tree is not None:
        for key, item in value.items():
            if key in tree:
                yield from _open(item, tree[key])


def _declared(document: Document, configs: Configs) -> Iterator[tuple[str, Declared]]:
    """The keys of the YAML that name classes of one's own, and what these declare."""
    marks = {mark.of: mark for config in configs for mark in config.marked(OwnKeysMark).values()}
    for key, mark in marks.items():
        if key in document.data:
            yield key, declared_by(document.data[key], mark.known, document.folder)


def _walk(value: Any, place: KeyPath, tree: KeyTree | None) -> Iterator[tuple[str, KeyPath, KeyTree]]:
    """Each unknown key, where it stands, and the keys that are known there."""
    if tree is None:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*place, index), tree)
    elif isinstance(value, dict):
        for key, item in value.items():
            here = (*place, key)
            if key in tree:
                yield from _walk(item, here, tree[key])
            elif not _asks_for_nothing(key, here, item):
                yield key, here, tree


def _no_mappings(document: Document, configs: Configs) -> Iterator[Problem]:
    """Whatever stands where the keys of `pipeline` and of what is below it should."""
    for place in grouping_keys(configs):
        value: Any = document.raw
        for part in place:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict):
            message = f"must be a mapping of keys to values (given: {given(value)})"
            yield problem_at(place, document, "value", message)


def _asks_for_nothing(key: str, place: KeyPath, value: Any) -> bool:
    """A key of Axolotl that is switched off, or that has a note or an error of its own."""
    if is_known(place) or (value is None and _is_axolotls(place)):
        return True
    if len(place) == 1 and (key in REMOVED or is_idle(key, value)):
        return True
    return value is False and key in off_when_false()


def _is_axolotls(place: KeyPath) -> bool:
    return _pattern(place) in axolotl_keys() or _pattern(place[:-1]) + ".*" in axolotl_keys()


def _foreign(key: str, place: KeyPath, document: Document) -> Problem | None:
    """What is said of a key that is known elsewhere, or to Axolotl."""
    elsewhere = [name for name in ENTRY_LISTS if key in (key_tree()[name] or ())]
    if entry_of(place) and elsewhere:
        under = place[0] if place[0] in ENTRY_LISTS else spell(place[:-1])
        message = f"is a key of {' and '.join(elsewhere)}, and is not read under {under}; take it out"
        return problem_at(place, document, "unread", message)
    if len(place) == 1 and key in REFUSED:
        return problem_at(place, document, "unsupported", REFUSED[key])
    if _is_axolotls(place):
        message = "a key of Axolotl that Tunemill does not support yet; take it out or set it to null"
        return problem_at(place, document, "unsupported", message)
    return None


def _nearest(key: str, place: KeyPath, tree: KeyTree, document: Document) -> str | None:
    """The known key that may be meant; in an override also an option of the command."""
    override = document.override_at(place)
    options: dict[str, str] = {}
    if override is not None and override.text.startswith("--") and len(place) == 1:
        options = {option.removeprefix("--"): option for option in override.options}
    near = nearest(key, [*tree, *options]) or nearest(key, _axolotl_siblings(place))
    return options.get(near[0], near[0]) if near else None


def _pattern(place: KeyPath) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _axolotl_siblings(place: KeyPath) -> list[str]:
    parent = _pattern(place[:-1])
    prefix = f"{parent}." if parent else ""
    return [
        k.removeprefix(prefix) for k in axolotl_keys() if k.startswith(prefix) and "." not in k[len(prefix) :]
    ]
