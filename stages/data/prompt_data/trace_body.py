"""Where prompts come from."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tunemill.stages.artifacts import PromptData, Prompts
from tunemill.stages.errors import RowOf


def trace(_config: Any, made: PromptData, rows: Sequence[int], tokenized: list[Prompts]) -> list[RowOf]:
    """Of prompts the dataset, and its row there."""
    with pa.memory_map(str(made.rows)) as mapped:
        table = (
            pa.ipc.open_file(mapped)
            .read_all()
            .select(["dataset", "source_row"])
            .take(pa.array(rows, pa.int64()))
        )
    places = [_places(one) for one in tokenized]
    return [
        RowOf("tokenized", row["dataset"] - 1, places[row["dataset"] - 1][row["source_row"]])
        for row in table.to_pylist()
    ]


def _places(prompts: Prompts) -> dict[int, int]:
    with pa.memory_map(str(prompts.rows)) as mapped:
        numbers = pa.ipc.open_file(mapped).read_all()["source_row"].to_pylist()
    return {number: place for place, number in enumerate(numbers)}
