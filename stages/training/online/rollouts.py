"""Rollouts: completions with all that is known of how they came to be, as they are kept.

A file holds whole groups, a row for each completion:

    round, group, prompt_row    which round, which group of it, which row of the prompts (all from 0)
    prompt_ids, completion_ids  tokens
    text                        the completion, without special tokens
    log_p                       of each of its tokens, as the engine says (nats)
    policy_log_p                the same as the trainer says of the policy at the start of the round; null where a round
                                is one step, which computes it anyway
    reference_log_p             the same of the reference; null where nothing is compared with it
    finish_reason, seed, policy as `Completion` of stages/training/online/engine.py has them
    mask                        of each token of a completion of several turns whether the model said it; null where it
                                said all of them
    episode                     what else is known of such a completion, as JSON (stages/training/online/episode.py)

The schema's metadata has `sampling`: the settings, as JSON.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunemill.stages.training.online.engine import Completion, SamplingSettings
from tunemill.stages.training.online.episode import Episode, episode_of
from tunemill.stages.training.online.settled import settled

FLOATS, INTS = pa.list_(pa.float32()), pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        ("round", pa.int64()),
        ("group", pa.int64()),
        ("prompt_row", pa.int64()),
        ("prompt_ids", INTS),
        ("completion_ids", INTS),
        ("text", pa.string()),
        ("log_p", FLOATS),
        ("policy_log_p", FLOATS),
        ("reference_log_p", FLOATS),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("policy", pa.string()),
        ("mask", pa.list_(pa.bool_())),
        ("episode", pa.string()),
    ]
)
SAMPLING = b"sampling"


@dataclass(frozen=True)
class Rollout:
    """One completion of a round; the fields are the columns of the file."""

    round: int
    group: int
    prompt_row: int
    prompt_ids: tuple[int, ...]
    completion: Completion
    text: str
    policy_log_p: tuple[float, ...] | None = None
    reference_log_p: tuple[float, ...] | None = None
    episode: Episode | None = None

    @property
    def mask(self) -> tuple[bool, ...]:
        """Of each token of the completion whether the model said it."""
        return (True,) * len(self.completion.ids) if self.episode is None else self.episode.mask

    @property
    def said(self) -> int:
        """How many of its tokens the model said."""
        return sum(self.mask)

    @property
    def truncated(self) -> bool:
        """Whether it was cut off at the longest length."""
        return self.completion.finish_reason == "length"

    def row(self) -> dict[str, Any]:
        """As it is kept."""
        found = self.completion
        return {
            "round": self.round,
            "group": self.group,
            "prompt_row": self.prompt_row,
            "prompt_ids": list(self.prompt_ids),
            "completion_ids": list(found.ids),
            "text": self.text,
            "log_p": list(found.log_p),
            "policy_log_p": _listed(self.policy_log_p),
            "reference_log_p": _listed(self.reference_log_p),
            "finish_reason": found.finish_reason,
            "seed": found.seed,
            "policy": found.policy,
            "mask": None if self.episode is None else list(self.episode.mask),
            "episode": None if self.episode is None else self.episode.as_json(),
        }


def write_rollouts(path: Path, rollouts: Sequence[Rollout], sampling: SamplingSettings) -> None:
    """Write the file so that it is there whole, or not at all."""
    schema = SCHEMA.with_metadata({SAMPLING: json.dumps(sampling.as_dict()).encode()})
    table = pa.Table.from_pylist([one.row() for one in rollouts], schema=schema)
    with settled(path) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)


def read_rollouts(path: Path) -> list[Rollout]:
    """The rollouts of a file, in their order."""
    with pa.memory_map(str(path)) as mapped:
        rows = pa.ipc.open_file(mapped).read_all().to_pylist()
    return [_of_row(row) for row in rows]


def _of_row(row: dict[str, Any]) -> Rollout:
    completion = Completion(
        tuple(row["completion_ids"]), tuple(row["log_p"]), row["finish_reason"], row["seed"], row["policy"]
    )
    return Rollout(
        row["round"],
        row["group"],
        row["prompt_row"],
        tuple(row["prompt_ids"]),
        completion,
        row["text"],
        _tupled(row["policy_log_p"]),
        _tupled(row["reference_log_p"]),
        # Of a run that was begun by an older version there is none.
        episode_of(row.get("episode"), row.get("mask")),
    )


def _listed(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)


def _tupled(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
