"""The keys of held-out prompts: how often each is answered at an evaluation, and how many side by side."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import Idle, Runtime, YamlMark
from tunemill.stages.training.keys.best import BestKeys
from tunemill.stages.training.keys.rhythm import NOTHING_HELD_OUT

GENERATIONS = "num_generations_eval"


class HeldOutKeys(BestKeys):
    """How held-out prompts are answered."""

    usual_metric: ClassVar[str] = "eval_reward"

    num_generations_eval: Annotated[Runtime[PositiveInt | None], YamlMark(f"trl.{GENERATIONS}")] = Field(
        None,
        description="completions of each held-out prompt at an evaluation, unset: as many as num_generations: they "
        "leave the weights alone",
    )
    eval_batch_size: Runtime[PositiveInt | None] = Field(
        None,
        description="held-out prompts that are answered side by side, unset: as many as pipeline.completions_at_once "
        "has room for: they leave the weights alone",
    )

    def deciding(self) -> frozenset[str]:
        """How often they are answered, where that decides."""
        return super().deciding() | ({GENERATIONS} if self.held_out_rows_decide else set())

    def idle(self) -> Iterator[Idle]:
        """Answers that nobody asks for."""
        yield from super().idle()
        if self.num_generations_eval is not None:
            if not self.has_held_out_rows:
                yield Idle(GENERATIONS, NOTHING_HELD_OUT)
            elif "evaluation_data" in self.unused_inputs():
                yield Idle(GENERATIONS, "nothing is evaluated; give eval_steps or evals_per_epoch")
