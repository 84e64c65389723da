"""The rewards of rounds: asked of a whole round at once, or of some groups as soon as they are sampled."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby

from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.report import Report
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.online.ahead_body import Ahead
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.judged_body import as_json, asked_about, scores_of
from tunemill.stages.training.online.plan import Plan
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.reward_asking import Rewards
from tunemill.stages.training.online.rewards import Scores, listed, together, too_many
from tunemill.stages.training.online.rollouts import Rollout


class Scoring:
    """Gives the rewards of a round: those of the journal, and what the functions say where it has none."""

    def __init__(
        self,
        config: PolicyKeys,
        plan: Plan,
        journal: Journal,
        prompts: PromptRows,
        rewards: Rewards,
        report: Report,
    ) -> None:
        self._config, self._plan, self._journal = config, plan, journal
        self._prompts, self._rewards, self._report = prompts, rewards, report
        self._ahead = Ahead(beside=False)
        self._parts: dict[tuple[int, int], Scores] = {}

    def meet(self) -> None:
        """Called of each attempt to train."""
        self.close()
        self._ahead = Ahead(beside=self._config.streaming_partial_batch)

    def close(self) -> None:
        """Wait for who is asked."""
        self._ahead.close()

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        """Groups of a round were sampled: where rewards are streamed, they are asked beside what is done next."""
        if self._config.streaming_partial_batch and ranks.is_first():
            for part in self._split(rollouts):
                self._ahead.begin(part[0].round, partial(self._score_part, part))

    def _split(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """Groups whose rewards are asked together: of those that were sampled together so many at a time."""
        at_once, size = self._config.groups_at_once, self._config.streaming_min_groups or 1

        def place(one: Rollout) -> tuple[int, int]:
            return one.group // at_once, one.group % at_once // size

        return [list(part) for _, part in groupby(rollouts, place)]

    def scores(self, number: int, rollouts: Sequence[Rollout]) -> Scores:
        """Those of the rollouts of a round, which are kept first of all.

        Raises UserError where more rewards fail than `pipeline.failed_rewards` allows.
        """
        with ranks.first_before_others():
            stored = self._journal.scores(number)
            return self._asked(number, rollouts) if stored is None else scores_of(stored)

    def _asked(self, number: int, rollouts: Sequence[Rollout]) -> Scores:
        assert ranks.is_first(), "the others read what the first has kept"
        size = self._config.num_generations
        if self._config.streaming_partial_batch:
            scores = self._gathered(number, rollouts)
            if (error := too_many(scores, size, self._config.failed_rewards)) is not None:
                raise error
        else:
            scores = self._rewards(asked_about(self._prompts, rollouts, size, self._step(number)))
        self._tell(number, scores)
        self._journal.keep_scores(number, as_json(scores))
        return scores

    def _step(self, number: int) -> int:
        """Steps that are taken before a round begins."""
        return number * self._plan.steps_of_round

    def _gathered(self, number: int, rollouts: Sequence[Rollout]) -> Scores:
        """Of the parts that were scored; those that were not, as a run was killed, are scored now."""
        self._ahead.wait_for(number)
        for part in self._split(rollouts):
            if (number, part[0].group) not in self._parts:
                self._ahead.begin(number, partial(self._score_part, part))
        self._ahead.wait_for(number)
        return together([self._parts.pop((number, part[0].group)) for part in self._split(rollouts)])

    def _score_part(self, rollouts: Sequence[Rollout]) -> None:
        number, first = rollouts[0].round, rollouts[0].group
        stored = self._journal.scores(number, first)
        if stored is not None:
            self._parts[number, first] = scores_of(stored)
            return
        size = self._config.num_generations
        asked = asked_about(self._prompts, rollouts, size, self._step(number), first_row=first * size)
        scores = self._rewards(asked)
        self._journal.keep_scores(number, as_json(scores), first)
        self._parts[number, first] = scores

    def _tell(self, number: int, scores: Scores) -> None:
        if scores.failures:
            self._report.log(
                f"round {number + 1}: rewards of {len(scores.failed_groups(self._config.num_generations))} of "
                f"{self._plan.groups} prompts failed, which count nothing:\n{listed(scores.failures)}"
            )
        if silent := scores.silent:
            self._report.log(
                f"round {number + 1}: no reward says anything of {len(silent)} of {len(scores.values_nf)} completions, "
                f"which count nothing"
            )
