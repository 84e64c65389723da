"""The journal of an online training: what was sampled, what it was given, which steps were taken.

Its files lie among the checkpoints, so they outlive a crash:

    sampled-000012-003.arrow    groups 3 and following of round 12, as they were sampled together before its turn
    rollouts-000012-003.arrow   the same with what the model said of them when it was its turn
    replayed-000012.arrow       groups of earlier rounds that it learns from again, with what the model said of them
    scores-000012-003.json      what the rewards say of groups 3 and following, where they are asked of some at a time
    scores-000012.json          what they say of all rollouts of the round
    evaluated-000012.json       figures of held-out prompts behind step 12
    steps.jsonl                 a line for each step that was taken: its round, and the weights' digest behind it

Each is on the disk before anything that builds on it begins: groups before their rewards, rewards before the steps,
a step before the next round, what is sampled ahead before a checkpoint of younger weights. A run that goes on reads
what is there, so it samples no group twice, asks no reward twice, and takes the steps behind its checkpoint again with
the same rollouts and rewards: none is lost, none counts twice.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.training.online.engine import SamplingSettings
from tunemill.stages.training.online.rollouts import Rollout, read_rollouts, write_rollouts
from tunemill.stages.training.online.settled import flush, settled

FOLDER = "journal"


@dataclass(frozen=True)
class Taken:
    """A step that was taken: its number from 1, the round that it learned from, the digest of the weights behind it."""

    step: int
    round: int
    policy: str


@dataclass(frozen=True)
class Journal:
    """The files below `folder`."""

    folder: Path

    @classmethod
    def among(cls, checkpoints: Path) -> "Journal":
        """That of a run with these checkpoints; what was half written when it was killed goes."""
        folder = checkpoints / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.part"):
            part.unlink()
        return cls(folder)

    def _rollouts(self, number: int, first_group: int, kind: str = "rollouts") -> Path:
        return self.folder / f"{kind}-{number:06d}-{first_group:03d}.arrow"

    def _scores(self, number: int, first_group: int | None) -> Path:
        part = "" if first_group is None else f"-{first_group:03d}"
        return self.folder / f"scores-{number:06d}{part}.json"

    def keep_rollouts(self, rollouts: Sequence[Rollout], sampling: SamplingSettings) -> None:
        """Keep whole groups that were sampled together."""
        write_rollouts(self._rollouts(rollouts[0].round, rollouts[0].group), rollouts, sampling)

    def rollouts(self, number: int, first_group: int) -> list[Rollout] | None:
        """The groups from this one on that were sampled together; None where they were not."""
        path = self._rollouts(number, first_group)
        return read_rollouts(path) if path.is_file() else None

    def whole(self, number: int, first_group: int) -> list[Rollout]:
        """The groups from this one on, which are known to be kept."""
        found = self.rollouts(number, first_group)
        assert found is not None, f"round {number} was sampled"
        return found

    def keep_sampled(self, rollouts: Sequence[Rollout], sampling: SamplingSettings) -> None:
        """Keep whole groups that were sampled together before it is their round's turn."""
        write_rollouts(self._rollouts(rollouts[0].round, rollouts[0].group, "sampled"), rollouts, sampling)

    def sampled(self, number: int, first_group: int) -> list[Rollout] | None:
        """The groups from this one on that were sampled together; None where they were not, or not ahead."""
        path = self._rollouts(number, first_group, "sampled")
        return read_rollouts(path) if path.is_file() else None

    def has(self, number: int, first_group: int) -> bool:
        """Whether the groups from this one on were sampled, ahead or not."""
        return any(self._rollouts(number, first_group, kind).is_file() for kind in ("rollouts", "sampled"))

    def _replayed(self, number: int) -> Path:
        return self.folder / f"replayed-{number:06d}.arrow"

    def keep_replayed(self, number: int, rollouts: Sequence[Rollout], sampling: SamplingSettings) -> None:
        """Keep the groups that a round learns from again."""
        write_rollouts(self._replayed(number), rollouts, sampling)

    def replayed(self, number: int) -> list[Rollout] | None:
        """The groups that a round learns from again; None where none are kept."""
        path = self._replayed(number)
        return read_rollouts(path) if path.is_file() else None

    def keep_scores(self, number: int, scores: Any, first_group: int | None = None) -> None:
        """Keep what the rewards say of a round, or of its groups from this one on, as JSON has it."""
        with settled(self._scores(number, first_group)) as part:
            part.write_text(json.dumps(scores), encoding="utf-8")

    def scores(self, number: int, first_group: int | None = None) -> Any:
        """What the rewards say of a round, or of its groups from this one on; None where they were not asked."""
        path = self._scores(number, first_group)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _evaluated(self, step: int) -> Path:
        return self.folder / f"evaluated-{step:06d}.json"

    def keep_evaluated(self, step: int, asked: str, found: Mapping[str, float]) -> None:
        """Keep the figures of an evaluation behind a step; `asked` says what, and of which weights."""
        with settled(self._evaluated(step)) as part:
            part.write_text(json.dumps({"asked": asked, "figures": dict(found)}), encoding="utf-8")

    def evaluated(self, step: int, asked: str) -> dict[str, float] | None:
        """Those figures; None where there are none, or where something else was asked."""
        path = self._evaluated(step)
        if not path.is_file():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        return dict(kept["figures"]) if kept["asked"] == asked else None

    @property
    def _steps(self) -> Path:
        return self.folder / "steps.jsonl"

    def keep_step(self, taken: Taken) -> None:
        """Keep that a step was taken."""
        new = not self._steps.exists()
        with self._steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(taken)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            flush(self.folder)

    def steps(self) -> dict[int, Taken]:
        """The steps that were taken, by their numbers; a line that was half written is none."""
        if not self._steps.is_file():
            return {}
        lines = self._steps.read_text(encoding="utf-8").split("\n")
        # Behind the last line break stands nothing, or what was half written.
        found = [Taken(**json.loads(line)) for line in lines[:-1] if line]
        return {one.step: one for one in found}

    def mend(self) -> None:
        """Cut off what was half written at the end of the steps, so that a new line begins a line."""
        if not self._steps.is_file():
            return
        text = self._steps.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            with settled(self._steps) as part:
                part.write_bytes(whole)

    def files(self, number: int) -> list[Path]:
        """The files of rollouts of a round, in the order of their groups."""
        return sorted(self.folder.glob(f"rollouts-{number:06d}-*.arrow"))
