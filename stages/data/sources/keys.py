"""The keys that name a source of rows and choose among its rows, of an entry of `datasets:` or its like."""

import os
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.data.sources.looks import faults_of_source, splits_of_source
from tunemill.stages.data.sources.names import (
    BUILDERS,
    has_wildcards,
    kind_of,
    labels,
    last_part,
    matches,
    type_of,
)
from tunemill.stages.data.sources.selection import default_split
from tunemill.stages.data.sources.split import Part, parse_split
from tunemill.stages.data.sources.splits_by_name import surprise
from tunemill.stages.declaration import (
    ConflictError,
    DataSource,
    Entry,
    EntryMark,
    Fault,
    GraphMark,
    Idle,
    Runtime,
    SourceMark,
    StageConfig,
    YamlMark,
    is_whole,
)

# Git's own settings.
NO_ROWS = (".gitattributes", ".gitignore")
FileType = Literal["json", "csv", "tsv", "parquet", "arrow", "text"]


class SourceKeys(StageConfig):
    """Where rows come from, and which of them."""

    path: Entry[DataSource[str]] = Field(
        description="a file of rows, a folder of them or one written by save_to_disk, a dataset of the Hub, a URL "
        "(s3://, gs://, az://, abfs://, oci://, https://), or with data_files a kind of file such as json"
    )
    data_files: Annotated[
        list[str] | None, EntryMark(), SourceMark(remote=True, within="path", revision="revision")
    ] = Field(
        None,
        description="files to read, or patterns of them: in the folder, URL or Hub dataset that path names",
    )
    ds_type: Entry[FileType | None] = Field(
        None, description="what the files hold; unset goes by their extension"
    )
    split: Entry[str | None] = Field(
        None,
        description='"train", a slice of it such as "train[:100]" or "train[10%:]", or a sum such as '
        '"train[:10]+test"; unset takes the only split there is, or train (under test_datasets: test)',
    )
    held_out: Annotated[bool, GraphMark()] = Field(
        False, description="an entry of test_datasets: of several splits test is meant, not train"
    )
    name: Entry[str | None] = Field(
        None, description="configuration of a Hub dataset, or of a folder with a dataset card"
    )
    revision: Entry[str | None] = Field(
        None, description="branch, tag or commit of a Hub dataset; unset takes main"
    )
    trust_remote_code: Entry[Runtime[bool]] = Field(
        False, description="allowed, and without effect: the datasets library runs no code of a repository"
    )
    hf_use_auth_token: Runtime[bool | None] = Field(
        None,
        description="true demands a Hub token, false sends none, unset sends one if there is one: "
        "who asks for a commit does not change it",
    )
    shards: Entry[PositiveInt | None] = Field(
        None, description="shuffle the rows, cut them into so many shards, take one"
    )
    shards_idx: Entry[NonNegativeInt | None] = Field(
        None, description="which of the shards is taken, from 0; unset takes the first"
    )
    preprocess_shards: Entry[Runtime[PositiveInt | None]] = Field(
        None, description="read in so many chunks: without effect, rows are read in batches anyway"
    )
    seed: NonNegativeInt = Field(
        42, description="order of the rows before shards are cut; only read with shards"
    )
    bad_rows: Annotated[Literal["stop", "skip"], YamlMark("pipeline.bad_rows")] = Field(
        "stop", description="what happens when rows cannot be used: stop, or set them aside"
    )

    def counting(self, names: Collection[str]) -> list[str]:
        """The files of a Hub dataset that count: all that may hold rows, or say which do."""
        return sorted(name for name in names if PurePosixPath(name).name not in NO_ROWS)

    @model_validator(mode="before")
    @classmethod
    def _read_names(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Spells out local patterns. What a name says of its file has to be a setting: the key holds no names."""
        found = dict(data)
        if isinstance(found.get("data_files"), str):
            found["data_files"] = [found["data_files"]]
        if isinstance(found.get("data_files"), list):
            given = found["data_files"]
            try:
                found["data_files"] = [
                    match for name in given for match in (matches(name) if isinstance(name, str) else [name])
                ]
            except ValueError as error:
                raise ConflictError(str(error), "data_files") from None
        path, files = found.get("path"), found.get("data_files")
        if found.get("ds_type") is None and isinstance(path, str) and kind_of(path) != "hub":
            found["ds_type"] = _type_of_all(path, files)
        return found

    @model_validator(mode="after")
    def _check(self) -> Self:
        kind = kind_of(self.path)
        if kind == "local" and has_wildcards(self.path) and not os.path.lexists(self.path):
            raise ConflictError(
                f"path: {self.path} is a pattern of names; give the folder in path and the pattern in data_files",
                "path",
            )
        if kind == "builder":
            if not self.data_files:
                raise ConflictError(
                    f"path: {self.path} is a kind of file; name the files in data_files", "path", "data_files"
                )
            if self.ds_type != self.path:
                raise ConflictError(
                    f"path: {self.path} and ds_type: {self.ds_type} differ; keep one", "ds_type", "path"
                )
        if kind != "hub" and self.revision is not None:
            raise ConflictError(
                f"revision: {self.revision!r} is one of a Hub dataset, and path names none; remove it",
                "revision",
                "path",
            )
        if kind != "hub" and self.data_files and self.name is not None:
            raise ConflictError(
                f"name: {self.name!r} chooses a configuration, and data_files are just files; remove one",
                "name",
                "data_files",
            )
        self._check_data_files()
        self._check_shards()
        self._check_split()
        return self

    def _check_data_files(self) -> None:
        if self.data_files is None:
            return
        if not self.data_files:
            raise ConflictError("data_files: is empty; name files or remove it", "data_files")
        twice = sorted({name for name in self.data_files if self.data_files.count(name) > 1})
        if twice:
            raise ConflictError(f"data_files: names {twice[0]} twice", "data_files")

    def _check_shards(self) -> None:
        if self.shards is None and self.shards_idx is not None:
            raise ConflictError(
                f"shards_idx: {self.shards_idx} is given without shards, the number of shards",
                "shards_idx",
                "shards",
            )
        if self.shards is not None and (self.shards_idx or 0) >= self.shards:
            raise ConflictError(
                f"shards_idx: {self.shards_idx} is not one of {self.shards} shards; they are numbered from 0",
                "shards_idx",
                "shards",
            )
        if self.shards is not None and self.preprocess_shards is not None:
            raise ConflictError(
                "shards and preprocess_shards exclude each other; remove one", "preprocess_shards", "shards"
            )

    def _check_split(self) -> None:
        try:
            parts = self.parts
        except ValueError as error:
            raise ConflictError(str(error), "split") from None
        kind = kind_of(self.path)
        single = kind != "hub" and (self.data_files or (type_of(self.path) and not has_wildcards(self.path)))
        other = [part.name for part in parts if part.name != "train"]
        if single and other:
            raise ConflictError(
                f"split: {self.split!r} names {other[0]!r}, but what is not a folder or a Hub dataset has one split, "
                "`train`",
                "split",
                "path",
                "data_files",
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """The slices of splits to take; none where `split` is unset. Raises ValueError for a wrong `split`."""
        return () if self.split is None else parse_split(self.split)

    @property
    def files(self) -> list[str]:
        """The `data_files` as absolute paths and URLs; those inside a Hub dataset as they are there."""
        if kind_of(self.path) != "url":
            return list(self.data_files or [])
        names = self.data_files or []
        return [name if is_whole(name) else f"{self.path.rstrip('/')}/{name}" for name in names]

    def faults(self) -> Iterator[Fault]:
        """Files that hold no rows that can be read."""
        yield from super().faults()
        for key, reason in faults_of_source(self.path, self.files, self.ds_type):
            yield Fault(key, reason)

    def left_out(self) -> Iterator[Idle]:
        """Files of a local folder that are not read, where their names do not plainly say why."""
        splits = None if self.files or self.name else splits_of_source(self.path, self.ds_type)
        if splits is not None and (note := surprise(splits, self.read_splits(splits.files))):
            yield Idle("path", f"{last_part(self.path)}: {note}")

    def read_splits(self, names: Collection[str]) -> frozenset[str]:
        """Those of the splits of a source that rows are taken of."""
        if self.parts:
            return frozenset(part.name for part in self.parts)
        name = default_split(names, held_out=self.held_out)
        return frozenset() if name is None else frozenset({name})

    def semantic(self) -> dict[str, Any]:
        """As in the base class, with the names of several files: they stand in the result.

        The seed counts where it is read.
        """
        found = super().semantic()
        if self.shards is None:
            found.pop("seed", None)
        if kind_of(self.path) != "hub" and len(self.files) > 1:
            found["file_names"] = labels(self.files)
        return found


def _type_of_all(path: str, files: Any) -> str | None:
    """What `path` or all of `data_files` hold, as far as their names say so."""
    if path in BUILDERS:
        return path
    if not isinstance(files, list):
        return type_of(path)
    types = {type_of(name) for name in files if isinstance(name, str)}
    if len(types) > 1:
        given = ", ".join(sorted(str(item) for item in types))
        raise ConflictError(
            f"data_files: hold different kinds ({given}); set ds_type to say which", "data_files"
        )
    return next(iter(types), None)
