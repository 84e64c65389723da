"""Texts to pretrain on, and what the stages of both ways to do so make of them."""

from pathlib import Path
from typing import Any, Literal

from support.rows import run_stage, write_lines
from support.tiny_tokenizer import make_tokenizer
from tunemill.stages.artifacts import Tokenizer, TrainingData
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.pretraining_data.stage import PRETRAINING_DATA
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.stage import TOKENIZED
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.data.training_data.stage import TRAINING_DATA
from tunemill.stages.declaration import StageConfig

Way = Literal["completion", "pretraining"]
WAYS: tuple[Way, ...] = ("completion", "pretraining")
LETTERS = 26


def alphabets(count: int, *, first: int = 0, length: int = 19) -> list[dict[str, str]]:
    """Rows of letters in the order of the alphabet, a token each; those that start at `first` 0 and 1 differ."""
    starts = range(first, first + 2 * count, 2)
    return [
        {"text": "".join(chr(ord("A") + (start + i) % LETTERS) for i in range(length))} for start in starts
    ]


def prepared(way: Way, folder: Path, rows: list[dict[str, str]], **settings: Any) -> TrainingData:
    """What is trained on: of `datasets` with `type: completion`, or of `pretraining_dataset`.

    Of the settings of a training, its stage gets those that it reads.
    """
    folder.mkdir(parents=True)
    path = str(write_lines(folder / "texts.jsonl", rows))
    tokenizer = Tokenizer(make_tokenizer(folder / "tokenizer"))
    data: TrainingData
    if way == "pretraining":
        config = PretrainingDataConfig(path=path, **read_by(PretrainingDataConfig, settings))
        data, _ = run_stage(PRETRAINING_DATA, config, folder / "sequences", tokenizer=tokenizer)
        return data
    raw, _ = run_stage(DATASET, DatasetConfig(path=path), folder / "raw")
    tokens, _ = run_stage(
        TOKENIZED, TokenizedConfig(path=path, type="completion"), folder / "tokens", dataset=raw, tokenizer=tokenizer
    )  # fmt: skip
    merged = TrainingDataConfig(**read_by(TrainingDataConfig, settings))
    data, _ = run_stage(TRAINING_DATA, merged, folder / "merged", tokenized=[tokens])
    return data


def read_by(config: type[StageConfig], settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that a stage reads."""
    return {key: value for key, value in settings.items() if key in config.model_fields}
