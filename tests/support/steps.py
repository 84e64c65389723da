"""Answers in judged steps. Each step counts on by one, or miscounts: whether it is right can be seen of it alone."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from support.tiny_model import training_data
from tunemill.stages.artifacts import EvaluationData, TrainingData
from tunemill.stages.data.rows.token_rows import ROLE_SCHEMA

NUMBERS, STEPS = 5, 4


@dataclass(frozen=True)
class Answer:
    """What was counted from, to which number each step counts, and whether that is right."""

    start: int
    said: tuple[int, ...]
    labels: tuple[bool, ...]

    @property
    def text(self) -> str:
        """The row of a dataset."""
        before = (self.start, *self.said)
        steps = [f"{one} {other}" for one, other in zip(before, self.said, strict=False)]
        row = {"prompt": f"count from {self.start}\n", "completions": steps, "labels": list(self.labels)}
        return json.dumps(row) + "\n"

    @property
    def segments(self) -> list[tuple[str, list[int]]]:
        """Role and token ids of each segment."""
        found = [("prompt", [60 + self.start, 3])]
        for one, other in zip((self.start, *self.said), self.said, strict=False):
            found += [("step", [70 + one, 90 + other]), ("separator", [4])]
        return found

    @property
    def row(self) -> tuple[list[int], list[int]]:
        """Token ids, and a label at the end of each step."""
        classes = iter(self.labels)
        ids, labels = [], []
        for role, tokens in self.segments:
            ids += tokens
            labels += [-100] * (len(tokens) - 1) + [int(next(classes)) if role == "separator" else -100]
        return ids, labels


def counting(count: int, *, seed: int = 0, shortest: int = STEPS) -> list[Answer]:
    """Random answers of `shortest` to STEPS steps, of which two in five are wrong."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        start = at = draw.randrange(NUMBERS)
        said, labels = [], []
        for _ in range(draw.randint(shortest, STEPS)):
            labels.append(draw.random() < 0.6)
            at = (at + 1 + (0 if labels[-1] else draw.randrange(1, NUMBERS))) % NUMBERS
            said.append(at)
        found.append(Answer(start, tuple(said), tuple(labels)))
    return found


def step_data(
    folder: Path, answers: Sequence[Answer], packs: Sequence[Sequence[int]] | None = None
) -> TrainingData:
    """The answers as training data; without `packs` each sequence holds one."""
    return training_data(folder, [answer.row for answer in answers], packs)


def held_out_steps(folder: Path, answers: Sequence[Answer]) -> EvaluationData:
    """The answers as held-out rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for answer in answers:
        ids, labels = answer.row
        ends, end = [], 0
        for _, tokens in answer.segments:
            end += len(tokens)
            ends.append(end)
        roles = [role for role, _ in answer.segments]
        rows.append({"input_ids": ids, "labels": labels, "roles": roles, "role_ends": ends})
    table = pa.Table.from_pylist(rows, schema=ROLE_SCHEMA)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return EvaluationData(folder)
