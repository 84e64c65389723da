"""What is kept of a finished training's rollouts: `rollouts.arrow` among the logs of the trained model.

The columns of stages/training/online/rollouts.py, and beside them

    prompt, columns     the prompt (a text, or messages) and the row's other columns, as JSON
    rewards             what each reward function says (null where it says nothing)
    reward, advantage   the weighted sum (null where no function says anything), and what the completion counts

The schema's metadata has `sampling`, and `rewards`: the names and weights of the functions and how many steps a round
has, as JSON.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.training.online.advantages import Advantages
from tunemill.stages.training.online.browsed import FILE, SCORED_BY
from tunemill.stages.training.online.engine import SamplingSettings
from tunemill.stages.training.online.rewards import Scores
from tunemill.stages.training.online.rollouts import SAMPLING, SCHEMA, Rollout

KEPT = pa.schema(
    [
        *SCHEMA,
        ("prompt", pa.string()),
        ("columns", pa.string()),
        ("rewards", pa.list_(pa.float64())),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Judged:
    """The rollouts of a round with what they are worth."""

    rollouts: Sequence[Rollout]
    scores: Scores
    advantages: Advantages


def chosen_rounds(rounds: int, per_round: int, most: int) -> list[int]:
    """Which rounds are kept, so that no more than `most` rollouts are: evenly spread, with the first and the last."""
    room = min(rounds, most // per_round)
    if room < 2:
        return list(range(rounds))[-room:] if room else []
    return sorted({round(place * (rounds - 1) / (room - 1)) for place in range(room)})


def write_kept(
    folder: Path,
    rounds: Sequence[int],
    read: Callable[[int], Judged],
    prompts: PromptRows,
    names: Sequence[str],
    weights: Sequence[float],
    sampling: SamplingSettings,
    steps: int,
) -> int:
    """Write the file, a round at a time, and say how many rollouts are in it. `steps` are those of a round."""
    about = {"names": list(names), "weights": list(weights), "steps": steps}
    metadata = {SAMPLING: json.dumps(sampling.as_dict()).encode(), SCORED_BY: json.dumps(about).encode()}
    schema, count = KEPT.with_metadata(metadata), 0
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for number in rounds:
            rows = [
                _row(place, judged, prompts)
                for judged in [read(number)]
                for place in range(len(judged.rollouts))
            ]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _row(place: int, judged: Judged, prompts: PromptRows) -> dict[str, Any]:
    one = judged.rollouts[place]
    prompt = prompts[one.prompt_row]
    reward = float(judged.advantages.rewards_n[place])
    return {
        **one.row(),
        "prompt": json.dumps(prompt.value, ensure_ascii=False),
        "columns": json.dumps(prompt.columns, ensure_ascii=False),
        "rewards": list(judged.scores.values_nf[place]),
        "reward": None if np.isnan(reward) else reward,
        "advantage": float(judged.advantages.values_n[place]),
    }
