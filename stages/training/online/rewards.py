"""What rewards say of completions, and which of them could not be given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunemill.stages.errors import UserError

# How many failures an error lists.
LISTED = 3


@dataclass(frozen=True)
class Failure:
    """Why something gave no rewards for some completions, in words."""

    rows: tuple[int, ...]
    name: str
    words: str


@dataclass(frozen=True)
class Scores:
    """`values_nf`: of each of n completions the f rewards, None where one does not apply or has failed.

    `metrics` are means of what functions have logged, `extra` columns of the completions.
    """

    names: tuple[str, ...]
    values_nf: list[list[float | None]]
    failures: tuple[Failure, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, list[Any]] = field(default_factory=dict)

    @property
    def failed(self) -> frozenset[int]:
        """The completions whose rewards are not known."""
        return frozenset(row for failure in self.failures for row in failure.rows)

    @property
    def silent(self) -> frozenset[int]:
        """The completions of which no reward says anything, though none has failed."""
        unsaid = {row for row, values in enumerate(self.values_nf) if all(one is None for one in values)}
        return frozenset(unsaid - self.failed)

    def failed_groups(self, size: int) -> frozenset[int]:
        """The prompts one of whose `size` completions has failed: the others cannot be compared with it."""
        return frozenset(row // size for row in self.failed)


def together(parts: Sequence[Scores]) -> Scores:
    """Of parts of a round, one behind the other. What functions have logged is the mean over their completions."""
    values_nf = [row for part in parts for row in part.values_nf]
    failures, logged, first = list[Failure](), dict[str, list[tuple[float, int]]](), 0
    extra: dict[str, list[Any]] = {}
    for part in parts:
        count = len(part.values_nf)
        failures += [replace(one, rows=tuple(first + row for row in one.rows)) for one in part.failures]
        for name, value in part.metrics.items():
            logged.setdefault(name, []).append((value, count))
        for name, items in part.extra.items():
            extra.setdefault(name, [None] * len(values_nf))[first : first + count] = items
        first += count
    metrics = {
        name: sum(value * count for value, count in told) / sum(count for _, count in told)
        for name, told in logged.items()
    }
    return Scores(parts[0].names, values_nf, tuple(failures), metrics, extra)


def too_many(scores: Scores, size: int, allowed: float) -> UserError | None:
    """The error that ends a run where more than this share of the prompts of a round have failed."""
    failed, groups = len(scores.failed_groups(size)), len(scores.values_nf) // size
    if failed <= allowed * groups:
        return None
    return UserError(
        f"rewards of {failed} of {groups} prompts failed, and pipeline.failed_rewards allows {allowed:g} of them:\n"
        f"{listed(scores.failures)}"
    )


def listed(failures: Sequence[Failure]) -> str:
    """The kinds of failure, each with how many completions it was about, the most frequent first."""
    counted: dict[str, int] = {}
    for one in failures:
        counted[one.words] = counted.get(one.words, 0) + len(one.rows)
    kinds = sorted(counted.items(), key=lambda item: -item[1])
    lines = [f"  {words} ({count} completions)" for words, count in kinds[:LISTED]]
    more = [f"  and {len(kinds) - LISTED} other kinds"] if len(kinds) > LISTED else []
    return "\n".join([*lines, *more])
