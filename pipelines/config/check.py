"""Keys that no stage knows: typos, and keys of Axolotl that are not supported yet. Touches no source."""

import difflib
from collections.abc import Iterator
from typing import Any

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.graph_config import ENTRY_LISTS
from tunemill.pipelines.config.idle_keys import is_idle
from tunemill.pipelines.config.key_paths import KeyPath, spell
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.config.renamed_keys import REMOVED
from tunemill.pipelines.config.schema import KeyTree, axolotl_keys, key_tree, off_when_false


def unknown_keys(document: Document) -> Iterator[Problem]:
    """Keys that no stage reads, wherever in the document they stand."""
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
    elsewhere = [name for name in ENTRY_LISTS if key in (key_tree()[name] or ())]
    if len(place) == 3 and place[0] in ENTRY_LISTS and elsewhere:
        message = f"is a key of {' and '.join(elsewhere)}, and is not read under {place[0]}; take it out"
        return Problem(spell(place), line, column, "unread", message)
    if _is_axolotls(place):
        message = "a key of Axolotl that Tunemill does not support yet; take it out or set it to null"
        return Problem(spell(place), line, column, "unsupported", message)
    near = difflib.get_close_matches(key, list(tree), n=1, cutoff=0.6) or difflib.get_close_matches(
        key, _axolotl_siblings(place), n=1, cutoff=0.6
    )
    return Problem(spell(place), line, column, "unknown", "unknown key", near[0] if near else None)


def _pattern(place: KeyPath) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _axolotl_siblings(place: KeyPath) -> list[str]:
    parent = _pattern(place[:-1])
    prefix = f"{parent}." if parent else ""
    return [
        k.removeprefix(prefix) for k in axolotl_keys() if k.startswith(prefix) and "." not in k[len(prefix) :]
    ]
