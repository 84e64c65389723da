"""What the `sft` stage reads from the YAML."""

from collections.abc import Iterator
from typing import Self

from pydantic import model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.best import METRIC
from tunemill.stages.training.keys.rhythm import NOTHING_HELD_OUT
from tunemill.stages.training.keys.samples import SampleKeys
from tunemill.stages.training.keys.sequences import SequenceKeys
from tunemill.stages.training.keys.trainer_class import TrainerClassKeys
from tunemill.stages.training.keys.training import TrainingKeys


class SftConfig(SampleKeys, TrainingKeys, SequenceKeys, TrainerClassKeys):
    """Supervised fine-tuning, full or LoRA. Names and defaults are Axolotl's."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.group_by_length and self.curriculum_sampling:
            raise ConflictError(
                "group_by_length sorts rows by length, and curriculum_sampling keeps their order. Choose one",
                "group_by_length",
                "curriculum_sampling",
            )
        return self

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if self.held_out_rows_decide and self.best_metric != METRIC:
            raise ConflictError(
                f"metric_for_best_model: {self.metric_for_best_model}: of supervised training there is {METRIC} alone",
                "metric_for_best_model",
                suggestion=METRIC,
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """How to put held-out rows into sequences that there are none of."""
        yield from super().idle()
        if self.eval_sample_packing and not self.has_held_out_rows:
            yield Idle("eval_sample_packing", NOTHING_HELD_OUT)
