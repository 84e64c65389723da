"""`pipeline.evaluations`: what models are asked and scored by, beside the evaluation on the held-out rows."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from tunemill.stages.evaluation.answer_keys import SAMPLING, AnswerKeys
from tunemill.stages.evaluation.harness.keys import HarnessSettings
from tunemill.stages.evaluation.inspect_keys import InspectSettings, is_inspect
from tunemill.stages.evaluation.judge_keys import JudgeKeys
from tunemill.stages.evaluation.metrics.keys import JUDGE, LOSS, MetricKeys


class EvaluationEntry(AnswerKeys, MetricKeys):
    """One evaluation: of which models, on which rows, by which metrics."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_]{1,60}$",
        description="its name, as in the nodes generations_<name>_of_<what> and evaluation_<name>_of_<what>",
    )
    on: list[str] | None = Field(
        None,
        min_length=1,
        description="which models: base, trained, merged, quantized, exported, or the name of an exported node; unset: "
        "all that there are",
    )
    data: dict[str, Any] | None = Field(
        None, description="rows of its own, an entry as under test_datasets; unset takes the held-out rows"
    )
    judge: JudgeKeys | None = Field(
        None, description="for the metric `judge`: a language model that judges answers"
    )

    task: str | list[str] | None = Field(
        None,
        min_length=1,
        description="in place of metrics: tasks of lm-evaluation-harness, by name or by the path of a YAML; or one of "
        "inspect-ai, by the path of a Python file, with @name where it has several",
    )
    inspect: InspectSettings = Field(
        InspectSettings(), description="with a task of inspect-ai: how it is run"
    )
    lm_eval: HarnessSettings = Field(
        HarnessSettings(), description="with task: how it is run, as pipeline.lm_eval says of lm_eval_tasks"
    )

    @property
    def kinds(self) -> list[str]:
        """Which metrics are asked for."""
        return [one.metric for one in self.metrics]

    @property
    def generates(self) -> bool:
        """Whether answers are generated."""
        return self.task is None and LOSS not in self.kinds

    @property
    def rows(self) -> str:
        """The node of the rows that are evaluated on."""
        return "evaluation_data" if self.data is None else f"evaluation_data_{self.name}"

    @field_validator("task")
    @classmethod
    def _one_of_inspect(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and any(map(is_inspect, value)):
            raise ValueError(
                "a task of inspect-ai (.py) stands alone: `task: file.py@name`. Give each an entry of its own"
            )
        return value

    @model_validator(mode="after")
    def _a_task_brings_the_rest(self) -> "EvaluationEntry":
        given = self.model_fields_set
        own, other = ("inspect", "lm_eval") if is_inspect(self.task) else ("lm_eval", "inspect")
        if self.task is not None:
            read = {"name", "on", "task", own} | ({"batch_size"} if own == "lm_eval" else set())
            idle = sorted(given - read)
            if idle:
                raise ValueError(
                    f"{idle[0]}: a task has rows, prompts and metrics of its own, and what else it takes, such as "
                    f"limit, stands below {own}. Take it out"
                )
        elif idle := sorted(given & {own, other}):
            raise ValueError(f"{idle[0]}: is only read beside task. Name one, or take it out")
        return self

    @model_validator(mode="after")
    def _settings_are_read(self) -> "EvaluationEntry":
        if self.task is not None:
            return self
        if not self.generates and len(self.metrics) > 1:
            raise ValueError(
                "metrics: loss is asked of the model and not of its answers. Give it an entry of its own"
            )
        if not self.generates:
            idle = sorted(
                ({*AnswerKeys.model_fields, "judge", "group"} - {"max_rows", "batch_size"})
                & self.model_fields_set
            )
            if idle:
                raise ValueError(f"{idle[0]}: metrics: [loss] generates no answer. Take it out")
        if self.group is not None and self.data is None:
            raise ValueError(
                "group: is a field of the rows of `data`, and there is none. Give data, or take group out"
            )
        given = [key for key in SAMPLING if key in self.model_fields_set]
        if given and not self.do_sample:
            raise ValueError(f"{given[0]}: is only read with do_sample: true. Set that, or take it out")
        if JUDGE in self.kinds and self.judge is None:
            raise ValueError("metrics: judge needs the key `judge`, with url and model of who judges")
        if self.judge is not None and JUDGE not in self.kinds:
            raise ValueError(
                "judge: is only asked for the metric judge. Add it to metrics, or take judge out"
            )
        return self
