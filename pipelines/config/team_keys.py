"""The key of the store that a team shares. It is a place, no part of any result."""

from typing import Annotated

from pydantic import Field, field_validator

from tunemill.resources.objects import fault_of_team_url
from tunemill.stages.declaration import StageConfig, YamlMark


class TeamKeys(StageConfig):
    """Where a team keeps its results."""

    store: Annotated[str | None, YamlMark("pipeline.store")] = Field(
        None,
        description="URL of a store that a team shares (s3://bucket/folder, gs://, az://, file:///folder): what others "
        "have computed is taken from there, and what is computed goes there. A place, no part of any result",
    )

    @field_validator("store")
    @classmethod
    def _can_be_shared(cls, value: str | None) -> str | None:
        if value is not None and (fault := fault_of_team_url(value)) is not None:
            raise ValueError(fault)
        return value
