"""What the `scores` stage reads."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import CodeMark, ConflictError, Entry, Fault
from tunemill.stages.evaluation.metrics.function import Function, fault_of_function
from tunemill.stages.evaluation.metrics.keys import NAMES, MetricKeys
from tunemill.stages.own_classes import file_of, looked_for


class ScoresConfig(MetricKeys):
    """Which figures are computed of answers that are there."""

    entry_lists: ClassVar[tuple[str, ...]] = ()

    metric_code: Annotated[Entry[list[str] | None], CodeMark(of="metrics", known=frozenset(NAMES))] = Field(
        None, description="the files of your own functions"
    )

    def written_metrics(self) -> frozenset[str]:
        """What stands in metrics.json."""
        return frozenset({*(one.label for one in self.metrics), "rows"})

    @property
    def functions(self) -> list[Function]:
        """The metrics that are functions of one's own."""
        return [one for one in self.metrics if isinstance(one, Function)]

    @model_validator(mode="after")
    def _functions_are_there(self) -> Self:
        for one in self.functions:
            if file_of(one.function, self.metric_code or []) is None:
                raise ConflictError(
                    f"{one.function}: is no metric, and there is no {looked_for(one.function)} beside the YAML. "
                    f"Metrics are {', '.join(NAMES)}",
                    "metrics",
                )
        return self

    def faults(self) -> Iterator[Fault]:
        """Functions that are not there, or take what there is not."""
        yield from super().faults()
        for one in self.functions:
            reason = fault_of_function(one.function, self.metric_code or [])
            if reason is not None:
                yield Fault("metrics", f"{one.function}: {reason}")
