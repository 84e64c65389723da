"""Held-out prompts: at evaluations the policy as it is answers them, and the same rewards say how well."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tunemill.stages.artifacts import PromptData
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.models.wrapped_body import single
from tunemill.stages.report import Report
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.online.advantages import comparable, mean
from tunemill.stages.training.online.episodes_body import Player, Start, answers
from tunemill.stages.training.online.journal import FOLDER, Journal
from tunemill.stages.training.online.judged_body import answer_of, asked_about
from tunemill.stages.training.online.plan import held_out_seeds
from tunemill.stages.training.online.policy_body import digest_of
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.reward_asking import Rewards
from tunemill.stages.training.online.rewards import Scores, listed, together, too_many
from tunemill.stages.training.online.rollouts import Rollout
from tunemill.stages.training.online.transformers_engine_body import TransformersEngine


def held_out_of(training_data: PromptData, evaluation_data: PromptData | None) -> PromptRows | None:
    """The prompts that nothing is learned from; None where there are none."""
    if evaluation_data is not None:
        return PromptRows(evaluation_data.rows)
    return PromptRows(training_data.held_out) if training_data.held_out.is_file() else None


class HeldOut:
    """Scores a policy by its answers to prompts that it does not learn from.

    The model itself answers, whatever samples what is learned from, so that a server has the weights that training
    gave it; `opened` gives what it may call. Each prompt is answered by seeds of its own, the same at every evaluation.
    What was found is kept in the journal: a step that is taken again asks nothing again.
    """

    def __init__(
        self,
        config: PolicyKeys,
        prompts: PromptRows,
        words: Any,
        end_ids: frozenset[int],
        rewards: Rewards,
        checkpoints: Path,
        steps: Callable[[], int],
        report: Report,
        opened: Callable[[Any], AbstractContextManager[Player | None]],
        longest: Callable[[int], int] | None = None,
    ) -> None:
        self._config, self._prompts, self._words, self._ends = config, prompts, words, end_ids
        self._rewards, self._steps, self._report = rewards, steps, report
        self._journal = Journal(checkpoints / FOLDER)
        self._longest = longest or (lambda _row: config.max_completion_length)
        self._opened = opened
        self._contents = hashlib.sha256(prompts.file.read_bytes()).hexdigest()

    def score(self, model: Any) -> dict[str, float]:
        """Figures of the model as it is, which the first process finds for all; in the others there are none.

        Raises UserError where more rewards fail than may.
        """
        if not ranks.is_first():
            return {}
        model = single(model)
        step, config = self._steps(), self._config
        how = (config.held_out_generations, config.held_out_at_once)
        asked = f"{digest_of(model)} {self._contents} {how}"
        found = self._journal.evaluated(step, asked)
        if found is None:
            found = self._scored(model, step)
            self._journal.keep_evaluated(step, asked, found)
        return found

    def _scored(self, model: Any, step: int) -> dict[str, float]:
        with self._opened(model) as may_call:
            rollouts = self._answered(model, may_call)
        scores = self._judged(rollouts, step)
        if scores.failures:
            failed = len(scores.failed_groups(self._config.held_out_generations))
            self._report.log(
                f"step {step}: rewards of {failed} of {len(self._prompts)} held-out prompts failed, which count "
                f"nothing:\n{listed(scores.failures)}"
            )
        return figures_of(self._config, rollouts, scores)

    def _answered(self, model: Any, may_call: Player | None) -> list[Rollout]:
        """Completions of all prompts, as many prompts side by side as `eval_batch_size` says."""
        engine = TransformersEngine(model, self._ends)
        count, at_once = self._config.held_out_generations, self._config.held_out_at_once
        found: list[Rollout] = []
        for first in range(0, len(self._prompts), at_once):
            rows = range(first, min(first + at_once, len(self._prompts)))
            places = [(row, seed) for row in rows for seed in held_out_seeds(self._config.seed, row, count)]
            starts = [Start(row, self._prompts[row], seed, self._longest(row)) for row, seed in places]
            made = answers(may_call, engine.generate, starts, self._config.sampling)
            for (row, _), one in zip(places, made, strict=True):
                text = answer_of(self._words, one.completion.ids)
                found.append(Rollout(0, row, row, one.prompt_ids, one.completion, text, episode=one.episode))
        return found

    def _judged(self, rollouts: Sequence[Rollout], step: int) -> Scores:
        """What the rewards say, asked of as many prompts at a time as a round has."""
        size = self._config.held_out_generations
        each = max(1, self._config.per_round // self._config.num_generations) * size
        parts = []
        for first in range(0, len(rollouts), each):
            part = rollouts[first : first + each]
            asked = asked_about(self._prompts, part, size, step, first_row=first)
            parts.append(self._rewards(replace(asked, held_out=True)))
        scores = together(parts)
        if (error := too_many(scores, size, self._config.failed_rewards)) is not None:
            raise error
        return scores


def figures_of(config: PolicyKeys, rollouts: Sequence[Rollout], scores: Scores) -> dict[str, float]:
    """Means over the completions, as those that are learned from have them; a mean of nothing is left out."""
    size = config.held_out_generations
    values_nf = comparable(scores.values_nf, size, scores.failed_groups(size))
    judged_n = ~np.isnan(values_nf).all(axis=1)
    reward_n = np.where(judged_n, np.nansum(values_nf * np.array(config.weights, np.float64), axis=1), np.nan)
    each = zip(config.reward_names, mean(values_nf, axis=0), strict=True)
    found = {
        "reward": float(mean(reward_n)),
        **{f"rewards/{name}": float(value) for name, value in each},
        "completion_length": float(np.mean([one.said for one in rollouts])),
        "truncated": float(np.mean([one.truncated for one in rollouts])),
        "unjudged": float(1 - judged_n.mean()),
        **{f"logged/{name}": float(value) for name, value in scores.metrics.items()},
    }
    return {f"eval_{name}": value for name, value in found.items() if np.isfinite(value)}
