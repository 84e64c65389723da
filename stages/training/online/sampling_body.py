"""The rollouts of rounds: sampled of the model as it is, with what it says of them, and kept on the disk at once."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from tunemill.stages.artifacts import Model
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.online.ahead_body import Ahead
from tunemill.stages.training.online.batches_body import sequences
from tunemill.stages.training.online.engine import Engine
from tunemill.stages.training.online.episodes_body import Player, Start, answers
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.judged_body import answer_of
from tunemill.stages.training.online.plan import Plan
from tunemill.stages.training.online.player_body import player
from tunemill.stages.training.online.policy_body import asked, completion_log_p
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.rerolls import Answered, Prompts
from tunemill.stages.training.online.rollouts import Rollout
from tunemill.stages.training.online.transformers_engine_body import TransformersEngine
from tunemill.stages.training.reference_body import LiveReference

# Prompts by which an engine is asked whether it has the weights.
PROBED = 8


class Sampling:
    """Gives the rollouts of a round: those of the journal, and of the engine what is not there yet.

    `heard` says of a round, whose prompts it is given, which were answered; `sampled` is told of groups that were
    sampled and kept.
    `step` is the one that is taken, from 1.
    `longest` says of a prompt's row how many tokens a completion may have; None: as many as the settings say.
    """

    def __init__(
        self,
        config: PolicyKeys,
        plan: Plan,
        journal: Journal,
        prompts: PromptRows,
        words: Any,
        end_ids: frozenset[int],
        base_model: Model,
        out: Workspace,
        report: Report,
        heard: Callable[[int, list[int]], Answered],
        sampled: Callable[[Sequence[Rollout]], None],
        step: Callable[[], int],
        longest: Callable[[int], int] | None = None,
    ) -> None:
        self.generated_tokens = 0
        """Tokens that were sampled since the training began, or went on."""
        self.reference = LiveReference(config, base_model) if config.beta else None
        self._config, self._plan, self._journal = config, plan, journal
        self._prompts, self._words, self._ends = prompts, words, end_ids
        self._base_model, self._out, self._report = base_model, out, report
        self._longest = longest or (lambda _row: config.max_completion_length)
        self._step = step
        self._engine: Engine
        self._player: Player | None = None
        self._engines = ExitStack()
        self._heard, self._tell = heard, sampled
        self._rounds = 0
        self._wanted: Prompts
        self._ahead = Ahead(beside=False)
        self._spent: dict[int, tuple[int, float]] = {}

    def meet(self, model: Any) -> None:
        """Called with the loaded model, of each attempt to train."""
        self.close()
        self._ahead = Ahead(beside=self._config.use_vllm)
        self._engine = self._engines.enter_context(self._engine_of(model))
        opened = player(self._config, self._base_model, self._words, self._ends, self._step, model)
        self._player = self._engines.enter_context(opened)

    def begin(self, rounds: int) -> None:
        """Called before the first step: how many rounds the training has."""
        self._rounds, config = rounds, self._config
        first = config.first_reroll(rounds)
        self._wanted = Prompts(self._plan, first, config.reroll_max_groups, config.rounds_ahead, self._heard)
        parts, count = len(self._parts()), ranks.count()
        if parts < count and not config.use_vllm:
            self._report.log(
                f"a round is sampled in {parts} parts by {count} processes, so {count - parts} of them wait while it "
                f"is: a smaller pipeline.completions_at_once has more parts"
            )

    def settle(self) -> None:
        """Until all that is sampled ahead is on the disk: weights that are gone cannot be sampled of again."""
        self._ahead.settle()

    def close(self) -> None:
        """End what the engine has started."""
        self._engines.close()
        self._ahead.close()

    def prompts_of(self, number: int) -> list[int]:
        """The prompts of a round."""
        return self._wanted.of(number) if self._config.rerolls else self._plan.prompts_of(number)

    def asked_again(self, number: int) -> int:
        """How many of them are there because they were not answered before."""
        return self._wanted.asked_again(number)

    def speed(self, number: int) -> float:
        """Tokens a second that a round was sampled with; NaN where it was read."""
        tokens, seconds = self._spent.get(number, (0, 0.0))
        return tokens / seconds if seconds else float("nan")

    def _engine_of(self, model: Any) -> AbstractContextManager[Engine]:
        """What samples of the model: vLLM, where that is asked for, or the model itself."""
        if not self._config.use_vllm or not ranks.is_first():
            return nullcontext(TransformersEngine(model, self._ends))
        # Its client is an extra.
        from tunemill.stages.training.online.vllm_engine_body import vllm_engine

        probe = [self._prompts[row].ids for row in range(min(len(self._prompts), PROBED))]
        longest = self._config.longest_prompt(self._prompts.longest) + self._config.max_completion_length
        return vllm_engine(
            self._config, model, self._base_model, probe, self._ends, longest, self._out, self._report
        )

    def rollouts(self, model: Any, step: int, policy: str, number: int) -> list[Rollout]:
        """Those of a round, before which so many steps are taken, which have led to this policy."""
        if self._config.rounds_ahead:
            self._sample_ahead(step, policy, number)
        for place, first in enumerate(self._parts()):
            if self._is_mine(place) and self._journal.rollouts(number, first) is None:
                found = self.said(model, self._sampled(step, policy, number, first))
                self._journal.keep_rollouts(found, self._config.sampling)
                if not self._config.rounds_ahead:
                    self._tell(found)
        ranks.wait_for_all()
        self._sum_up(number)
        return [one for first in self._parts() for one in self._journal.whole(number, first)]

    def _is_mine(self, place: int) -> bool:
        """Whether this process samples that part of a round. An engine beside them is spoken to by the first alone."""
        return place % ranks.count() == ranks.number() if not self._config.use_vllm else ranks.is_first()

    def _sum_up(self, number: int) -> None:
        """What all processes have sampled of a round in the time of those that have."""
        tokens, seconds = self._spent.get(number, (0, 0.0))
        summed = ranks.summed({"tokens": tokens, "seconds": seconds, "samplers": float(seconds > 0)})
        self._spent[number] = int(summed["tokens"]), summed["seconds"] / max(summed["samplers"], 1)
        self.generated_tokens += int(summed["tokens"])

    def said(self, model: Any, rollouts: list[Rollout]) -> list[Rollout]:
        """With what the model says of them when their round begins, and the reference, where that is read."""
        if self._plan.steps_of_round > 1:
            rollouts = self._said(model, rollouts, "policy_log_p")
        if self.reference is not None:
            with self.reference.of(model) as reference:
                rollouts = self._said(reference, rollouts, "reference_log_p")
        return rollouts

    def _parts(self) -> range:
        """The first groups of what is sampled together."""
        return range(0, self._plan.groups, self._config.groups_at_once)

    def _sampled(self, step: int, policy: str, number: int, first: int) -> list[Rollout]:
        if self._config.rounds_ahead:
            found = self._journal.sampled(number, first)
            assert found is not None, "sampled ahead"
            return found
        self._engine.sync(policy, step)
        return self._drawn(number, first, self.prompts_of(number))

    def _sample_ahead(self, step: int, policy: str, number: int) -> None:
        """Begin the rounds that are to be sampled of the weights as they are, and wait for this one."""
        last = min(number + self._config.rounds_ahead, self._rounds - 1)
        missing = [
            (one, first)
            for one in range(number, last + 1)
            for place, first in enumerate(self._parts())
            if self._is_mine(place) and not self._ahead.has_begun(one) and not self._journal.has(one, first)
        ]
        if missing:
            self._ahead.settle()
            self._engine.sync(policy, step)
        for one, first in missing:
            self._ahead.begin(one, partial(self._keep_drawn, one, first, self.prompts_of(one)))
        self._ahead.wait_for(number)

    def _keep_drawn(self, number: int, first: int, wanted: list[int]) -> None:
        found = self._drawn(number, first, wanted)
        self._journal.keep_sampled(found, self._config.sampling)
        self._tell(found)

    def _drawn(self, number: int, first: int, wanted: Sequence[int]) -> list[Rollout]:
        """Groups of a round that are sampled together, from the first one on, of what the engine was given."""
        groups = range(first, min(first + self._config.groups_at_once, len(wanted)))
        places = [
            (group, wanted[group], seed) for group in groups for seed in self._plan.seeds(number, group)
        ]
        starts = [Start(row, self._prompts[row], seed, self._longest(row)) for _, row, seed in places]
        started = time.monotonic()
        played = answers(self._player, self._engine.generate, starts, self._config.sampling)
        rollouts = [
            Rollout(
                number,
                group,
                row,
                one.prompt_ids,
                one.completion,
                answer_of(self._words, one.completion.ids),
                episode=one.episode,
            )
            for (group, row, _), one in zip(places, played, strict=True)
        ]
        tokens, seconds = self._spent.get(number, (0, 0.0))
        new = sum(one.said for one in rollouts)
        self._spent[number] = tokens + new, seconds + time.monotonic() - started
        return rollouts

    def _said(self, model: Any, rollouts: Sequence[Rollout], name: str) -> list[Rollout]:
        """The rollouts with what a model says of their tokens."""
        made: list[Rollout] = []
        device = next(model.parameters()).device
        with asked(model) as plain:
            for first in range(0, len(rollouts), self._config.micro_batch_size):
                part = rollouts[first : first + self._config.micro_batch_size]
                log_p_bt, _ = completion_log_p(plain, sequences(part, device), self._config.temperature)
                for one, log_p in zip(part, log_p_bt.tolist(), strict=True):
                    said: Any = {name: tuple(log_p[: len(one.completion.ids)])}
                    made.append(replace(one, **said))
        return made
