"""What the `evaluation` stage reads from the YAML."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import Settings, StageConfig, YamlMark


class EvaluationSettings(Settings):
    """`pipeline.evaluation`: which figures to compute."""

    exact_match: bool = Field(
        True, description="generate an answer to each held-out row and compare all of it, its end too"
    )
    max_rows: PositiveInt | None = Field(None, description="look at the first rows only; unset: all of them")


class EvaluationConfig(StageConfig):
    """How held-out rows are scored."""

    eval_batch_size: PositiveInt = Field(
        8, description="rows per forward pass; rounding differs between sizes"
    )
    eval_sample_packing: bool = Field(
        False, description="several rows per sequence, kept apart by position ids; only rounding differs"
    )
    eval_max_new_tokens: PositiveInt = Field(128, description="longest answer generated, in tokens")
    evaluation: Annotated[EvaluationSettings, YamlMark("pipeline.evaluation")] = Field(
        EvaluationSettings(), description="which figures to compute"
    )
