"""A local folder of data files: which files make up which split, by the naming rules of the datasets library."""

from pathlib import Path

from tunemill.stages.data.sources.files import row_file
from tunemill.stages.data.sources.names import last_part, type_of
from tunemill.stages.data.sources.rows import RowFile
from tunemill.stages.errors import SourceError


def files_of_folder(folder: Path, ds_type: str | None, place: str, scratch: Path) -> dict[str, list[RowFile]]:
    """Split -> its files, sorted. Where no name speaks of train, validation or test all files are `train`.

    `place` is what errors call the folder, `scratch` is for unpacked copies.

    Raises SourceError where there is no data file, or there are several kinds of them.
    """
    found = {split: _data_files(names, ds_type) for split, names in _by_split(folder, place).items()}
    found = {split: names for split, names in found.items() if names}
    kinds = {type_of(name) or ds_type for names in found.values() for name in names}
    if not found:
        wanted = f" of {ds_type} rows" if ds_type else ", such as .jsonl, .csv, .parquet, .arrow or .txt"
        raise SourceError(f"path: {place} holds no data files{wanted}")
    if len(kinds) > 1:
        raise SourceError(
            f"path: {place} holds files of different kinds ({', '.join(sorted(map(str, kinds)))}); "
            "set ds_type to choose one, or name the files in data_files"
        )
    kind = kinds.pop()
    assert kind is not None, "files without a kind have been left out"
    single = sum(len(names) for names in found.values()) == 1
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
            for name in names
        ]
        for split, names in found.items()
    }


def _data_files(names: list[str], ds_type: str | None) -> list[str]:
    """The names that hold rows: those of the kind that is asked for, else those of any kind.

    Where a kind is asked for and no extension speaks of any, all files are taken to be of it.
    """
    if ds_type is None:
        return [name for name in names if type_of(name) is not None]
    typed = [name for name in names if type_of(name) == ds_type]
    silent = all(type_of(name) is None for name in names)
    return names if silent else typed


def _by_split(folder: Path, place: str) -> dict[str, list[str]]:
    """Split -> names of files in the folder."""
    from datasets.data_files import DataFilesDict, get_data_patterns

    try:
        patterns = get_data_patterns(str(folder))
        found = DataFilesDict.from_patterns(patterns, base_path=str(folder))
    except FileNotFoundError:
        raise SourceError(f"path: {place} holds no data files") from None
    return {
        str(split): sorted({Path(name).relative_to(folder).as_posix() for name in names})
        for split, names in found.items()
    }
