"""From a document to the config slices of stages: which key feeds which field, and what is wrong with it."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.own_keys import all_code_files, own_names, values_of
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.config.problems import given as given_as
from tunemill.pipelines.config.user_code import code_files, misspelt
from tunemill.pipelines.config.wording import missing, unread, words_of
from tunemill.resources.local import URL, absolute, is_file, is_folder, is_named, is_there, refusal
from tunemill.resources.protocols import HUB_DATASETS, HUB_MODELS
from tunemill.stages.data.sources.names import BUILDERS, COMPRESSED, EXTENSIONS
from tunemill.stages.declaration import (
    BehindMark,
    CodeMark,
    ConflictError,
    EntryMark,
    GraphMark,
    HubMark,
    OwnKeysMark,
    SourceMark,
    StageConfig,
    TextMark,
    YamlMark,
)
from tunemill.stages.own_classes import dotted
from tunemill.stages.text_files import fault_of_code, text_of_file

ASSET_SCHEME = "asset://"
# `owner/name`, or an old name without owner.
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w-][\w.-]*|[A-Za-z0-9][\w-]*")
LONGEST_HUB_NAME = 96
# Names beside a missing one that are compared with it.
COMPARED = 2000
FILE_ENDINGS = (*EXTENSIONS, *COMPRESSED)
# The marks of fields that are made of what another field names.
CODE_MARKS = (CodeMark, BehindMark, OwnKeysMark)


@dataclass(frozen=True)
class Slice:
    """The values of one config class, and for each field the key that fed it (or would have).

    `unreadable`: what is wrong with fields whose file cannot be read; None where it has been said already.
    """

    values: dict[str, Any]
    places: dict[str, KeyPath]
    unreadable: dict[str, str | None] = field(default_factory=dict)


def cut(
    config: type[StageConfig],
    document: Document,
    entry: KeyPath | None = None,
    given: Mapping[str, Any] | None = None,
) -> Slice:
    """Cut the slice of a config class out of a document; `entry` is the node's item of `datasets:`.

    `given` are the values of fields that the graph sets.

    Names of local files become absolute paths, seen from the YAML's folder. An `asset://` name, and that of a model
    of the Hub, becomes an edge of the graph instead, so its field stays unset.
    """
    sources, texts = config.marked(SourceMark), config.marked(TextMark)
    code = {name: mark for kind in CODE_MARKS for name, mark in config.marked(kind).items()}
    values: dict[str, Any] = {}
    places: dict[str, KeyPath] = {}
    unreadable: dict[str, str | None] = {}
    for name in config.model_fields:
        candidates = _candidates(config, code[name].of if name in code else name, entry)
        found = [place for place in candidates if _has(document.data, place)]
        places[name] = (found or candidates)[0]
        if document.broken and any(place in document.broken for place in candidates):
            unreadable[name] = None
            continue
        if not found:
            continue
        value = _get(document.data, found[0])
        if name in code:
            value, reason = _of_code(code[name], value, document)
            unreadable |= {code[name].of: None, name: reason} if reason else {}
        elif name in config.marked(HubMark):
            value = hub_model(value, document.folder) or value
        elif name in sources and sources[name].fetched and hub_model(value, document.folder):
            continue
        elif name in sources:
            within = sources[name].within
            beside = (*found[0][:-1], within) if within else ()
            around = _get(document.data, beside) if beside and _has(document.data, beside) else None
            if not sources[name].remote and isinstance(value, str) and is_elsewhere(value):
                unreadable[name] = (
                    f"{value} is a URL, and {places[name][-1]} must be on this machine; fetch it, and give its local "
                    f"path{', or the owner/name of a model of the Hub' if sources[name].fetched else ''}"
                )
                continue
            value = _whole(value, sources[name], document.folder, around)
        elif name in texts:
            try:
                value = text_of(value, document.folder)
            except (OSError, ValueError) as error:
                unreadable[name] = f"{given_as(value)} is a file that cannot be read as text: {error}"
                continue
        if value is not None:
            values[name] = value
    values |= {name: value for name, value in (given or {}).items() if name in config.marked(GraphMark)}
    return Slice(values, places, unreadable)


def _of_code(
    mark: CodeMark | BehindMark | OwnKeysMark, names: Any, document: Document
) -> tuple[Any, str | None]:
    """The files behind what is named, or the values of the keys that it declares; and which file is no text."""
    if isinstance(mark, BehindMark):
        return mark.find(names, document.folder), None
    if isinstance(mark, CodeMark):
        files = all_code_files(names, mark.known, document.folder)
        return files, _fault_of_files(files) or _fault_of_forms(own_names(names, mark.known), document.folder)
    return values_of(names, mark.known, document.data, document.folder), None


def _whole(value: Any, mark: SourceMark, folder: Path, around: Any) -> Any:
    """What a source field names as absolute paths; where other names may stand too, only the paths."""
    if mark.is_place is None:
        return whole_name(value, folder, mark.remote, around)
    if isinstance(value, list):
        return [_whole(item, mark, folder, around) for item in value]
    return (
        whole_name(value, folder, remote=False) if isinstance(value, str) and mark.is_place(value) else value
    )


def _fault_of_forms(names: Sequence[str], folder: Path) -> str | None:
    """How a name that means no local file is written so that it does."""
    told = ((name, misspelt(name, folder)) for name in names)
    return next((why for name, why in told if why and code_files(dotted(name), folder) is None), None)


def _fault_of_files(files: Sequence[str] | None) -> str | None:
    """Why Python cannot read one of the files; what is no regular file is refused as a source."""
    readable = (file for file in files or () if not refusal(file))
    return next((reason for file in readable if (reason := fault_of_code(Path(file)))), None)


def _candidates(config: type[StageConfig], name: str, entry: KeyPath | None) -> list[KeyPath]:
    """Where in the YAML the field may stand, the first that is there counts."""
    entries, elsewhere = config.marked(EntryMark), config.marked(YamlMark)
    found: list[KeyPath] = []
    if name in entries:
        assert entry is not None, f"{config.__name__} reads a dataset entry and was given none"
        found.append((*entry, name))
    if name not in entries or entries[name].falls_back:
        found.append(tuple(elsewhere[name].path.split(".")) if name in elsewhere else (name,))
    return found


def is_elsewhere(name: str) -> bool:
    """Whether a name is a URL, and not that of another pipeline's result."""
    return URL.match(name) is not None and not name.startswith(ASSET_SCHEME)


