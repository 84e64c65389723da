"""Tiny real models, token rows and folders for the stages of the model path."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from support.tiny_tokenizer import make_tokenizer
from tunemill.stages.artifacts import EvaluationData, TrainingData
from tunemill.stages.report import Report, Workspace

VOCABULARY = 416


def tiny_config(**changes: Any) -> LlamaConfig:
    """A 2-layer, 32-wide Llama that holds the tiny tokenizer."""
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        # Far from the usual .02: logits that a test compares should not all be near zero.
        "initializer_range": 0.2,
    }
    return LlamaConfig(**{**settings, **changes})


def make_model(
    folder: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    **changes: Any,
) -> Path:
    """Write a tiny model with its tokenizer into `folder` and return it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(**changes)).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    make_tokenizer(folder)
    return folder


def random_rows(
    count: int, *, seed: int = 0, shortest: int = 4, longest: int = 12
) -> list[tuple[list[int], list[int]]]:
    """Rows of (ids, labels) of unequal lengths; the first third of each row is a prompt (-100)."""
    random = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(shortest, longest + 1, (1,), generator=random))
        ids = torch.randint(3, VOCABULARY, (length,), generator=random).tolist()
        rows.append((ids, [-100] * (length // 3) + ids[length // 3 :]))
    return rows


def write_rows(path: Path, rows: Sequence[tuple[list[int], list[int]]]) -> None:
    """`rows.arrow` as the tokenizing stages write it."""
    kind = pa.list_(pa.int32())
    columns = {"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]}
    table = pa.table({name: pa.array(values, kind) for name, values in columns.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two record batches: no reader may count on one.
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, (len(rows) + 1) // 2))


def training_data(
    folder: Path, rows: Sequence[tuple[list[int], list[int]]], packs: Sequence[Sequence[int]] | None = None
) -> TrainingData:
    """A TrainingData artifact; without `packs` each sequence holds one row."""
    write_rows(folder / "rows.arrow", rows)
    table = pa.table({"rows": pa.array(packs or [[i] for i in range(len(rows))], pa.list_(pa.int32()))})
    with pa.OSFile(str(folder / "packs.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return TrainingData(folder)


def evaluation_data(folder: Path, rows: Sequence[tuple[list[int], list[int]]]) -> EvaluationData:
    """An EvaluationData artifact."""
    write_rows(folder / "rows.arrow", rows)
    return EvaluationData(folder)


def packs_of(count: int, size: int) -> list[list[int]]:
    """Row numbers in packs of `size`, the last one smaller."""
    return [list(range(first, min(first + size, count))) for first in range(0, count, size)]


def workspace(folder: Path) -> Workspace:
    """An empty workspace below `folder`; what is there already stays."""
    made = Workspace(data=folder / "data", checkpoints=folder / "checkpoints", logs=folder / "logs")
    for path in (made.data, made.checkpoints, made.logs):
        path.mkdir(parents=True, exist_ok=True)
    return made


@dataclass
class Heard:
    """Everything that a body said."""

    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """The report to hand to a body."""
        return Report(self.events.append)

    @property
    def summary(self) -> dict[str, Any]:
        """All summaries in one."""
        return {
            k: v for event in self.events if event["type"] == "summary" for k, v in event["metrics"].items()
        }

    def steps(self, name: str) -> dict[int, float]:
        """Step -> metric `name`."""
        steps = (event for event in self.events if event["type"] == "step")
        return {event["step"]: event["metrics"][name] for event in steps if name in event["metrics"]}

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one type."""
        return [event for event in self.events if event["type"] == kind]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Relative path -> contents of every file in a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
