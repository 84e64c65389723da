"""The keys of who answers for a pipeline, and of what it is filed under in Dagster. No result depends on them."""

import re
from typing import Annotated, Any

from pydantic import Field, field_validator

from tunemill.stages.declaration import StageConfig, YamlMark

# What Dagster takes; `tests/pipelines/config/test_owner_keys.py` compares the two.
EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Z|a-z]{2,7}\b")
TEAM = "team:"
TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
# Tags that Dagster gives a meaning, such as those of kinds.
RESERVED = "dagster/"


class OwnerKeys(StageConfig):
    """Who answers for a pipeline's assets, and what they are filed under."""

    owners: Annotated[list[str], YamlMark("pipeline.owners")] = Field(
        [],
        description="who answers for the pipeline, shown on each of its assets: e-mail addresses, or team:NAME",
    )
    tags: Annotated[dict[str, Any], YamlMark("pipeline.tags")] = Field(
        {}, description="tags of each of its assets, by which the UI filters: names and short texts"
    )

    @field_validator("owners")
    @classmethod
    def _are_owners(cls, value: list[str]) -> list[str]:
        for owner in value:
            if (fault := fault_of_owner(owner)) is not None:
                raise ValueError(fault)
        if len(set(value)) < len(value):
            raise ValueError("an owner is named twice")
        return value

    @field_validator("tags")
    @classmethod
    def _are_tags(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, text in value.items():
            if (fault := fault_of_tag(name, text)) is not None:
                raise ValueError(fault)
        return value


def fault_of_owner(owner: str) -> str | None:
    """Why Dagster takes no such owner, and None where it does."""
    if EMAIL.fullmatch(owner) or (owner.startswith(TEAM) and len(owner) > len(TEAM)):
        return None
    return f"{owner!r} is no owner. Write an e-mail address, or {TEAM}NAME"


def fault_of_tag(name: str, text: object) -> str | None:
    """Why Dagster takes no such tag, and None where it does."""
    if name.startswith(RESERVED):
        return f"tags that begin with {RESERVED} are Dagster's own; take another name than {name!r}"
    if not TAG_KEY.fullmatch(name):
        return (
            f"{name!r} is no name of a tag: up to 63 letters, digits, '_', '-' and '.', before them as many and a "
            f"'/' if you like"
        )
    if not isinstance(text, str):
        return f"{name}: a tag is a text, and {text!r} is none. Write it in quotes"
    if not TAG_VALUE.fullmatch(text):
        return f"{name}: {text!r} is no tag: up to 63 letters, digits, '_', '-' and '.'"
    return None