def whole_name(value: Any, folder: Path, remote: bool, around: Any = None) -> Any:
    """A source's name as an absolute path; lists item by item; None for an asset of another pipeline.

    With `remote`, URLs stay as they are, what is no local path but could be a dataset of the Hub gets its scheme,
    and a name that `path` and `data_files` give a meaning to, such as `json`, stays too. `around` is the source
    that the name lies in: seen from there if it is a local folder (or from the YAML's, as Axolotl does), and a
    plain name if it is not local.
    """
    if isinstance(value, list):
        return [whole_name(item, folder, remote, around) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(ASSET_SCHEME):
        return None
    if remote and "://" in value:
        return value
    if isinstance(around, str) and around not in BUILDERS:
        outer = whole_name(around, folder, True)
        if "://" in outer:
            return value
        inside, beside = absolute(value, Path(outer)), absolute(value, folder)
        return beside if is_there(beside) and not is_there(inside) else inside
    local = absolute(value, folder)
    if not remote or around is not None or is_named(value, folder):
        return local
    if value in BUILDERS:
        return value
    return f"{HUB_DATASETS}{value}" if may_be_on_hub(value, folder) else local


def hub_model(name: Any, folder: Path) -> str | None:
    """`hf://models/<name>` of what may be a model of the Hub, and is nothing that is here or misspelled.

    Old names without owner look like those of folders: one that is nearly that of a folder here is not meant.
    """
    if not isinstance(name, str):
        return None
    plain = name.removeprefix(HUB_MODELS)
    if plain != name:
        return name if HUB_NAME.fullmatch(plain) else None
    if is_named(name, folder) or not may_be_on_hub(name, folder):
        return None
    is_misspelled = "/" not in name and nearest_beside(folder / name, folders_only=True) is not None
    return None if is_misspelled else f"{HUB_MODELS}{name}"


def nearest_beside(path: Path, *, folders_only: bool = False) -> Path | None:
    """What has the name nearest to a missing one, in the folder in which it is looked for."""
    folder = next((parent for parent in path.parents if is_folder(parent)), None)
    if folder is None or len(path.name) > os.pathconf("/", "PC_NAME_MAX"):
        return None
    wanted = path.relative_to(folder).parts[0]
    try:
        with os.scandir(folder) as entries:
            looked = islice(entries, COMPARED)
            names = [entry.name for entry in looked if not folders_only or entry.is_dir()]
    except OSError:
        return None
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.7)
    return folder / near[0] if near else None


def may_be_on_hub(name: str, folder: Path) -> bool:
    """Whether a name that is no local path may be one of the Hub, and not that of a missing file."""
    if name.lower().endswith(FILE_ENDINGS) or len(name) > LONGEST_HUB_NAME or not HUB_NAME.fullmatch(name):
        return False
    owner, slash, _ = name.partition("/")
    return not (slash and is_folder(folder / owner))


