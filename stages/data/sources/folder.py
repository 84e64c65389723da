"""A local folder of data files: which files make up which split."""

from collections.abc import Mapping
from pathlib import Path

from tunemill.stages.data.sources.files import row_file
from tunemill.stages.data.sources.names import last_part, type_of
from tunemill.stages.data.sources.rows import RowFile
from tunemill.stages.data.sources.splits_by_name import Splits, data_files, names_below, splits_of
from tunemill.stages.errors import SourceError


def splits_of_folder(folder: Path, ds_type: str | None, place: str) -> Splits:
    """The data files of a folder by splits, as their names say; `place` is what errors call the folder.

    Raises SourceError where it cannot be listed, or a file's name speaks of what can be no split.
    """
    try:
        return splits_of(data_files(names_below(folder), ds_type))
    except OSError as error:
        raise SourceError(f"path: {place} cannot be listed: {error.strerror}") from None


def all_of_folder(folder: Path, ds_type: str | None, place: str) -> Splits:
    """All data files of a folder as the split `train`, whatever their names say."""
    found = splits_of_folder(folder, ds_type, place)
    names = sorted({name for split in found.files.values() for name in split} | set(found.left_out))
    return Splits({"train": dict.fromkeys(names, "")} if names else {})


def row_files(
    folder: Path, splits: Mapping[str, Mapping[str, str]], ds_type: str | None, place: str, scratch: Path
) -> dict[str, list[RowFile]]:
    """The files of each split as rows.

    `place` is what errors call the folder, `scratch` is for unpacked copies.

    Raises SourceError where there is no data file, or there are several kinds of them.
    """
    names = [name for files in splits.values() for name in files]
    kinds = {type_of(name) or ds_type for name in names}
    if not names:
        wanted = f" of {ds_type} rows" if ds_type else ", such as .jsonl, .csv, .parquet, .arrow or .txt"
        raise SourceError(f"path: {place} holds no data files{wanted}")
    if len(kinds) > 1:
        raise SourceError(
            f"path: {place} holds files of different kinds ({', '.join(sorted(map(str, kinds)))}); "
            "set ds_type to choose one, or name the files in data_files"
        )
    kind = kinds.pop()
    assert kind is not None, "files without a kind have been left out"
    single = len(names) == 1
    return {
        split: [
            row_file(
                folder / name,
                kind,
                "" if single else name,
                last_part(name) if single else name,
                f"{place}/{name}",
                scratch,
            )
            for name in files
        ]
        for split, files in splits.items()
    }
