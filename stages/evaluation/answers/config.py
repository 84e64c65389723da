"""What the `evaluation` stage reads from the YAML."""

import importlib.util
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from tunemill.stages.declaration import Fault, Idle, YamlMark
from tunemill.stages.evaluation.settings import RowsToScore
from tunemill.stages.models.teacher import TeacherKeys

# The scores of texts, and what is computed of every model anyway.
TEXT_SCORES = ("sacrebleu", "chrf", "ter")
ALWAYS = "perplexity"


class EvaluationSettings(RowsToScore):
    """`pipeline.evaluation`: which figures to compute."""

    exact_match: bool = Field(
        True, description="generate an answer to each held-out row and compare all of it, its end too"
    )


class EvaluationConfig(TeacherKeys):
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
    do_causal_lm_eval: bool | None = Field(
        None, description="score generated answers as texts too, by the scores of eval_causal_lm_metrics"
    )
    eval_causal_lm_metrics: list[Literal["sacrebleu", "chrf", "ter", "perplexity"]] | None = Field(
        None, description="with do_causal_lm_eval: which scores; unset: sacrebleu, chrf and ter"
    )

    @field_validator("eval_causal_lm_metrics", mode="before")
    @classmethod
    def _no_comet(cls, value: object) -> object:
        if isinstance(value, list) and "comet" in value:
            raise ValueError(
                "comet is computed by a model of its own, which the Hub would have to give. Take it out; sacrebleu, "
                "chrf, ter and perplexity are there"
            )
        return value

    @property
    def text_scores(self) -> tuple[str, ...]:
        """The scores of generated texts that are asked for."""
        if not self.do_causal_lm_eval:
            return ()
        asked = TEXT_SCORES if self.eval_causal_lm_metrics is None else self.eval_causal_lm_metrics
        return tuple(name for name in TEXT_SCORES if name in asked)

    def written_metrics(self) -> frozenset[str]:
        """What metrics.json may hold: losses, what is found by generating, and what a teacher says."""
        generated = {"exact_match"} if self.evaluation.exact_match else set[str]()
        generated |= {"answers"} if self.evaluation.exact_match or self.text_scores else set()
        # A teacher of the Hub, or of another pipeline, is an input, of which the config knows nothing.
        taught = ("teacher_kl", "teacher_agreement")
        return frozenset({"eval_loss", "perplexity", "rows", *generated, *self.text_scores, *taught})

    def used_libraries(self) -> tuple[str, ...]:
        """What computes those scores."""
        return (*super().used_libraries(), *(("sacrebleu",) if self.text_scores else ()))

    def faults(self) -> Iterator[Fault]:
        """Scores whose package is not there: known before hours of training."""
        yield from super().faults()
        if self.text_scores and importlib.util.find_spec("sacrebleu") is None:
            key = "do_causal_lm_eval" if self.eval_causal_lm_metrics is None else "eval_causal_lm_metrics"
            names = ", ".join(self.text_scores)
            yield Fault(
                key, f"{names}: needs sacrebleu, which is not installed. pip install 'tunemill[sacrebleu]'"
            )

    def idle(self) -> Iterator[Idle]:
        """Scores that nobody asks for, or that are computed anyway."""
        yield from super().idle()
        if self.eval_causal_lm_metrics is not None and not self.do_causal_lm_eval:
            yield Idle("eval_causal_lm_metrics", "do_causal_lm_eval is off")
        elif self.do_causal_lm_eval and not self.text_scores:
            for key in ("do_causal_lm_eval", "eval_causal_lm_metrics"):
                yield Idle(key, f"every model that is evaluated gets its {ALWAYS} anyway, in evaluation_of_*")
