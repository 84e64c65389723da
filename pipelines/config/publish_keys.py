"""The keys that say whether a model is published, which, and where."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tunemill.resources.shared_folder import fault_of_place, is_repository
from tunemill.stages.declaration import ConflictError, Idle, StageConfig, YamlMark, not_yet

AT_THE_END = "the model is pushed once, when it is finished and evaluated; checkpoints stay on this machine"


class PublishKeys(StageConfig):
    """Where the finished model goes. All of it is a place, and no part of any result."""

    hub_model_id: str | None = Field(
        None,
        description="publish what was trained on the Hub, as owner/name: a repository that is made, and private, where "
        "there is none",
    )
    hub_revision: str | None = Field(
        None, min_length=1, description="the branch on the Hub to push to, made where there is none"
    )
    hub_strategy: Literal["end", "every_save"] | None = Field(
        None, description="when to push: either value pushes once, at the end"
    )
    publish_to: Annotated[list[str], YamlMark("pipeline.publish.to")] = Field(
        [],
        min_length=1,
        description="where to publish, one place or several: owner/name of a model on the Hub, the URL of a folder in "
        "an object store, or a folder that begins with / ./ ../ or ~",
    )
    publish_of: Annotated[str, YamlMark("pipeline.publish.of")] = Field(
        "trained",
        min_length=1,
        description="which model: trained (of an adapter, the adapter alone), merged, quantized, or the node of an "
        "export, such as exported_gguf_q8_0",
    )
    publish_revision: Annotated[str | None, YamlMark("pipeline.publish.revision")] = Field(
        None, min_length=1, description="the branch on the Hub to push to; unset takes hub_revision, or main"
    )
    publish_private: Annotated[bool | None, YamlMark("pipeline.publish.private")] = Field(
        None,
        description="true refuses a public repository of the Hub, false makes a public one; unset makes a private one "
        "and takes what is there",
    )

    _checkpoints_to_come = not_yet("hub_strategy", "checkpoint", "all_checkpoints")

    @field_validator("publish_to", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("hub_model_id")
    @classmethod
    def _names_a_repository(cls, value: str | None) -> str | None:
        if value is not None and (not is_repository(value) or fault_of_place(value) is not None):
            raise ValueError("write owner/name of a model on the Hub (letters, digits, - _ .)")
        return value

    @field_validator("publish_to")
    @classmethod
    def _can_be_written_to(cls, value: list[str]) -> list[str]:
        for place in value:
            if (reason := fault_of_place(place)) is not None:
                raise ValueError(reason.replace("a dataset on the Hub", "a model on the Hub"))
        if len(set(value)) < len(value):
            raise ValueError("names a place twice")
        return value

    @model_validator(mode="after")
    def _there_is_a_place(self) -> "PublishKeys":
        asked = [key for key in ("publish_of", "publish_revision", "publish_private") if self.is_set(key)]
        if asked and not self.publish_places:
            raise ConflictError(
                "nothing says where to publish; give pipeline: {publish: {to: PLACE}}, or hub_model_id",
                *asked,
                "publish_to",
            )
        if self.publish_revision and not any(is_repository(place) for place in self.publish_places):
            raise ConflictError(
                "only a repository of the Hub has branches; take revision out",
                "publish_revision",
                "publish_to",
            )
        if self.publish_revision and self.hub_revision:
            raise ConflictError("both name the branch; keep one", "publish_revision", "hub_revision")
        if self.hub_model_id in self.publish_to:
            raise ConflictError(
                "names the place of hub_model_id again; keep one", "publish_to", "hub_model_id"
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """When to push, and settings of the Hub without it."""
        yield from super().idle()
        if self.hub_model_id is None and self.hub_strategy is not None:
            yield Idle("hub_strategy", "hub_model_id is unset, so nothing is pushed there")
        elif self.hub_strategy == "every_save":
            yield Idle("hub_strategy", AT_THE_END)
        if not any(is_repository(place) for place in self.publish_places):
            for key in ("hub_revision", "publish_private"):
                if self.is_set(key):
                    yield Idle(key, "nothing is published on the Hub")

    @property
    def publish_places(self) -> tuple[str, ...]:
        """Everywhere that the model goes."""
        return (*([self.hub_model_id] if self.hub_model_id else ()), *self.publish_to)

    @property
    def publish_branch(self) -> str | None:
        """The branch on the Hub that is pushed to."""
        return self.publish_revision or self.hub_revision

    @property
    def publish_title(self) -> str:
        """What the published model is called: the last part of the first place."""
        return self.publish_places[0].rstrip("/").rpartition("/")[2]
