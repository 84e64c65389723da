"""What the `preference_evaluation` stage reads from the YAML."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import StageConfig, YamlMark
from tunemill.stages.evaluation.settings import RowsToScore


class PreferenceEvaluationConfig(StageConfig):
    """How held-out pairs and judged answers are scored."""

    sequence_len: PositiveInt = Field(
        512, description="most tokens of a prompt with an answer, BOS and EOS counted: more are cut off"
    )
    eval_batch_size: PositiveInt = Field(
        8, description="answers per forward pass; rounding differs between sizes"
    )
    evaluation: Annotated[RowsToScore, YamlMark("pipeline.evaluation")] = Field(
        RowsToScore(), description="which rows are scored"
    )

    def written_metrics(self) -> frozenset[str]:
        """What metrics.json may hold: which of it depends on whether answers come in pairs."""
        compared = ("accuracy", "margin")
        of_kinds = ("chosen", "rejected", "desirable", "undesirable")
        return frozenset(
            {
                *(f"{name}{ending}" for name in compared for ending in ("", "_per_token")),
                *(f"reward_{name}" for name in (*compared, *of_kinds)),
                *("kl", "perplexity", "rows", "left_out_rows"),
            }
        )
