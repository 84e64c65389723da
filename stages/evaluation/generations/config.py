"""What the `generations` stage reads."""

from typing import Any, ClassVar

from pydantic import Field, PositiveInt, model_validator

from tunemill.stages.evaluation.answer_keys import BATCH_SIZE, MAX_NEW_TOKENS, AnswerKeys
from tunemill.stages.evaluation.sampling_keys import Sampling

# Key of an entry -> the top-level key that stands for it where the entry has none.
FALLS_BACK = {"max_new_tokens": "eval_max_new_tokens", "batch_size": "eval_batch_size"}


class GenerationsConfig(AnswerKeys):
    """How answers to held-out rows are generated."""

    entry_lists: ClassVar[tuple[str, ...]] = ()

    eval_max_new_tokens: PositiveInt = Field(
        MAX_NEW_TOKENS, description="longest answer generated, in tokens"
    )
    eval_batch_size: PositiveInt = Field(
        BATCH_SIZE, description="rows per forward pass; rounding differs between sizes"
    )

    @model_validator(mode="before")
    @classmethod
    def _the_entry_counts_first(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A key that is not read changes no key of the cache."""
        covered = {top for own, top in FALLS_BACK.items() if data.get(own) is not None}
        return {name: value for name, value in data.items() if name not in covered}

    @property
    def longest(self) -> int:
        """Tokens of an answer at most."""
        return self.max_new_tokens or self.eval_max_new_tokens

    @property
    def rows_at_once(self) -> int:
        """Rows of a batch."""
        return self.batch_size or self.eval_batch_size

    @property
    def sampling(self) -> Sampling | None:
        """How tokens are drawn; None where the likeliest is taken."""
        return Sampling(self.seed, self.temperature, self.top_p, self.top_k) if self.do_sample else None
