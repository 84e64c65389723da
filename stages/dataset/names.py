"""What the name of a source says: which kind of source it is, and what its files hold. Opens nothing."""

import re
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["hub", "url", "builder", "local"]

HUB_SCHEME = "hf://datasets/"
# `path: json` with `data_files` is the datasets library's way to name files without a folder.
BUILDERS = ("json", "csv", "tsv", "parquet", "arrow", "text")
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
WILDCARDS = re.compile(r"[*?\[]")


def kind_of(path: str) -> Kind:
    """Whether a `path` names a dataset of the Hub, a URL, a kind of file, or something local."""
    if path.startswith(HUB_SCHEME):
        return "hub"
    if URL.match(path):
        return "url"
    return "builder" if path in BUILDERS else "local"


def hub_name(path: str) -> str:
    """`owner/name` of a Hub dataset."""
    return path.removeprefix(HUB_SCHEME).strip("/")


def protocol_of(url: str) -> str:
    """`s3` of `s3://bucket/file`."""
    return url.partition("://")[0].lower()


def is_web(url: str) -> bool:
    """Whether the URL is one of the web, where a name is a single object and `?` begins a query."""
    return protocol_of(url) in ("http", "https")


def has_wildcards(name: str) -> bool:
    """Whether a name is a pattern of names."""
    return not is_web(name) and WILDCARDS.search(name) is not None


def plain_name(name: str) -> str:
    """A name without the query and the fragment of a URL of the web."""
    return urlsplit(name).path if is_web(name) else name


def last_part(name: str) -> str:
    """What a person calls the source: the last part of its name."""
    return PurePosixPath(plain_name(name)).name or name


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


def data_file_names(path: str, data_files: list[str], folder: Path) -> list[str]:
    """`data_files` as the stage takes them: URLs and absolute paths, local patterns spelled out.

    Names are seen from `path` where that is a folder or a URL, else from `folder`, the YAML's. A local name that
    is not there is looked for in `folder` too. Names of files in a dataset of the Hub stay as they are.
    """
    kind = kind_of(path)
    if kind == "hub":
        return data_files
    found: list[str] = []
    for name in data_files:
        if URL.match(name):
            found.append(name)
        elif kind == "url":
            found.append(f"{path.rstrip('/')}/{name}")
        else:
            bases = [folder] if kind == "builder" else [Path(path), folder]
            found += _local(name, bases)
    return found


def _local(name: str, bases: list[Path]) -> list[str]:
    for base in bases:
        place = (base / Path(name).expanduser()).resolve()
        if place.exists():
            return [str(place)]
        if WILDCARDS.search(name):
            start = Path(place.anchor)
            matches = sorted(item for item in start.glob(str(place.relative_to(start))) if item.is_file())
            if matches:
                return [str(item) for item in matches]
    return [str((bases[0] / Path(name).expanduser()).resolve())]
