"""`metrics:` of an evaluation: which figures are computed of answers."""

import importlib.util
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator

from tunemill.stages.choices import rule
from tunemill.stages.declaration import Entry, Fault, StageConfig
from tunemill.stages.evaluation.metrics.bleu import Bleu
from tunemill.stages.evaluation.metrics.chrf import Chrf
from tunemill.stages.evaluation.metrics.contains import Contains
from tunemill.stages.evaluation.metrics.exact_match import ExactMatch
from tunemill.stages.evaluation.metrics.function import Function
from tunemill.stages.evaluation.metrics.json_schema import JsonSchema
from tunemill.stages.evaluation.metrics.judge import Judge
from tunemill.stages.evaluation.metrics.loss import Loss
from tunemill.stages.evaluation.metrics.normalized_match import NormalizedMatch
from tunemill.stages.evaluation.metrics.numeric import Numeric
from tunemill.stages.evaluation.metrics.regex import Regex
from tunemill.stages.evaluation.metrics.rouge import Rouge

LOSS, JUDGE, FUNCTION = "loss", "judge", "function"
NAMES = (
    "exact_match", "normalized_match", "regex", "contains", "numeric", "json_schema", "bleu", "chrf", "rouge",
    JUDGE, LOSS,
)  # fmt: skip
# What predictions hold of every row, and metrics of all rows.
WRITTEN = ("row", "id", "group", "prompt", "reference", "prediction", "tokens", "finish_reason", "rows")
# What the extras are called, where not as their package.
MODULES = {"rouge-score": "rouge_score"}


def _spelled_out(value: Any) -> Any:
    """A metric that is only named as one with settings; a name with a dot is that of a function of one's own."""
    if isinstance(value, str):
        if value in NAMES:
            return {"metric": value}
        if not re.fullmatch(r"[\w/-]+(\.[\w-]+)*(\.py:|\.)\w+", value):
            raise ValueError(
                f"{rule(value, NAMES)}, or a function beside the YAML such as my_metrics.py:score"
            )
        return {"metric": FUNCTION, "function": value}
    if isinstance(value, dict) and value.get("metric") not in NAMES and value.keys() != {"metric", FUNCTION}:
        raise ValueError(
            f"needs a `metric`: {', '.join(NAMES)}; of a function of your own write the name alone"
        )
    return value


def _kind(value: Any) -> str | None:
    return value.get("metric") if isinstance(value, dict) else getattr(value, "metric", None)


AnyMetric = Annotated[
    Annotated[ExactMatch, Tag("exact_match")]
    | Annotated[NormalizedMatch, Tag("normalized_match")]
    | Annotated[Regex, Tag("regex")]
    | Annotated[Contains, Tag("contains")]
    | Annotated[Numeric, Tag("numeric")]
    | Annotated[JsonSchema, Tag("json_schema")]
    | Annotated[Bleu, Tag("bleu")]
    | Annotated[Chrf, Tag("chrf")]
    | Annotated[Rouge, Tag("rouge")]
    | Annotated[Judge, Tag(JUDGE)]
    | Annotated[Loss, Tag(LOSS)]
    | Annotated[Function, Tag(FUNCTION)],
    Discriminator(_kind),
    BeforeValidator(_spelled_out),
]


class MetricKeys(StageConfig):
    """Which figures are computed of answers."""

    metrics: Entry[list[AnyMetric]] = Field(
        [ExactMatch(metric="exact_match")],
        min_length=1,
        description=f"what is computed: {', '.join(NAMES)}, a mapping of a `metric` and its settings, or a function of "
        "your own (file.py:function)",
    )

    group: Entry[str | None] = Field(
        None,
        min_length=1,
        description="a field of the rows of `data`: those of one value belong together, and are one where "
        "it is said how sure a score is",
    )

    @field_validator("metrics")
    @classmethod
    def _figures_have_one_name(cls, value: list[AnyMetric]) -> list[AnyMetric]:
        labels = [one.label for one in value]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two figures would be called {twice}. Give one of them a `name`")
        taken = next((label for label in labels if label in WRITTEN), None)
        if taken is not None:
            raise ValueError(
                f"a figure would be called {taken}, as what every row has. Give it another `name`"
            )
        return value

    def used_libraries(self) -> tuple[str, ...]:
        """What computes the metrics."""
        packages = dict.fromkeys(package for one in self.metrics for package in one.packages)
        return (*super().used_libraries(), *packages)

    def faults(self) -> Iterator[Fault]:
        """Packages that are not there, and settings that only these can judge."""
        yield from super().faults()
        for one in self.metrics:
            lacking = [name for name in one.packages if not importlib.util.find_spec(MODULES.get(name, name))]
            reason = (
                f"needs {lacking[0]}, which is not installed. pip install 'tunemill[{lacking[0]}]'"
                if lacking
                else one.fault()
                if one.packages
                else None
            )
            if reason is not None:
                yield Fault("metrics", f"{one.label}: {reason}")
