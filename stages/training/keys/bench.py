"""The keys of a benchmark that a model is scored on while it is trained, for a person to see."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from tunemill.stages.declaration import (
    ConflictError,
    Fault,
    Idle,
    Runtime,
    RuntimeMark,
    SourceMark,
    StageConfig,
)
from tunemill.stages.errors import RowError, SourceError
from tunemill.stages.training.bench import bench_questions

ENDINGS = (".json", ".jsonl")
# A larger file is read when the training runs.
READ_AT_ONCE = 16 << 20


class BenchKeys(StageConfig):
    """Questions with answers by letter, asked at each evaluation."""

    do_bench_eval: Runtime[bool | None] = Field(
        None,
        description="score the model on bench_dataset at each evaluation: shown, changes no weight",
    )
    bench_dataset: Annotated[str | None, SourceMark(), RuntimeMark()] = Field(
        None,
        description="with do_bench_eval: a .json or .jsonl of questions with answers by letter, a subject each if you "
        "like: shown, changes no weight",
    )

    @field_validator("bench_dataset", mode="before")
    @classmethod
    def _false_names_nothing(cls, value: object) -> object:
        return None if value is False else value

    @model_validator(mode="after")
    def _there_is_a_benchmark(self) -> Self:
        if self.do_bench_eval and self.bench_dataset is None:
            raise ConflictError(
                "do_bench_eval needs a file of questions: name it with bench_dataset. Axolotl's own is one of the Hub, "
                "pharaouk/dharma-1; fetch dharma_1_mini.json of it",
                "do_bench_eval",
                "bench_dataset",
            )
        return self

    def faults(self) -> Iterator[Fault]:
        """A file of another kind, and questions that are none, as far as they are read at once."""
        yield from super().faults()
        if self.bench_dataset is None or not Path(self.bench_dataset).exists():
            return
        if not self.bench_dataset.lower().endswith(ENDINGS) or Path(self.bench_dataset).is_dir():
            yield Fault("bench_dataset", f"{self.bench_dataset}: name a file that ends in .json or .jsonl")
        elif self.do_bench_eval and Path(self.bench_dataset).stat().st_size <= READ_AT_ONCE:
            try:
                bench_questions(Path(self.bench_dataset))
            except (RowError, SourceError, OSError) as error:
                yield Fault("bench_dataset", str(error).removeprefix("bench_dataset: "))

    def idle(self) -> Iterator[Idle]:
        """A benchmark that nobody asks for, or where nothing is evaluated."""
        yield from super().idle()
        if self.bench_dataset is not None and not self.do_bench_eval:
            yield Idle("bench_dataset", "do_bench_eval is off")
        elif self.do_bench_eval and "evaluation_data" in self.unused_inputs():
            for key in ("do_bench_eval", "bench_dataset"):
                yield Idle(
                    key,
                    "nothing is evaluated while training; give eval_steps or evals_per_epoch, and held-out rows",
                )
