"""What every metric of generated answers has: which it is, and what its figure is called."""

from pydantic import Field

from tunemill.stages.declaration import Settings

# What a metric may say of an answer: right or wrong, a number, or nothing where it does not apply.
Value = bool | float | None


class MetricSettings(Settings):
    """The settings of a metric."""

    metric: str
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9_]{0,60}$",
        description="what its figure is called; unset: as the metric",
    )

    @property
    def label(self) -> str:
        """What its figure is called."""
        return self.name or self.metric

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions that compute it, which are extras."""
        return ()

    def fault(self) -> str | None:
        """Why it cannot be computed as it is asked for."""
        return None
