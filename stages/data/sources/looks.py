"""What can be told of a source by looking at its files without reading their rows: `check` must be fast."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tunemill.resources.protocols import CARD
from tunemill.stages.data.sources.names import kind_of, last_part, type_of
from tunemill.stages.data.sources.packings import TAR, TAR_HEAD, WIDE, is_tar, is_wide, packing_of_start
from tunemill.stages.data.sources.splits_by_name import Splits, data_files, names_below, splits_of
from tunemill.stages.data.sources.zips import fault_of_zip
from tunemill.stages.errors import SourceError

SAVED = ("state.json", "dataset_dict.json")
# Entries of a folder that are looked at; in a larger one the data files come up when it is read.
MOST_ENTRIES = 20_000
TYPES = "json, csv, tsv, parquet, arrow or text"
TEXTS = ("json", "csv", "tsv", "text")
# The first bytes of such a file.
PARQUET = b"PAR1"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` has written the folder."""
    return any((folder / name).is_file() for name in SAVED)


def has_card_with_configs(folder: Path) -> bool:
    """Whether the folder's README.md says which files make up which configuration and split."""
    card = folder / CARD
    if not card.is_file():
        return False
    front = re.match(r"---\r?\n(.*?\n)---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    return front is not None and re.search(r"^configs:", front[1], re.MULTILINE) is not None


def unread_extension(shown: str) -> str:
    """What is said of a file whose name does not tell what it holds."""
    suffix = Path(shown).suffix
    return (
        f"{shown} has the extension {suffix!r}, which says nothing about its rows; set ds_type: {TYPES}, or convert it "
        "to one of these"
    )


def fault_of_file(path: Path, ds_type: str | None, *, is_alone: bool) -> str | None:
    """Why a file that is there cannot be read as rows, as far as its name and first bytes tell.

    An empty one is a fault where it `is_alone`.
    """
    if ds_type is None:
        return unread_extension(last_part(str(path)))
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(TAR_HEAD)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if size == 0 and is_alone:
        return f"{path} is empty; it has no rows"
    packing = packing_of_start(start)
    if packing == "zip" and (reason := fault_of_zip(path)) is not None:
        return f"{path}: {reason}"
    if packing is None and ds_type in TEXTS and (is_tar(start) or is_wide(start)):
        return f"{path}: {TAR if is_tar(start) else WIDE}"
    if ds_type == "parquet" and packing is None and not start.startswith(PARQUET):
        return f"{path} is no Parquet file: it does not begin with {PARQUET.decode()}; set ds_type to what it holds"
    return None


def fault_of_folder(folder: Path, ds_type: str | None) -> str | None:
    """Why a folder that is there has no rows, as far as the names in it tell."""
    try:
        if is_saved(folder) or has_card_with_configs(folder):
            return None
        names = names_below(folder, MOST_ENTRIES)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if len(names) >= MOST_ENTRIES:
        return None
    if not names:
        return f"{folder} is an empty folder: it holds no data files"
    if ds_type is None and not any(type_of(name) for name in names):
        others = sorted({Path(name).suffix or name for name in names})[:3]
        return (
            f"{folder} holds no data files, such as .jsonl, .csv, .parquet, .arrow or .txt (it holds "
            f"{', '.join(others)}); name another folder, or set ds_type: {TYPES}"
        )
    try:
        splits_of(data_files(names, ds_type))
    except SourceError as error:
        return str(error)
    return None


def faults_of_source(path: str, files: list[str], ds_type: str | None) -> Iterator[tuple[str, str]]:
    """The key at fault, `path` or `data_files`, and why; nothing of what is remote or not there."""
    names = files or ([path] if kind_of(path) == "local" else [])
    for name in names:
        if not Path(name).is_absolute():
            continue
        fault = None
        # What is neither is missing, or nothing that has rows; that is said where sources are looked for.
        if os.path.isfile(name):  # noqa: PTH113  Path raises for names that are too long
            fault = fault_of_file(Path(name), ds_type or type_of(name), is_alone=len(names) == 1)
        elif os.path.isdir(name):  # noqa: PTH112
            fault = fault_of_folder(Path(name), ds_type)
        if fault is not None:
            yield ("data_files" if files else "path"), fault


def splits_of_source(path: str, ds_type: str | None) -> Splits | None:
    """The files of a local folder by splits; None for what is none, is too large, or has its own way to say it."""
    folder = Path(path)
    if kind_of(path) != "local" or not folder.is_absolute() or not os.path.isdir(path):  # noqa: PTH112
        return None
    try:
        if is_saved(folder) or has_card_with_configs(folder):
            return None
        names = names_below(folder, MOST_ENTRIES)
        return splits_of(data_files(names, ds_type)) if len(names) < MOST_ENTRIES else None
    except (OSError, SourceError):
        # That is said of it as a fault.
        return None
