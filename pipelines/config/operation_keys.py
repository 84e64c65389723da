"""The keys of what runs by itself: when a pipeline is brought up to date, and which changes start that."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tunemill.pipelines.config.cron import fault_of_cron, fault_of_timezone
from tunemill.stages.declaration import Settings, StageConfig, YamlMark

DefaultStatus = Literal["running", "stopped"]
SWITCHED = "running: switched on from the start; stopped: off until somebody switches it on in the UI"


class Schedule(Settings):
    """When a pipeline is brought up to date."""

    cron: str = Field(
        description="when, as five fields of cron: minute, hour, day of the month, month, day of the week; or "
        "@hourly, @daily, @weekly, @monthly"
    )
    timezone: str = Field("UTC", description="the time zone of cron, such as Europe/Berlin")
    default_status: DefaultStatus = Field("stopped", description=SWITCHED)

    @field_validator("cron")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if (fault := fault_of_cron(value)) is not None:
            raise ValueError(fault)
        return " ".join(value.split())

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        if (fault := fault_of_timezone(value)) is not None:
            raise ValueError(fault)
        return value


class Watch(Settings):
    """How the sources of a pipeline are watched."""

    every: int = Field(30, ge=5, le=86_400, description="seconds from one look at the sources to the next")
    settle: int = Field(
        30,
        ge=0,
        le=86_400,
        description="seconds for which what has changed must stand still before a run starts: a file that is still "
        "being copied does not",
    )
    default_status: DefaultStatus = Field("stopped", description=SWITCHED)


class OperationKeys(StageConfig):
    """What starts runs of a pipeline by itself. No result depends on it."""

    schedule: Annotated[Schedule | None, YamlMark("pipeline.schedule")] = Field(
        None, description="bring the pipeline up to date at these times; nothing runs if nothing has changed"
    )
    watch: Annotated[Watch | None, YamlMark("pipeline.watch")] = Field(
        None,
        description="true, or settings: bring the pipeline up to date when the contents of a source change (files, "
        "folders, repositories of the Hub, object stores)",
    )

    automation: Annotated[DefaultStatus | None, YamlMark("pipeline.automation")] = Field(
        None,
        description="a sensor of Dagster's declarative automation that brings the pipeline up to date after every "
        "change, of a source or of the YAML: stopped, until it is switched on in the UI, or running",
    )

    @field_validator("watch", mode="before")
    @classmethod
    def _true_has_no_settings(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value
