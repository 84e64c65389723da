"""Which files of a folder are which split, going by their names: the rule of the `datasets` library.

The library's own function goes through the folder by patterns, takes a second to import, and does not say why.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from tunemill.stages.data.sources.names import BESIDE_DATA, is_left_alone, type_of
from tunemill.stages.errors import SourceError

# Ways to tell splits apart; the first that holds for any file is the rule for all of them.
KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
APART = "[-._ 0-9]"
IN_FOLDER = {
    split: re.compile(rf"(?:.*{APART})?({'|'.join(words)})(?:{APART}.*)?", re.DOTALL)
    for split, words in KEYWORDS.items()
}
IN_FILE = {
    split: re.compile(rf"(?:.*{APART})?({'|'.join(words)}){APART}.*", re.DOTALL)
    for split, words in KEYWORDS.items()
}
SHARD = re.compile(r"data/([^/]+)-[0-9]{5}-of-[0-9]{5}[^/]*\.[^/]*")
SPLIT = re.compile(r"\w+(\.\w+)*")
LOGS = ".eval"
# The files of one task of an agent.
TASK = ("task.toml", "instruction.md")
LISTED = 3


@dataclass(frozen=True)
class Splits:
    """Split -> its files, each with what in its name says so (empty where no name says anything), in order.

    `left_out` are data files that are in no split.
    """

    files: dict[str, dict[str, str]]
    left_out: tuple[str, ...] = ()


def splits_of(names: Iterable[str]) -> Splits:
    """The splits of files, named as seen from their folder. Where no name speaks of any, all are `train`.

    Raises SourceError for a file whose split has no name that a split may have.
    """
    ordered = sorted(names)
    rules = (
        _shards(ordered),
        _endings(ordered),
        _keywords(ordered, _word_of_folder),
        _keywords(ordered, _word_of_file),
    )
    files = next((rule for rule in rules if rule), {"train": dict.fromkeys(ordered, "")} if ordered else {})
    taken = {name for split in files.values() for name in split}
    return Splits(files, tuple(name for name in ordered if name not in taken))


def data_files(names: Iterable[str], ds_type: str | None) -> list[str]:
    """The names that hold rows: those of the kind that is asked for, else those of any kind.

    Where a kind is asked for and no extension speaks of any, all files are taken to be of it.
    """
    given = list(names)
    if ds_type is None:
        return [name for name in given if type_of(name) is not None]
    silent = all(type_of(name) is None for name in given)
    return given if silent else [name for name in given if type_of(name) == ds_type]


def names_below(folder: Path, most: int | None = None) -> list[str]:
    """The files below a folder, as seen from it, without what lies beside data; at most so many. Follows no folders.

    Raises OSError where the folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise error

    def found() -> Iterator[str]:
        for parent, folders, names in os.walk(folder, onerror=refuse):
            inside = Path(parent).relative_to(folder)
            folders[:] = sorted(name for name in folders if not is_left_alone(f"{name}/"))
            for name in names:
                path = Path(parent) / name
                if name not in BESIDE_DATA and not is_left_alone(name) and path.is_file():
                    yield (inside / name).as_posix()

    return list(islice(found(), most))


def told(splits: Splits, read: Collection[str]) -> str | None:
    """Which files are which split and why, which of them are `read`, and how others are; None where all are one."""
    if not splits.left_out and list(splits.files) == ["train"] and not any(splits.files["train"].values()):
        return None
    parts = [f"{split} is {_listed(_with_words(files))}" for split, files in splits.files.items()]
    if splits.left_out:
        parts.append(f"no split is {_listed(splits.left_out)}")
    shown = ", ".join(split for split in splits.files if split in read) or "none"
    return (
        f"names tell its splits apart, by the rule of the datasets library: {'; '.join(parts)}. Read: {shown}. `split` "
        f"names others, and `data_files: {_pattern(splits)}` reads them all"
    )


def surprise(splits: Splits, read: Collection[str]) -> str | None:
    """As `told`, where files are not read and their names do not plainly say so."""
    others = [
        name
        for split, files in splits.files.items()
        if split not in read
        for name in files
        if not is_plain(name, split)
    ]
    return told(splits, read) if others or splits.left_out else None


def is_plain(name: str, split: str) -> bool:
    """Whether everybody sees which split a file is: by its first word, by a folder's whole name, or as a shard."""
    *folders, file = name.split("/")
    words = KEYWORDS.get(split, ())
    first = re.split(APART, file, maxsplit=1)[0]
    return first in words or bool(set(folders) & set(words)) or SHARD.fullmatch(name) is not None


def _shards(names: list[str]) -> dict[str, dict[str, str]]:
    """`data/NAME-00000-of-00002.parquet`: the split NAME, the usual ones first."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = SHARD.fullmatch(name)
        if match is None:
            continue
        if SPLIT.fullmatch(match[1]) is None:
            raise SourceError(
                f"{name} is named as a part of the split {match[1]!r}, which is no name of one: letters, digits, _ and "
                "dots between them; rename it, or name it in data_files"
            )
        found.setdefault(match[1], {})[name] = ""
    usual = [split for split in KEYWORDS if split in found]
    return {split: found[split] for split in [*usual, *sorted(found.keys() - set(usual))]}


def _endings(names: list[str]) -> dict[str, dict[str, str]]:
    logs = {name: f"its ending {LOGS}" for name in names if name.endswith(LOGS)}
    tasks = {name: "its name" for name in names if name.split("/")[-1] in TASK}
    return {"logs": logs} if logs else {"test": tasks} if tasks else {}


def _keywords(names: list[str], word: Callable[[str, str], str]) -> dict[str, dict[str, str]]:
    found = {split: {name: why for name in names if (why := word(name, split))} for split in KEYWORDS}
    return {split: files for split, files in found.items() if files}


def _word_of_folder(name: str, split: str) -> str:
    matches = (IN_FOLDER[split].fullmatch(folder) for folder in name.split("/")[:-1])
    return next((f"`{match[1]}` in its folder's name" for match in matches if match), "")


def _word_of_file(name: str, split: str) -> str:
    match = IN_FILE[split].fullmatch(name.split("/")[-1])
    return f"`{match[1]}` in its name" if match else ""


def _with_words(files: dict[str, str]) -> list[str]:
    return [f"{name} ({why})" if why else name for name, why in files.items()]


def _pattern(splits: Splits) -> str:
    """The patterns of all files, whatever split they are."""
    names = [*splits.left_out, *(name for files in splits.files.values() for name in files)]
    folders = "**/" if any("/" in name for name in names) else ""
    endings = dict.fromkeys(PurePosixPath(name).suffix for name in names)
    return json.dumps([f"{folders}*{ending}" for ending in endings])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
