"""The completions that a training has kept: read, chosen, summed up, and scored anew."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tunemill.stages.errors import UserError
from tunemill.stages.training.online.episode import Episode, episode_of
from tunemill.stages.training.online.reward_asking import Asked, Rewards

FILE = "rollouts.arrow"
SCORED_BY = b"rewards"
COLUMNS = [
    "round", "group", "prompt_row", "prompt", "columns", "completion_ids", "text", "finish_reason", "policy", "rewards",
    "reward", "advantage",
]  # fmt: skip


@dataclass(frozen=True)
class Rollout:
    """One completion: what it was, what it was given, and by which policy it was sampled.

    `round` and `prompt_row` count from 1, as the log and the tables of a training do; in the file they count from 0.
    """

    round: int
    group: int
    prompt_row: int
    prompt: Any
    columns: dict[str, Any]
    ids: tuple[int, ...]
    text: str
    finish_reason: str
    policy: str
    rewards: tuple[float | None, ...]
    reward: float | None
    advantage: float
    episode: Episode | None = None
    """What else is known of a completion of several turns."""

    @property
    def asked(self) -> str:
        """The prompt as one text."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(f"{one.get('role')}: {one.get('content')}" for one in self.prompt)

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """For a program."""
        rewards = dict(zip(names, self.rewards, strict=True))
        said = {name: value for name, value in vars(self).items() if name != "episode"}
        return {**said, "ids": list(self.ids), "rewards": rewards}