def text_of(value: Any, folder: Path) -> Any:
    """The text of a file where `value` is the path of one, else `value`.

    Raises OSError, SourceError for a file that is no UTF-8, and ValueError for what is there and is no file that ends.
    """
    if not isinstance(value, str) or "\n" in value or "{" in value:
        return value
    path = absolute(value, folder)
    if not is_there(path):
        return value
    if reason := refusal(path):
        raise ValueError(reason)
    return text_of_file(Path(path)) if is_file(path) else value


def validate(config: type[StageConfig], piece: Slice, document: Document) -> StageConfig | list[Problem]:
    """The typed slice, or every problem in it."""
    problems = [
        problem_at(piece.places[name], document, "value", text)
        for name, text in piece.unreadable.items()
        if text is not None
    ]
    found = _validated(config, piece.values)
    if isinstance(found, StageConfig):
        return problems if piece.unreadable else found
    found = [item for item in found if not _is_of(item, set(piece.unreadable))]
    wrong = {item["loc"][0] for item in found if item["loc"]}
    if wrong:
        # Conflicts are only looked for among valid values: look again without the wrong ones. A conflict with one of
        # those would follow from their being left out.
        rest = {name: value for name, value in piece.values.items() if name not in wrong}
        again = _validated(config, rest)
        found += (
            [] if isinstance(again, StageConfig) else [item for item in again if not _follows(item, wrong)]
        )
    return problems + problems_of(found, config, piece.places, document)


def _validated(config: type[StageConfig], values: Mapping[str, Any]) -> StageConfig | list[ErrorDetails]:
    try:
        return config.model_validate(values)
    except ValidationError as error:
        return error.errors(include_url=False)


def _is_of(item: ErrorDetails, fields: set[int | str]) -> bool:
    """Whether an error is one of these fields, or compares one of them with others."""
    cause = item.get("ctx", {}).get("error")
    return bool(fields & set(cause.keys if isinstance(cause, ConflictError) else item["loc"][:1]))


def _follows(item: ErrorDetails, wrong: set[int | str]) -> bool:
    cause = item.get("ctx", {}).get("error")
    return not isinstance(cause, ConflictError) or bool(wrong & set(cause.keys))


def problems_of(
    items: Sequence[ErrorDetails],
    config: type[StageConfig],
    places: Mapping[str, KeyPath],
    document: Document,
) -> list[Problem]:
    """Pydantic's errors as problems at their places in the YAML: one for each value."""
    found: list[Problem] = []
    of_values: dict[KeyPath, list[ErrorDetails]] = {}
    # Where a value is of one kind and wrong in itself, it does not matter that it is not of another kind.
    explained: set[KeyPath] = set()
    for item in items:
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ConflictError):
            compared = [places[key] for key in cause.keys]
            place = next((place for place in compared if _has(document.data, place)), compared[0])
            of_value = len(cause.keys) == 1
            if of_value:
                explained.add(place)
            found.append(
                problem_at(place, document, "conflict", str(cause), cause.suggestion, of_value=of_value)
            )
            continue
        assert item["loc"], f"an error of a whole slice that is no conflict: {item}"
        place = places[str(item["loc"][0])]
        for part in item["loc"][1:]:
            # Pydantic puts the names of union members into `loc`; only parts that are in the data are keys.
            if _has(document.data, (*place, part)):
                place = (*place, part)
        if unread(item["type"]):
            message = "this key is not read here; take it out"
            found.append(problem_at(place, document, "unread", message))
        elif missing(item["type"]):
            found.append(_missing(item, place, config, document))
        else:
            of_values.setdefault(place, []).append(item)
    for place, several in of_values.items():
        if place in explained:
            continue
        words = words_of(several)
        found.append(problem_at(place, document, "value", words.message, words.suggestion))
    return found


def _missing(item: ErrorDetails, place: KeyPath, config: type[StageConfig], document: Document) -> Problem:
    """What is said of a key that must be there: nothing is, or it is there and has no value."""
    field = config.model_fields.get(str(item["loc"][0])) if len(item["loc"]) == 1 else None
    what = f" ({field.description})" if field is not None and field.description else ""
    name = str(item["loc"][-1])
    inside = place if field is not None or _has(document.data, (*place, item["loc"][-1])) else (*place, name)
    if _has(document.raw, inside):
        place = inside
        message = f"has no value, or null, and it needs one{what}; write `{place[-1]}: VALUE`"
    elif field is not None:
        message = f"this key is required and is not given{what}; add `{place[-1]}: VALUE`"
    else:
        message = f"{name} is required here and is not given; add `{name}: VALUE`"
    return problem_at(place, document, "value", message)


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
