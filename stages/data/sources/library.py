"""Sources that the `datasets` library reads: the Hub, folders of save_to_disk, folders with a dataset card.

The library is imported where it is needed: reading a plain file goes without it.
"""

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tunemill.resources.protocols import CARD, HUB_DATASETS, WILDCARDS, licence_in
from tunemill.stages.data.sources.arrow_values import BATCH_ROWS, check_columns, checked, rows_of
from tunemill.stages.data.sources.keys import SourceKeys
from tunemill.stages.data.sources.names import hub_name
from tunemill.stages.data.sources.rows import Row, RowFile, RowSource
from tunemill.stages.data.sources.unpacking import DAMAGES, UnreadableError
from tunemill.stages.errors import SettingError, SourceError


def saved_folder(folder: Path, place: str, title: str) -> RowSource:
    """What `save_to_disk` wrote: one dataset, or one for each split. Raises SourceError where it is damaged."""
    from datasets import Dataset, load_from_disk

    if "::" in str(folder):
        raise SourceError(
            f"path: {place} was written by save_to_disk, and the datasets library takes :: for the inside of an "
            "archive; rename the folder"
        )
    try:
        found = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"path: {place} was written by save_to_disk, and is damaged: {error}") from None
    tables = {str(found.split or "train"): found} if isinstance(found, Dataset) else dict(found)
    return RowSource(title, "saved dataset", _splits(title, tables))


def folder_with_card(folder: Path, config: SourceKeys, title: str, scratch: Path) -> RowSource:
    """A folder of files, arranged by its dataset card or by `name`."""
    with _plainly_named(folder) as place:
        tables = _load(str(place), config, scratch, title=title)
    return RowSource(title, "folder with a dataset card", _splits(title, tables))


@contextmanager
def _plainly_named(folder: Path) -> Iterator[Path]:
    """The folder by a name that the library takes for no pattern, and for no path inside of an archive (`::`).

    Where it has none there are links to its files: the library follows one to the folder itself.
    """
    if not WILDCARDS.search(str(folder)) and "::" not in str(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tunemill-") as parent:
        for around, _, names in os.walk(folder):
            inside = Path(parent) / Path(around).relative_to(folder)
            inside.mkdir(exist_ok=True)
            for name in names:
                (inside / name).symlink_to(Path(around) / name)
        yield Path(parent)


def hub_dataset(config: SourceKeys, scratch: Path) -> RowSource:
    """A dataset of the Hub at the commit behind `revision`. Raises SourceError when it cannot be had."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    name = hub_name(config.path)
    try:
        found = HfApi(token=config.hf_use_auth_token).dataset_info(name, revision=config.revision or "main")
    except (OSError, ValueError, HTTPError) as error:
        raise SourceError(f"{name}: cannot be found on the Hub: {_short(error)}") from None
    commit = str(found.sha)
    # Old names without an owner stand for one with.
    place = f"{HUB_DATASETS}{found.id}"
    tables = _load(place, config, scratch, title=name, revision=commit, token=config.hf_use_auth_token)
    licence = licence_on_hub(name, commit, config.hf_use_auth_token)
    return RowSource(name, "Hub dataset", _splits(name, tables), commit, licence)


def licence_on_hub(name: str, revision: str | None, token: bool | None) -> str | None:
    """The licence that the card of a dataset of the Hub names, None where it names none or cannot be read."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    with tempfile.TemporaryDirectory() as scratch:
        try:
            card = hf_hub_download(
                name, CARD, repo_type="dataset", revision=revision, token=token, local_dir=scratch
            )
            return licence_in(Path(card).read_text(encoding="utf-8"))
        except (OSError, ValueError, HTTPError):
            # Rows are as good without it.
            return None


def _load(path: str, config: SourceKeys, scratch: Path, title: str, **options: Any) -> dict[str, Any]:
    """The splits of a dataset as tables that lie on disk."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetsError
    from datasets.utils import disable_progress_bars
    from huggingface_hub.errors import HTTPError

    disable_progress_bars()
    try:
        builder = load_dataset_builder(
            path,
            name=config.name,
            data_files=list(config.data_files) if config.data_files else None,
            cache_dir=str(scratch),
            **options,
        )
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise SourceError(
            f"{title}: its rows come from a script in the repository, and no code of a repository is run, whatever "
            "trust_remote_code says; use revision: refs/convert/parquet if the Hub has converted it, or fetch its files"
        ) from None
    except (DatasetsError, OSError, ValueError, HTTPError) as error:
        raise SourceError(f"{title}: cannot be loaded: {_short(error)}") from None
    _check_type(str(builder.name), config, title)
    try:
        builder.download_and_prepare()
        return dict(builder.as_dataset())
    except (DatasetsError, OSError, ValueError, HTTPError) as error:
        raise SourceError(f"{title}: cannot be loaded: {_short(error)}") from None


def _check_type(kind: str, config: SourceKeys, title: str) -> None:
    kinds = {"csv": ("csv", "tsv")}.get(kind, (kind,))
    if config.ds_type is not None and config.ds_type not in kinds:
        raise SettingError(
            f"ds_type: {config.ds_type}, but {title} holds {kind} files; remove ds_type, or name files in data_files"
        )


def _splits(title: str, tables: dict[str, Any]) -> dict[str, list[RowFile]]:
    found: dict[str, list[RowFile]] = {}
    for split, table in tables.items():
        shown = split if len(tables) > 1 else title
        try:
            check_columns(table.data.schema)
        except UnreadableError as error:
            raise SourceError(f"{shown}: {error}") from None
        undecoded = _undecoded(table)
        found[split] = [
            RowFile(split, shown, "row", partial(_table_rows, undecoded, shown), partial(len, undecoded))
        ]
    return found


def _undecoded(table: Any) -> Any:
    """The table with images and sounds left as the bytes or the path that they are stored as."""
    from datasets import Json

    for name, feature in table.features.items():
        if getattr(feature, "decode", False) and not isinstance(feature, Json):
            table = table.cast_column(name, dataclasses.replace(feature, decode=False))
    return table


def _table_rows(table: Any, shown: str, skip: int) -> Iterator[Row]:
    """The rows of a memory-mapped table after the first `skip`. Raises SourceError where its files are damaged."""
    before = skip
    try:
        for part in table.select(range(skip, len(table))).with_format("arrow").iter(BATCH_ROWS):
            for batch in part.to_batches():
                yield from rows_of(checked(batch), before, skip)
                before += batch.num_rows
    except DAMAGES as error:
        raise SourceError(f"{shown}: holds a damaged table: {error}") from None


def _short(error: BaseException) -> str:
    """The first line of what went wrong, and of what caused it."""
    cause = error.__cause__
    lines = [str(item).strip().partition("\n")[0] for item in (error, cause) if item is not None]
    return "; ".join(line for line in lines if line) or type(error).__name__
