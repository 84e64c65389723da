"""What the name of a source says: which kind of source it is, and what its files hold. Opens no file."""

import re
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
    """What a pattern of absolute paths names and is no folder, sorted; the pattern itself where there is nothing."""
    place = Path(pattern)
    if not place.is_absolute() or not WILDCARDS.search(pattern):
        return [pattern]
    try:
        if place.exists():
            return [pattern]
        found = Path(place.anchor).glob(str(place.relative_to(place.anchor)))
        return sorted(str(item) for item in found if not item.is_dir()) or [pattern]
    except OSError:
        # It is too long for a path; reading it will say so.
        return [pattern]
