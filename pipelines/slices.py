"""From a document to the config slices of stages: which key feeds which field, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tunemill.pipelines.document import Document, KeyPath, spell
from tunemill.pipelines.problems import Problem
from tunemill.stages.declaration import ConflictError, EntryMark, SourceMark, StageConfig, YamlMark

ASSET_SCHEME = "asset://"


@dataclass(frozen=True)
class Slice:
    """The values of one config class, and for each field the key that fed it (or would have)."""

    values: dict[str, Any]
    places: dict[str, KeyPath]


def cut(config: type[StageConfig], document: Document, entry: KeyPath | None = None) -> Slice:
    """Cut the slice of a config class out of a document; `entry` is the node's item of `datasets:`.

    Names of local files become absolute paths, seen from the YAML's folder. An `asset://` name becomes an
    edge of the graph instead, so its field stays unset.
    """
    entries = config.marked(EntryMark)
    elsewhere = config.marked(YamlMark)
    sources = config.marked(SourceMark)
    values: dict[str, Any] = {}
    places: dict[str, KeyPath] = {}
    for name in config.model_fields:
        candidates: list[KeyPath] = []
        if name in entries:
            assert entry is not None, f"{config.__name__} reads a dataset entry and was given none"
            candidates.append((*entry, name))
        if name not in entries or entries[name].falls_back:
            candidates.append(tuple(elsewhere[name].path.split(".")) if name in elsewhere else (name,))
        found = [place for place in candidates if _has(document.data, place)]
        places[name] = (found or candidates)[0]
        if found:
            value = _get(document.data, found[0])
            if name in sources:
                value = absolute_source(value, document.folder)
            if value is not None:
                values[name] = value
    return Slice(values, places)


def absolute_source(value: Any, folder: Path) -> Any:
    """A source's name as an absolute path; lists item by item; None for an asset of another pipeline."""
    if isinstance(value, list):
        return [absolute_source(item, folder) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(ASSET_SCHEME):
        return None
    return str((folder / Path(value).expanduser()).resolve())


def validate(config: type[StageConfig], piece: Slice, document: Document) -> StageConfig | list[Problem]:
    """The typed slice, or every problem in it."""
    try:
        return config.model_validate(piece.values)
    except ValidationError as error:
        # Unknown keys inside a group of settings are found, with suggestions, by the walk over all keys.
        errors = [item for item in error.errors(include_url=False) if item["type"] != "extra_forbidden"]
    problems = [problem_of(item, piece.places, document) for item in errors]
    if any(problem.kind == "value" for problem in problems):
        # Conflicts are only looked for among valid values: look again without the wrong ones.
        wrong = {item["loc"][0] for item in errors if item["loc"]}
        rest = Slice({name: value for name, value in piece.values.items() if name not in wrong}, piece.places)
        again = validate(config, rest, document) if len(rest.values) < len(piece.values) else []
        problems += (
            [problem for problem in again if problem.kind == "conflict"] if isinstance(again, list) else []
        )
    return problems


def problem_of(item: ErrorDetails, places: Mapping[str, KeyPath], document: Document) -> Problem:
    """A pydantic error as a problem at its place in the YAML."""
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, ConflictError):
        place = next((places[key] for key in cause.keys if _has(document.data, places[key])), ())
        return Problem(spell(place), *document.position(place), "conflict", str(cause))
    place = places[str(item["loc"][0])] if item["loc"] else ()
    for part in item["loc"][1:]:
        # Pydantic puts the names of union members into `loc`; only parts that are in the data are keys.
        if _has(document.data, (*place, part)):
            place = (*place, part)
    if item["type"] == "missing":
        message = "this key is required and is not given"
    elif cause is not None:
        message = f"{cause} (given: {item['input']!r})"
    else:
        message = f"{item['msg'][0].lower()}{item['msg'][1:]} (given: {item['input']!r})"
    return Problem(spell(place), *document.position(place), "value", message)


def _has(data: Any, place: KeyPath) -> bool:
    for part in place:
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if not in_list and not (isinstance(data, dict) and part in data):
            return False
        data = data[part]
    return True


def _get(data: Any, place: KeyPath) -> Any:
    for part in place:
        data = data[part]
    return data
