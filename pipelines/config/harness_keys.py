"""The keys that decide which nodes score models on tasks of lm-evaluation-harness."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, field_validator

from tunemill.pipelines.config.asset_names import whole_asset
from tunemill.stages.declaration import HubMark, Idle, StageConfig


class HarnessGraphKeys(StageConfig):
    """Which tasks there are, and whose models are scored on them."""

    lm_eval_tasks: list[str] = Field(
        [], description="tasks of lm-evaluation-harness: a node evaluation_lm_eval_of_* for each model"
    )
    lm_eval_post_train: bool | None = Field(
        None,
        description="false: only lm_eval_model, or else the base, is scored on lm_eval_tasks, and no model that is "
        "trained here",
    )
    lm_eval_model: Annotated[str | None, HubMark()] = Field(
        None,
        min_length=1,
        description="a model that is scored on lm_eval_tasks in place of those trained here",
    )

    @field_validator("lm_eval_model")
    @classmethod
    def _names_a_scored_model(cls, value: str | None) -> str | None:
        return None if value is None else whole_asset(value, "merged")

    def idle(self) -> Iterator[Idle]:
        """Whose models are scored on tasks, where there are none."""
        yield from super().idle()
        if not self.lm_eval_tasks:
            for key in ("lm_eval_post_train", "lm_eval_model"):
                if getattr(self, key) is not None:
                    yield Idle(key, "lm_eval_tasks names no task")
        elif self.lm_eval_model is not None and self.lm_eval_post_train:
            yield Idle("lm_eval_post_train", "lm_eval_model is scored in place of the models trained here")
