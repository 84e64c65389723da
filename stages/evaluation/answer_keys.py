"""The keys of an evaluation that say how answers are generated: of an entry of `pipeline.evaluations`."""

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tunemill.stages.declaration import Entry, StageConfig
from tunemill.stages.evaluation.engine_keys import Engine

MAX_NEW_TOKENS = 128
BATCH_SIZE = 8


class AnswerKeys(StageConfig):
    """Which rows are answered, and how."""

    max_rows: Entry[PositiveInt | None] = Field(None, description="the first rows only; unset: all of them")
    max_new_tokens: Entry[PositiveInt | None] = Field(
        None, description="longest answer, in tokens; unset takes eval_max_new_tokens"
    )
    batch_size: Entry[PositiveInt | None] = Field(
        None,
        description="rows that are answered together; rounding differs between sizes; unset takes eval_batch_size, "
        "of vLLM 64 requests at a time",
    )
    do_sample: Entry[bool] = Field(
        False,
        description="draw tokens, each row with numbers of its own; else the likeliest is taken",
    )
    temperature: Entry[PositiveFloat] = Field(1.0, description="do_sample: what logits are divided by")
    top_p: Entry[float | None] = Field(
        None, gt=0, le=1, description="do_sample: of the likeliest tokens that have this probability together"
    )
    top_k: Entry[PositiveInt | None] = Field(None, description="do_sample: of so many likeliest tokens")
    seed: Entry[NonNegativeInt] = Field(0, description="do_sample: other numbers, and so other answers")
    engine: Entry[Engine] = Field(
        "transformers",
        description="what runs the model: transformers, or vllm: a server that is started, or with {kind: vllm, url: "
        "...} one that runs already",
    )


# What is read beside `do_sample` alone.
SAMPLING = ("temperature", "top_p", "top_k", "seed")
