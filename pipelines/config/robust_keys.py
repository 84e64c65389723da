"""The keys of runs that crash or hang: what is tried again, how long anything may take. No result depends on them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tunemill.stages.declaration import StageConfig, YamlMark


@dataclass(frozen=True)
class Limits:
    """How often a stage that crashed goes on from its last checkpoint; how long a stage, and a whole run, may take."""

    retries: int = 0
    stage_seconds: float | None = None
    run_seconds: float | None = None


UNLIMITED = Limits()


class RobustKeys(StageConfig):
    """What becomes of stages that crash or hang."""

    retries: Annotated[int, YamlMark("pipeline.retries")] = Field(
        0,
        ge=0,
        le=100,
        description="how often a stage goes on from its last checkpoint when its process was killed, ran out of "
        "memory, lost its GPU or took too long; what is wrong with data or settings is never tried again",
    )
    stage_timeout_seconds: Annotated[float | None, YamlMark("pipeline.stage_timeout_seconds")] = Field(
        None, gt=0, description="how long one stage may compute before it is stopped: it hangs"
    )
    timeout_seconds: Annotated[float | None, YamlMark("pipeline.timeout_seconds")] = Field(
        None,
        gt=0,
        description="how long a whole run may take before its stage is stopped, and none begins any more",
    )

    @property
    def limits(self) -> Limits:
        return Limits(self.retries, self.stage_timeout_seconds, self.timeout_seconds)
