"""What the name of a source says: which kind of source it is, and what its files hold. Opens no file."""

# ruff: noqa: PTH112, PTH118

import itertools
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from tunemill.resources.protocols import HUB_DATASETS, WILDCARDS, protocol_of, without_credentials

Kind = Literal["hub", "url", "builder", "local"]

# `path: json` with `data_files` is the datasets library's way to name files without a folder.
BUILDERS = ("json", "csv", "parquet", "arrow", "text")
EXTENSIONS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
# Not looked at to unpack a file (its first bytes tell), only to see the extension before them.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
# Files that the datasets library never takes for data.
BESIDE_DATA = frozenset({
    "README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "dataset_dict.json",
})  # fmt: skip
# What systems leave in folders and archives. A `._name` holds what macOS knows of the file `name`.
LITTER = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"})
MAC_FOLDER, MAC_SHADOW = "__MACOSX", "._"
# What a pattern may lead through.
MOST_ENTRIES = 50_000
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def kind_of(path: str) -> Kind:
    """Whether a `path` names a dataset of the Hub, a URL, a kind of file, or something local."""
    if path.startswith(HUB_DATASETS):
        return "hub"
    if URL.match(path):
        return "url"
    return "builder" if path in BUILDERS else "local"


def hub_name(path: str) -> str:
    """`owner/name` of a Hub dataset."""
    return path.removeprefix(HUB_DATASETS).strip("/")


def is_web(url: str) -> bool:
    """Whether the URL is one of the web, where a name is a single object and `?` begins a query."""
    return protocol_of(url) in ("http", "https")


def has_wildcards(name: str) -> bool:
    """Whether a name is a pattern of names."""
    return not is_web(name) and WILDCARDS.search(name) is not None


def plain_name(name: str) -> str:
    """A name without the query and the fragment of a URL of the web, and without passwords of any URL."""
    return urlsplit(name).path if is_web(name) else without_credentials(name)


def last_part(name: str) -> str:
    """What a person calls the source: the last part of its name."""
    return PurePosixPath(plain_name(name)).name or without_credentials(name)


def type_of(name: str) -> str | None:
    """What a file holds, going by its extension; None where that says nothing."""
    path = PurePosixPath(plain_name(name).lower())
    if path.suffix in COMPRESSED:
        path = path.with_suffix("")
    return EXTENSIONS.get(path.suffix)


def is_litter(name: str) -> bool:
    """Whether a file (or, ending in a slash, a folder) is what macOS or Windows leave beside those that are meant."""
    *folders, file = name.split("/")
    return MAC_FOLDER in folders or file.startswith(MAC_SHADOW) or file.lower() in LITTER


def is_left_alone(name: str) -> bool:
    """Whether a file (or, ending in a slash, a folder) is none of data: hidden, of a tool's, or litter.

    Folders of tools begin with two underscores, as `__pycache__`.
    """
    *folders, file = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in (*folders, file))
    return hidden or any(folder.startswith("__") for folder in folders) or is_litter(name)


def labels(names: list[str]) -> list[str]:
    """Names for several files by which they can be told apart: as few of the last parts as are needed.

    A single file needs none: "". Names must differ.
    """
    assert len(set(names)) == len(names), "the same file twice"
    if len(names) == 1:
        return [""]
    parts = [plain_name(name).strip("/").split("/") for name in names]
    for length in range(1, max(len(item) for item in parts) + 1):
        found = ["/".join(item[-length:]) for item in parts]
        if len(set(found)) == len(found):
            return found
    return [f"{number}/{item[-1]}" for number, item in enumerate(parts, 1)]


def matches(pattern: str) -> list[str]:
    """What a pattern of absolute paths names and is no folder, sorted; the pattern itself where there is nothing.

    `**` stands for any folders, at the end for every file below. A part that is the name of something there is that
    name, whatever it could stand for; litter is named by no pattern. Raises ValueError for a pattern that leads through
    too many files to look at.
    """
    if not Path(pattern).is_absolute() or not WILDCARDS.search(pattern) or os.path.lexists(pattern):
        return [pattern]
    entries = itertools.count(1)
    found: set[str] = set()
    pending = [(os.sep, Path(pattern).parts[1:])]
    while pending:
        folder, (part, *rest) = pending.pop()
        place = os.path.join(folder, part)
        is_there = os.path.lexists(place)
        if is_there or not WILDCARDS.search(part):
            if rest:
                pending.append((place, tuple(rest)))
            elif is_there and not os.path.isdir(place):
                found.add(place)
            continue
        if part == "**" and rest:
            pending.append((folder, tuple(rest)))
        for entry in _entries(folder):
            if next(entries) > MOST_ENTRIES:
                raise ValueError(
                    f"the pattern {pattern} leads through more than {MOST_ENTRIES} files and folders; begin it with a "
                    "folder that holds only data"
                )
            is_match = part == "**" or fnmatchcase(entry.name, part)
            if is_match and not rest and not _is_folder(entry):
                found.add(entry.path)
            elif part == "**" and not entry.is_symlink() and _is_folder(entry):
                pending.append((entry.path, (part, *rest)))
            elif is_match and part != "**" and rest and _is_folder(entry):
                pending.append((entry.path, tuple(rest)))
    return sorted(found) or [pattern]


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads in a circle.
        return False


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    """What a folder holds but litter; nothing where it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            yield from (entry for entry in listing if entry.name != MAC_FOLDER and not is_litter(entry.name))
    except (OSError, ValueError):
        # It is not there, or too long for a path; reading it will say so.
        return