@dataclass(frozen=True)
class Kept:
    """The completions of a training, in the order in which they were sampled; `names` of the rewards, with weights."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    rollouts: tuple[Rollout, ...]
    steps: int
    """Those of a round."""

    def reward_of(self, name: str | None) -> Callable[[Rollout], float | None]:
        """What tells one reward of a completion, None: their weighted sum. Raises UserError for an unknown name."""
        if name is None:
            return lambda one: one.reward
        if name not in self.names:
            raise UserError(f"--reward {name}: there are {', '.join(self.names)}")
        place = self.names.index(name)
        return lambda one: one.rewards[place]

    def groups(self) -> list[list[Rollout]]:
        """Completions of one prompt that were sampled together."""
        found: dict[tuple[int, int], list[Rollout]] = defaultdict(list)
        for one in self.rollouts:
            found[one.round, one.group].append(one)
        return list(found.values())


def has_kept(folder: Path) -> bool:
    """Whether an artifact is of a training that keeps its completions, be it none of them."""
    return (folder / "logs" / FILE).is_file()


def read_kept(folder: Path) -> Kept:
    """What lies in the logs of an artifact. Raises UserError where nothing was kept."""
    import pyarrow as pa

    file = folder / "logs" / FILE
    if not file.is_file():
        raise UserError(f"{folder} has no rollouts: it was not trained on completions of its own")
    with pa.memory_map(str(file)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    if not len(table):
        raise UserError(f"{folder} has no rollouts: pipeline.keep_rollouts was less than a round has")
    about = json.loads(table.schema.metadata[SCORED_BY])
    return Kept(
        tuple(about["names"]),
        tuple(about["weights"]),
        # The probabilities of each token are most of the file, and nobody looks at them here.
        tuple(_rollout(row) for row in table.select(_columns(table)).to_pylist()),
        about.get("steps", 1),
    )


def _columns(table: Any) -> list[str]:
    """Files of older versions say nothing of turns."""
    return [*COLUMNS, *(["episode"] if "episode" in table.column_names else [])]


def _rollout(row: dict[str, Any]) -> Rollout:
    return Rollout(
        row["round"] + 1,
        row["group"],
        row["prompt_row"] + 1,
        json.loads(row["prompt"]),
        json.loads(row["columns"]),
        tuple(row["completion_ids"]),
        row["text"],
        row["finish_reason"],
        row["policy"],
        tuple(row["rewards"]),
        row["reward"],
        row["advantage"],
        episode_of(row.get("episode"), None),
    )


@dataclass(frozen=True)
class Change:
    """A prompt that was sampled in several rounds: the mean reward in the first and in the last of them."""

    prompt_row: int
    asked: str
    rounds: tuple[int, int]
    means: tuple[float, float]

    @property
    def by(self) -> float:
        """How much better it has become."""
        return self.means[1] - self.means[0]


def changes(kept: Kept, name: str | None = None) -> list[Change]:
    """The prompts that were sampled more than once, those whose reward has changed most first."""
    reward = kept.reward_of(name)
    by_prompt: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    texts = {one.prompt_row: one.asked for one in kept.rollouts}
    for one in kept.rollouts:
        if (value := reward(one)) is not None:
            by_prompt[one.prompt_row][one.round].append(value)
    found = []
    for row, rounds in by_prompt.items():
        first, last = min(rounds), max(rounds)
        if first != last:
            found.append(Change(row, texts[row], (first, last), (fmean(rounds[first]), fmean(rounds[last]))))
    return sorted(found, key=lambda one: -abs(one.by))


@dataclass(frozen=True)
class Rescored:
    """Completions with what the rewards say now: `values_nf`, None where one does not apply or has failed."""

    kept: Kept
    names: tuple[str, ...]
    weights: tuple[float, ...]
    values_nf: list[list[float | None]]
    failures: tuple[str, ...]
    failed: frozenset[int] = frozenset()
    """The completions of prompts one of whose rewards has failed: in a training they count nothing."""

    @property
    def rewards(self) -> list[float | None]:
        """The weighted sums, None of completions that have failed."""
        return [
            None if place in self.failed else _weighted(values, self.weights)
            for place, values in enumerate(self.values_nf)
        ]

    def moved(self) -> Iterator[tuple[Rollout, float | None]]:
        """The completions whose reward is another one, with what it is now, those that moved most first."""
        pairs = zip(self.kept.rollouts, self.rewards, strict=True)
        other = [(one, now) for one, now in pairs if one.reward != now]
        yield from sorted(other, key=lambda pair: -abs((pair[0].reward or 0) - (pair[1] or 0)))

    def other_best(self) -> int:
        """Groups in which another completion is the best now."""
        now = dict(zip(map(id, self.kept.rollouts), self.rewards, strict=True))
        return sum(
            {id(one) for one in _best(group, [one.reward for one in group])}
            != {id(one) for one in _best(group, [now[id(one)] for one in group])}
            for group in self.kept.groups()
        )

    def other_sign(self) -> int:
        """Completions that count the other way: better than their group then and not now, or the other way round."""
        now = dict(zip(map(id, self.kept.rollouts), self.rewards, strict=True))
        found = 0
        for group in self.kept.groups():
            before, after = (
                _signs(values) for values in ([one.reward for one in group], [now[id(one)] for one in group])
            )
            found += sum(a != b for a, b in zip(before, after, strict=True))
        return found


def rescored(kept: Kept, names: Sequence[str], weights: Sequence[float], ask: Rewards) -> Rescored:
    """All completions scored again, a round at a time; nothing is sampled."""
    values: dict[int, list[float | None]] = {}
    failures: list[str] = []
    failed: set[int] = set()
    rounds: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(kept.rollouts):
        rounds[one.round].append(place)
    for number, places in rounds.items():
        rollouts = [kept.rollouts[place] for place in places]
        asked = _asked(number, rollouts, kept.steps)
        scores = ask(asked)
        groups = scores.failed_groups(asked.group)
        failed |= {place for row, place in enumerate(places) if row // asked.group in groups}
        failures += [failure.words for failure in scores.failures]
        values |= dict(zip(places, scores.values_nf, strict=True))
    return Rescored(
        kept,
        tuple(names),
        tuple(weights),
        [values[place] for place in range(len(values))],
        tuple(failures),
        frozenset(failed),
    )


def _asked(number: int, rollouts: Sequence[Rollout], steps: int) -> Asked:
    sizes: dict[int, int] = defaultdict(int)
    for one in rollouts:
        sizes[one.group] += 1
    columns = dict.fromkeys(name for one in rollouts for name in one.columns)
    episodes = [one.episode for one in rollouts if one.episode is not None]
    return Asked(
        [one.prompt if one.episode is None else one.episode.prompt for one in rollouts],
        [_completion(one) for one in rollouts],
        [list(one.ids) for one in rollouts],
        {name: [one.columns.get(name) for one in rollouts] for name in columns},
        group=next(iter(sizes.values())),
        step=(number - 1) * steps,
        round=number - 1,
        episodes=episodes or None,
    )


def _completion(one: Rollout) -> Any:
    if one.episode is not None:
        return one.episode.messages
    return one.text if isinstance(one.prompt, str) else [{"role": "assistant", "content": one.text}]


def _weighted(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    known = [value * weight for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(known) if known else None


def _best(group: Sequence[Rollout], values: Sequence[float | None]) -> list[Rollout]:
    known = [value for value in values if value is not None]
    return [one for one, value in zip(group, values, strict=True) if known and value == max(known)]


def _signs(values: Sequence[float | None]) -> list[int]:
    known = [value for value in values if value is not None]
    mean = fmean(known) if known else 0.0
    return [0 if value is None else (value > mean) - (value < mean) for value in values]
