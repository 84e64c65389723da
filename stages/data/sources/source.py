"""From the config to rows: finds what is named, fetches what is far away, tells splits apart."""

import difflib
from dataclasses import replace
from pathlib import Path

from tunemill.resources.protocols import protocol_of
from tunemill.stages.data.sources.fetch import fetch
from tunemill.stages.data.sources.files import row_file
from tunemill.stages.data.sources.folder import all_of_folder, row_files, splits_of_folder
from tunemill.stages.data.sources.keys import SourceKeys
from tunemill.stages.data.sources.library import (
    folder_with_card,
    hub_dataset,
    saved_folder,
)
from tunemill.stages.data.sources.looks import has_card_with_configs, is_saved, unread_extension
from tunemill.stages.data.sources.names import kind_of, labels, last_part
from tunemill.stages.data.sources.rows import RowFile, RowSource
from tunemill.stages.data.sources.splits_by_name import told
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.report import Report


def open_source(config: SourceKeys, scratch: Path, report: Report) -> RowSource:
    """What the config names, as files of rows by split. `scratch` takes what has to be fetched or unpacked.

    Raises SourceError where it is not there or cannot be read.
    """
    if kind_of(config.path) == "hub":
        return hub_dataset(config, scratch / "hub")
    if config.files:
        return _listed_files(config, config.files, scratch, report)
    if kind_of(config.path) == "url":
        path = fetch(config.path, scratch / "fetched", report)
        return replace(_local(path, config, config.path, scratch, report), kind=protocol_of(config.path))
    return _local(Path(config.path), config, config.path, scratch, report)


def _local(path: Path, config: SourceKeys, place: str, scratch: Path, report: Report) -> RowSource:
    """The file or folder at `path`; `place` is what the config calls it."""
    title = last_part(place)
    if path.is_file():
        _refuse_name(config, f"{title} is a file")
        file = _file(path, config.ds_type, "", title, place, scratch)
        return RowSource(title, "file", {"train": [file]})
    if not path.is_dir():
        raise missing(path)
    if is_saved(path):
        _refuse_name(config, f"{title} was written by save_to_disk")
        return saved_folder(path, place, title)
    if config.name is not None or has_card_with_configs(path):
        return folder_with_card(path, config, title, scratch / "library")
    splits = splits_of_folder(path, config.ds_type, place)
    files = row_files(path, splits.files, config.ds_type, place, scratch / "unpacked")
    if note := told(splits, config.read_splits(splits.files)):
        report.log(f"{title}: {note}")
    return RowSource(title, "folder", files)


def _refuse_name(config: SourceKeys, reason: str) -> None:
    if config.name is not None:
        raise SettingError(f"name: {config.name!r} chooses a configuration, and {reason}; remove it")


def _listed_files(config: SourceKeys, names: list[str], scratch: Path, report: Report) -> RowSource:
    """`data_files`: each a file, or a URL of one or several."""
    files: list[RowFile] = []
    for number, (name, label) in enumerate(zip(names, labels(names), strict=True)):
        path = Path(name)
        if kind_of(name) == "url":
            path = fetch(name, scratch / "fetched" / str(number), report)
        if path.is_file():
            files.append(_file(path, config.ds_type, label, label or last_part(name), name, scratch))
        elif not path.is_dir():
            raise missing(path)
        else:
            # Who lists files means all of them, whatever split their names speak of.
            inner = all_of_folder(path, config.ds_type, name).files
            for file in row_files(path, inner, config.ds_type, name, scratch / "unpacked")["train"]:
                inside = "/".join(part for part in (label, file.name) if part)
                files.append(replace(file, name=inside, shown=inside or file.shown))
    title = last_part(names[0]) if len(names) == 1 else f"{len(names)} data_files"
    return RowSource(title, "files", {"train": files})


def _file(path: Path, ds_type: str | None, name: str, shown: str, place: str, scratch: Path) -> RowFile:
    if ds_type is None:
        raise SourceError(f"path: {unread_extension(shown)}")
    return row_file(path, ds_type, name, shown, place, scratch / "unpacked")


def missing(path: Path) -> SourceError:
    """The error for a file that is not there; suggests the nearest name beside it."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    names = [item.name for item in folder.iterdir()]
    wanted = path.relative_to(folder).parts[0]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    hint = f"; did you mean {folder / near[0]}?" if near else f"; {folder} holds no such name"
    return SourceError(f"path: {path} does not exist{hint}")
