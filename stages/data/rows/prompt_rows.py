"""Prompts on disk, as stages write and read them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

# Of one dataset: the row's number in it (from 1), the prompt's tokens, the prompt as JSON (a text, or messages), and
# the row's other columns as a JSON object.
OF_DATASET = pa.schema(
    [
        ("source_row", pa.int64()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("prompt", pa.string()),
        ("columns", pa.string()),
    ]
)
# Of all datasets, with the number of the dataset, from 1.
OF_ALL = pa.schema([("dataset", pa.int32()), *OF_DATASET])


@dataclass(frozen=True)
class Prompt:
    """A prompt: its tokens, what they were made of (a text, or messages), and the row's other columns."""

    ids: tuple[int, ...]
    value: str | list[dict[str, Any]]
    columns: dict[str, Any]

    @property
    def is_conversation(self) -> bool:
        """Whether it is made of messages, so that what answers it is a message too."""
        return not isinstance(self.value, str)


class PromptRows:
    """The prompts of a file, by their numbers from 0."""

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as mapped:
            self._table = pa.ipc.open_file(mapped).read_all().combine_chunks()
        self.file = path

    def __len__(self) -> int:
        return len(self._table)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        offsets = self._table["prompt_ids"]
        return max((len(ids) for ids in offsets), default=0)

    @property
    def shortest(self) -> int:
        """Tokens of the shortest prompt."""
        return min((len(ids) for ids in self._table["prompt_ids"]), default=0)

    @property
    def columns(self) -> frozenset[str]:
        """The columns that any row has."""
        return frozenset(name for text in self._table["columns"].to_pylist() for name in json.loads(text))

    def __getitem__(self, row: int) -> Prompt:
        ids, prompt, columns = (
            self._table[name][row].as_py() for name in ("prompt_ids", "prompt", "columns")
        )
        return Prompt(tuple(ids), json.loads(prompt), json.loads(columns))
