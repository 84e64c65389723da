"""What a round is learned from: what was sampled for it, or groups of earlier rounds in the place of some of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.online.advantages import Advantages
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.kept import Judged
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.replay import Held, Replays, signals
from tunemill.stages.training.online.rollouts import Rollout


@dataclass(frozen=True)
class Learned:
    """N completions with their advantages, and which of them are learned from once more."""

    rollouts: list[Rollout]
    values_n: npt.NDArray[np.float64]
    again_n: npt.NDArray[np.bool_]


class Learning:
    """`judged` gives the advantages of a round whose rewards are known."""

    def __init__(self, config: PolicyKeys, journal: Journal, judged: Callable[[int], Advantages]) -> None:
        self._config, self._journal, self._judged = config, journal, judged
        size = config.num_generations
        self._replays = Replays(
            config.replay_buffer_size,
            config.oldest_round,
            lambda number: signals(number, judged(number), size),
        )

    def of(self, number: int, judged: Judged, say: Callable[[list[Rollout]], list[Rollout]]) -> Learned:
        """What a round is learned from; `say` gives rollouts what the model says of them as it is."""
        rollouts, values_n = list(judged.rollouts), judged.advantages.values_n.copy()
        again_n = np.zeros(len(rollouts), np.bool_)
        chosen = self._replays.of(number) if self._config.replays else {}
        if not chosen:
            return Learned(rollouts, values_n, again_n)
        size = self._config.num_generations
        replayed = self._replayed(number, list(chosen.values()), say)
        for place, (group, held) in enumerate(chosen.items()):
            here = slice(group * size, (group + 1) * size)
            rollouts[here] = replayed[place * size : (place + 1) * size]
            values_n[here] = self._judged(held.round).values_n[held.group * size : (held.group + 1) * size]
            again_n[here] = True
        return Learned(rollouts, values_n, again_n)

    def _replayed(
        self, number: int, held: list[Held], say: Callable[[list[Rollout]], list[Rollout]]
    ) -> list[Rollout]:
        """The rollouts of these groups, one group behind the other."""
        with ranks.first_before_others():
            kept = self._journal.replayed(number)
            return self._kept(number, held, say) if kept is None else kept

    def _kept(
        self, number: int, held: list[Held], say: Callable[[list[Rollout]], list[Rollout]]
    ) -> list[Rollout]:
        found = [one for group in held for one in self._sampled(group)]
        if self._config.replay_recompute_logps:
            found = say(found)
        else:
            found = [
                one if one.policy_log_p is not None else replace(one, policy_log_p=one.completion.log_p)
                for one in found
            ]
        self._journal.keep_replayed(number, found, self._config.sampling)
        return found

    def _sampled(self, held: Held) -> list[Rollout]:
        first = held.group // self._config.groups_at_once * self._config.groups_at_once
        return [one for one in self._journal.whole(held.round, first) if one.group == held.group]
