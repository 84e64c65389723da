"""The keys of where a pipeline's runs are told as OpenLineage events. No stage reads them, so no result does."""

from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import Settings, StageConfig, YamlMark


class OpenLineage(Settings):
    """Where the events go."""

    transport: Literal["file", "http"] = Field(
        description="file: one event a line; http: a server such as Marquez"
    )
    path: str | None = Field(
        None, min_length=1, description="with file: where they are added, seen from the YAML"
    )
    url: str | None = Field(
        None, pattern=r"^https?://[^/]+", description="with http: the server, without its api/v1/lineage"
    )
    namespace: str = Field(
        "tunemill", min_length=1, description="the namespace of the pipeline's jobs and results"
    )

    @model_validator(mode="after")
    def _has_its_place(self) -> Self:
        needed, other = ("path", "url") if self.transport == "file" else ("url", "path")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(f"transport: {self.transport} takes {needed}, and no {other}")
        if find_spec("openlineage") is None:
            raise ValueError("openlineage-python is not installed here: pip install 'tunemill[openlineage]'")
        return self


class OpenLineageKeys(StageConfig):
    """Whether runs are told to an OpenLineage server."""

    openlineage: Annotated[OpenLineage | None, YamlMark("pipeline.openlineage")] = Field(
        None, description="tell what becomes of each node of a run as OpenLineage events; changes no result"
    )
