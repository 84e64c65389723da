"""Completions as a training keeps them, made up: two rounds of two prompts with two completions each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

# Round, prompt, completion, its rewards.
ROWS: list[tuple[int, int, str, list[float | None]]] = [
    (0, 7, "a", [0.0, 1.0]),
    (0, 7, "bb", [1.0, 1.0]),
    (0, 8, "ccc", [0.0, None]),
    (0, 8, "d", [0.0, 1.0]),
    (1, 7, "right", [1.0, 1.0]),
    (1, 7, "right", [1.0, 1.0]),
    (1, 8, "x", [0.0, None]),
    (1, 8, "right", [1.0, None]),
]
NAMES, WEIGHTS, STEPS = ("correct", "short"), (1.0, 0.5), 3


def keep(folder: Path, rows: Sequence[tuple[int, int, str, list[float | None]]] = ROWS) -> Path:
    """Write `rollouts.arrow` into a folder."""
    made: list[dict[str, Any]] = []
    for place, (number, prompt, text, rewards) in enumerate(rows):
        total = sum(w * r for w, r in zip(WEIGHTS, rewards, strict=True) if r is not None)
        made.append({
            "round": number, "group": place // 2 % 2, "prompt_row": prompt, "completion_ids": [1] * len(text),
            "text": text, "finish_reason": "stop", "policy": f"policy{number}",
            "prompt": json.dumps([{"role": "user", "content": f"prompt {prompt}"}]),
            "columns": json.dumps({"answer": "right"}), "rewards": rewards, "reward": total, "advantage": 0.0,
        })  # fmt: skip
    table = pa.Table.from_pylist(made)
    table = table.replace_schema_metadata(
        {b"rewards": json.dumps({"names": NAMES, "weights": WEIGHTS, "steps": STEPS})}
    )
    file = folder / "rollouts.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return file
