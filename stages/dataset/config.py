"""What the dataset stage reads of an entry of `datasets:`."""

from pathlib import PurePath
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tunemill.stages.dataset.split import parse_split
from tunemill.stages.declaration import ConflictError, Entry, Source, StageConfig

EXTENSIONS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}


class DatasetConfig(StageConfig):
    """Where one dataset comes from, and which of its rows."""

    path: Entry[Source[str]] = Field(
        description="local file of rows: JSON lines, a JSON array, CSV or Parquet"
    )
    ds_type: Entry[Literal["json", "csv", "parquet"] | None] = Field(
        None, description="what the file holds; unset goes by the file's extension"
    )
    split: Entry[str] = Field(
        "train", description='"train", or a slice of it such as "train[:100]" or "train[10%:]"'
    )
    name: Entry[str | None] = Field(None, description="configuration of a Hub dataset: not supported yet")

    @model_validator(mode="before")
    @classmethod
    def _type_by_extension(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The key holds a file's content, not its name: what the name says of the content has to be a setting."""
        if data.get("ds_type") is None and isinstance(data.get("path"), str):
            return {**data, "ds_type": EXTENSIONS.get(PurePath(data["path"]).suffix.lower())}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name is not None:
            raise ConflictError(
                f"name: {self.name!r} chooses a configuration of a Hub dataset, which is not supported yet; "
                "remove it",
                "name",
            )
        try:
            parse_split(self.split)
        except ValueError as error:
            raise ConflictError(str(error), "split") from None
        return self
