"""Asking rewards: functions in processes of their own, and models by whatever runs them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.artifacts import Model
from tunemill.stages.own_classes import dotted
from tunemill.stages.training.online.episode import Episode
from tunemill.stages.training.online.reward_calls import Call, Reply, not_finite
from tunemill.stages.training.online.reward_keys import RewardKeys, is_asset, is_model_folder
from tunemill.stages.training.online.reward_workers import Workers, workers
from tunemill.stages.training.online.rewards import Failure, Scores, too_many

# How often one function may take too long for single prompts before the others are not asked any more.
PATIENCE = 3
ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Asked:
    """Completions that are scored, in whole groups of `group`: `prompts` and `completions` as TRL gives them.

    Both are texts, or lists of messages. `columns` are those of the prompts' rows, an item for each completion.
    `prompt_ids` are the prompts' tokens, which no function is given.
    """

    prompts: Sequence[Any]
    completions: Sequence[Any]
    ids: Sequence[Sequence[int]]
    columns: Mapping[str, Sequence[Any]]
    group: int
    step: int
    round: int
    prompt_ids: Sequence[Sequence[int]] = ()
    held_out: bool = False
    """Whether they are of held-out prompts: those are scored in processes of their own, so that what a function
    remembers of them reaches no reward that is learned from."""
    episodes: Sequence[Episode] | None = None
    """What is known of them, where completions have several turns."""
    first_row: int | None = None
    """Where they begin in their round, if they are a part of it: how many may fail is a question of whole rounds."""

    def arguments(self, rows: Sequence[int]) -> dict[str, Any]:
        """What a function is called with for some of them."""
        fields = dict.fromkeys(name for one in self.episodes or () for name in one.fields)
        told = {name: [one.fields.get(name) for one in self.episodes or ()] for name in fields}
        every = {
            **self.columns,
            **told,
            "prompts": self.prompts,
            "completions": self.completions,
            "completion_ids": self.ids,
        }
        return {name: [values[row] for row in rows] for name, values in every.items()}

    def environments(self, rows: Sequence[int]) -> list[bytes | None] | None:
        """Those of some of them, as they were when the completions had ended; None where there are none."""
        found = [one.state for one in self.episodes or ()]
        return [found[row] for row in rows] if any(one is not None for one in found) else None

    @property
    def lost(self) -> list[Failure]:
        """The completions whose environments failed, so that nothing can be said of them."""
        return [
            Failure((row,), ENVIRONMENT, one.failure)
            for row, one in enumerate(self.episodes or ())
            if one.failure is not None
        ]

    @property
    def sound(self) -> list[int]:
        """The completions of groups none of whose environments failed."""
        lost = {row // self.group for one in self.lost for row in one.rows}
        return [row for row in range(len(self.completions)) if row // self.group not in lost]


Rewards = Callable[[Asked], Scores]
Scorer = Callable[[Asked], list[float]]


@contextmanager
def rewards_by(
    config: RewardKeys, models: Sequence[Model], scorer_of: Callable[[Path], Scorer]
) -> Iterator[Rewards]:
    """What asks all of `trl.reward_funcs`, until the block ends; `models` are those of other pipelines, in order.

    `scorer_of` gives what runs the model of a folder. What asks raises UserError where more rewards fail than
    `pipeline.failed_rewards` allows, and SettingError where a function or a model does not load.
    """
    given = iter(models)
    scorers: list[Scorer | None] = []
    for name in config.reward_funcs:
        folder = next(given).path if is_asset(name) else Path(name) if is_model_folder(name) else None
        scorers.append(None if folder is None else scorer_of(folder))
    names = [dotted(name) for name in config.own_rewards]
    # Environments are told of by the classes of their files.
    files = list(dict.fromkeys((*(config.reward_code or []), *config.called_code)))
    given_to = (names, files, config.reward_num_workers, config.reward_timeout)
    with workers(*given_to) as pool, workers(*given_to) as apart:

        def ask(asked: Asked) -> Scores:
            told = iter(_by_functions(apart if asked.held_out else pool, asked))
            columns = [
                next(told) if scorer is None else _by_model(name, scorer, asked)
                for name, scorer in zip(config.reward_funcs, scorers, strict=True)
            ]
            columns += [_by_environment(asked) for _ in config.environment_rewards]
            scores = _together(config.reward_names, columns, len(asked.completions), asked.lost)
            if (
                asked.first_row is None
                and (error := too_many(scores, asked.group, config.failed_rewards)) is not None
            ):
                raise error
            return scores

        yield ask


@dataclass(frozen=True)
class _Column:
    """What one of the rewards says of all completions."""

    values: Sequence[float | None]
    failures: Sequence[tuple[tuple[int, ...], str]] = ()
    replies: Sequence[tuple[Sequence[int], Reply]] = ()


def _by_model(name: str, scorer: Scorer, asked: Asked) -> _Column:
    """A column of a model. Where it gives no number for a completion, its prompt has failed."""
    told = scorer(asked)
    values: list[float | None] = [*told]
    failures = []
    for first in range(0, len(told), asked.group):
        rows = range(first, first + asked.group)
        bad = next((told[row] for row in rows if not math.isfinite(told[row])), None)
        if bad is not None:
            failures.append((tuple(rows), not_finite(name, bad)))
            values[rows.start : rows.stop] = [None] * asked.group
    return _Column(values, failures)


def _by_environment(asked: Asked) -> _Column:
    """A column of what environments have said of their completions."""
    return _Column([one.reward for one in asked.episodes or ()])


def _by_functions(pool: Workers, asked: Asked) -> list[_Column]:
    """A column of each function. What fails for many prompts at once is asked again prompt by prompt."""
    rows_known = asked.sound
    parts = [
        [rows_known[place] for place in part] for part in _parts(len(rows_known), asked.group, pool.count)
    ]
    functions = range(len(pool.functions.names))
    calls = [_call(asked, function, rows) for function in functions for rows in parts]
    found: list[list[tuple[Sequence[int], Reply]]] = [[] for _ in functions]
    for call, reply in zip(calls, pool.run(calls), strict=True):
        one_by_one = reply.failure is not None and len(call.rows) > asked.group
        told = _one_by_one(pool, asked, call) if one_by_one else [(call.rows, reply)]
        found[call.function] += told
    return [_column(told, len(asked.completions)) for told in found]


def _one_by_one(pool: Workers, asked: Asked, failed: Call) -> list[tuple[Sequence[int], Reply]]:
    rows = failed.rows
    calls = [
        _call(asked, failed.function, rows[first : first + asked.group])
        for first in range(0, len(rows), asked.group)
    ]
    found: list[tuple[Sequence[int], Reply]] = []
    patience = PATIENCE
    for call in calls:
        if patience == 0:
            found.append((call.rows, found[-1][1]))
            continue
        (reply,) = pool.run([call])
        patience -= reply.ended
        found.append((call.rows, reply))
    return found


def _call(asked: Asked, function: int, rows: Sequence[int]) -> Call:
    number = "held out" if asked.held_out else asked.round
    seed = f"{number} {function} {(asked.first_row or 0) + rows[0]} {len(rows)}"
    return Call(
        function, tuple(rows), asked.arguments(rows), asked.step, seed, environments=asked.environments(rows)
    )


def _parts(count: int, group: int, workers: int) -> list[range]:
    """Completions in about as many parts as there are workers, each of whole groups."""
    groups = count // group
    if not groups:
        return []
    each = -(-groups // min(workers, groups))
    return [range(first * group, min(first + each, groups) * group) for first in range(0, groups, each)]


def _column(told: Sequence[tuple[Sequence[int], Reply]], count: int) -> _Column:
    values: list[float | None] = [None] * count
    failures = []
    for rows, reply in told:
        if reply.failure is not None:
            failures.append((tuple(rows), reply.failure))
            continue
        for row, value in zip(rows, reply.values, strict=True):
            values[row] = value
    return _Column(values, failures, told)


def _together(
    names: Sequence[str], columns: Sequence[_Column], count: int, lost: Sequence[Failure]
) -> Scores:
    failures = [
        *lost,
        *(
            Failure(rows, name, words)
            for name, column in zip(names, columns, strict=True)
            for rows, words in column.failures
        ),
    ]
    logged: dict[str, list[float]] = {}
    extra: dict[str, list[Any]] = {}
    for rows, reply in (told for column in columns for told in column.replies):
        for name, numbers in reply.metrics.items():
            logged.setdefault(name, []).extend(numbers)
        for name, items in reply.extra.items():
            kept = extra.setdefault(name, [None] * count)
            for row, item in zip(rows, items, strict=False):
                kept[row] = item
    metrics = {name: sum(numbers) / len(numbers) for name, numbers in logged.items() if numbers}
    values_nf = [[column.values[row] for column in columns] for row in range(count)]
    return Scores(tuple(names), values_nf, tuple(failures), metrics, extra)
