"""Rounds: completions are sampled and judged just before the first step that learns from them, and kept on the disk."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from tunemill.stages.artifacts import Model
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.errors import UserError
from tunemill.stages.models.wrapped_body import single
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.dropout_body import leave_nothing_out
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.method import Batch
from tunemill.stages.training.online.advantages import Advantages, advantages, as_numbers, comparable
from tunemill.stages.training.online.batches_body import batch_of, for_step
from tunemill.stages.training.online.called import failed_calls, figures_of_calls
from tunemill.stages.training.online.examples_body import Slots
from tunemill.stages.training.online.health import OF_AGE, PERIODS, STOP_MISMATCH
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.judged_body import scores_of
from tunemill.stages.training.online.kept import Judged, chosen_rounds, write_kept
from tunemill.stages.training.online.learned_body import Learned, Learning
from tunemill.stages.training.online.policy_body import digest_of
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.rerolls import Answered, answered
from tunemill.stages.training.online.reward_asking import Rewards
from tunemill.stages.training.online.rewards import Scores
from tunemill.stages.training.online.rollouts import Rollout
from tunemill.stages.training.online.sampling_body import Sampling
from tunemill.stages.training.online.scoring_body import Scoring
from tunemill.stages.training.online.taken import TakenSteps

SHOWN, LONGEST_SHOWN = 4, 200


class Rounds(TrainerCallback):  # type: ignore[misc]
    """Makes the micro batches of each step, of completions that are sampled of the model as it is then.

    Whatever it makes it takes from the journal where it is there already.
    """

    def __init__(
        self,
        config: PolicyKeys,
        prompts: PromptRows,
        words: Any,
        end_ids: frozenset[int],
        rewards: Rewards,
        base_model: Model,
        out: Workspace,
        report: Report,
        longest: Callable[[int], int] | None = None,
    ) -> None:
        self.config, self.plan = config, config.plan(len(prompts))
        self.slots = Slots(self.plan, prompts.file)
        self._prompts, self._out, self._report = prompts, out, report
        with ranks.first_before_others():
            self._journal = Journal.among(out.checkpoints)
            if ranks.is_first():
                self._journal.mend()
        self._scoring = Scoring(config, self.plan, self._journal, prompts, rewards, report)
        self._sampling = Sampling(
            config,
            self.plan,
            self._journal,
            prompts,
            words,
            end_ids,
            base_model,
            out,
            report,
            self._answered,
            self._scoring.begin,
            lambda: self.step,
            longest,
        )
        self._learning = Learning(config, self._journal, self._judged)
        self._taken = TakenSteps(self._journal, report)
        self._round: tuple[int, Judged, Learned] | None = None
        self._steps_of: dict[str, int] = {}
        self._since = time.monotonic()
        self._tokens = 0
        self._trainers_speed = float("nan")
        self.step = 0
        """The step that is taken, or was taken last, from 1."""

    def meet(self, model: Any, precision: Precision, checkpoints: Path) -> list[Any]:
        """Called with the loaded model, of each attempt to train."""
        leave_nothing_out(model)
        self._sampling.meet(model)
        self._scoring.meet()
        self._steps_of = {one.policy: one.step for one in self._taken.read()}
        self._round = None
        reference = self._sampling.reference
        return [self] if reference is None else [reference.meet(model, precision, checkpoints), self]

    def resume(self, checkpoint: Path | None) -> None:
        """What a training goes on with lies in the journal."""

    def made(self, model: Any, step: int, batches: list[Batch]) -> list[Batch]:
        """The micro batches of the step behind so many others, in the places of those that are given."""
        model, number = single(model), self.plan.round_of(step)
        self.step = step + 1
        if self._round is None or self._round[0] != number:
            judged = self._make_round(model, step, number)
            learned = self._learning.of(number, judged, partial(self._sampling.said, model))
            self._round = number, judged, learned
        _, judged, learned = self._round
        chosen = list(self.plan.slots(step))
        self.slots.fill(step, [learned.rollouts[place] for place in chosen])
        self._tokens = sum(learned.rollouts[place].said for place in chosen)
        figures = {**self._figures(number, judged), **self._figures_of_age(number, learned)}
        device = next(model.parameters()).device
        made = []
        for batch in batches:
            part = [chosen[place] for place in self.slots.places_in_step(step, batch["slots"].tolist())]
            made.append(
                batch_of(
                    self.config,
                    [learned.rollouts[place] for place in part],
                    learned.values_n[part].tolist(),
                    {name: values[part] for name, values in figures.items()},
                    device,
                )
            )
        made = for_step(made)
        self._since = time.monotonic()
        return made

    def _make_round(self, model: Any, step: int, number: int) -> Judged:
        """The rollouts of a round with their rewards: read where they are there, else made, and kept first of all."""
        policy = digest_of(model)
        self._steps_of[policy] = step
        rollouts = self._sampling.rollouts(model, step, policy, number)
        is_new = ranks.is_first() and self._journal.scores(number) is None
        if is_new and (words := failed_calls(rollouts)) is not None:
            self._report.log(f"round {number + 1}: {words}")
        scores = self._scoring.scores(number, rollouts)
        judged = Judged(rollouts, scores, self._advantages(scores))
        if self.config.log_completions:
            self._show(number, judged)
        return judged

    def _advantages(self, scores: Scores) -> Advantages:
        """Of whole groups; those in which a reward failed count nothing."""
        size = self.config.num_generations
        return advantages(
            comparable(scores.values_nf, size, scores.failed_groups(size)),
            np.array(self.config.weights, np.float64),
            size,
            scale=self.config.scale_rewards,
            aggregation=self.config.aggregation,
        )

    def _judged(self, number: int) -> Advantages:
        """Of a round whose rewards are known."""
        return self._advantages(scores_of(self._journal.scores(number)))

    def _answered(self, number: int, prompts: list[int]) -> Answered:
        return answered(prompts, self._judged(number).rewards_n)

    def _figures_of_age(self, number: int, learned: Learned) -> dict[str, Any]:
        """How many steps older than the policy what it learns from is, and what is there again."""
        count, config, figures = len(learned.rollouts), self.config, dict[str, Any]()
        if config.is_off_policy:
            first = number * self.plan.steps_of_round
            steps = [self._steps_of.get(one.completion.policy, 0) for one in learned.rollouts]
            figures["staleness"] = np.maximum(first - np.array(steps, np.float64), 0)
        if config.replays:
            figures["learned_again"] = learned.again_n.astype(np.float64)
        if config.rerolls:
            figures["asked_again"] = np.full(count, self._sampling.asked_again(number) / self.plan.groups)
        return figures

    def _figures(self, number: int, judged: Judged) -> dict[str, Any]:
        """What is shown of each completion, under the names of TRL."""
        rollouts, found = judged.rollouts, judged.advantages
        values_nf = as_numbers(judged.scores.values_nf)
        level_n = np.repeat(
            (found.values_n.reshape(-1, self.config.num_generations) == 0).all(axis=1),
            self.config.num_generations,
        )
        return {
            "reward": found.rewards_n,
            "reward_std": found.spread_n,
            **{f"rewards/{name}": values_nf[:, place] for place, name in enumerate(self.config.reward_names)},
            "completion_length": np.array([one.said for one in rollouts], np.float64),
            **(figures_of_calls(rollouts) if self.config.calls_tools else {}),
            "truncated": np.array([one.truncated for one in rollouts], np.float64),
            "zero_advantage": level_n.astype(np.float64),
            "unjudged": np.isnan(found.rewards_n).astype(np.float64),
            "reward_failed": np.isin(np.arange(len(rollouts)), list(judged.scores.failed)).astype(np.float64),
            **{
                f"logged/{name}": np.full(len(rollouts), value)
                for name, value in judged.scores.metrics.items()
            },
            "engine_tokens_per_second": np.full(len(rollouts), self._sampling.speed(number)),
        }

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        """Beside the means of a step: how many tokens of completions it took in a second."""
        if not means or np.isnan(self._trainers_speed):
            return {}
        return {"trainer_tokens_per_second": self._trainers_speed}

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """How many steps there are is known."""
        self._sampling.begin(-(-state.max_steps // self.plan.steps_of_round))

    def on_save(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """A checkpoint counts once what is sampled of older weights than its own is on the disk."""
        self._sampling.settle()

    def on_optimizer_step(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """The weights have moved; held-out prompts, which may be answered next, are no part of the time it took."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._trainers_speed = self._tokens / max(time.monotonic() - self._since, 1e-9)

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any, **_kwargs: Any) -> None:
        """The step was taken: that is kept before anything else is learned from."""
        assert self._round is not None, "made for this step"
        if ranks.is_first():
            self._taken.keep(state.global_step, self._round[0], digest_of(model))

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_kwargs: Any) -> None:
        """Stop a run whose completions come of another model than the one that is trained."""
        found = logs.get("mismatch")
        if found is not None and found > STOP_MISMATCH:
            raise UserError(
                f"step {state.global_step}: the engine's log-probabilities are {found:.3g} nats a token from those of "
                f"the model that is trained (at most {STOP_MISMATCH:g}): it samples from another model. Look at the "
                f"engine and its weights; checkpoints and rollouts are kept"
            )

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Figures of the whole training, and the rollouts that are kept of it."""
        logged = [entry for entry in state.log_history if "loss" in entry]
        quarter = max(1, len(logged) // 4)
        for name in PERIODS:
            having = [entry[name] for entry in logged if name in entry]
            if having:
                self._report.summary(
                    **{
                        f"{name}_at_start": float(np.mean(having[:quarter])),
                        f"{name}_at_end": float(np.mean(having[-quarter:])),
                    }
                )
        mismatches = [entry["mismatch"] for entry in logged if "mismatch" in entry]
        if mismatches:
            self._report.summary(largest_mismatch=max(mismatches))
        for name in OF_AGE:
            having = [entry[name] for entry in logged if name in entry]
            if having:
                self._report.summary(**{f"largest_{name}": max(having)})
        rounds = self.plan.round_of(state.global_step - 1) + 1 if state.global_step else 0
        kept = chosen_rounds(rounds, self.plan.per_round, self.config.keep_rollouts)
        count = write_kept(
            self._out.logs,
            kept,
            self._kept_round,
            self._prompts,
            self.config.reward_names,
            self.config.weights,
            self.config.sampling,
            self.plan.steps_of_round,
        )
        self._report.summary(
            rounds=rounds,
            kept_rollouts=count,
            generated_tokens=self._sampling.generated_tokens,
            **self._taken.figures,
        )

    def _kept_round(self, number: int) -> Judged:
        rollouts: list[Rollout] = []
        for first in range(0, self.plan.groups, self.config.groups_at_once):
            rollouts += self._journal.whole(number, first)
        scores = scores_of(self._journal.scores(number))
        return Judged(rollouts, scores, self._advantages(scores))

    def close(self) -> None:
        """End what the engine has started."""
        self._sampling.close()
        self._scoring.close()

    def _show(self, number: int, judged: Judged) -> None:
        count = self.config.num_completions_to_print or SHOWN
        extra = judged.scores.extra
        self._report.table(
            "Completions",
            ["round", "prompt row", "completion", "reward", "advantage", *extra],
            [
                [
                    number + 1,
                    one.prompt_row + 1,
                    one.text[:LONGEST_SHOWN],
                    None if np.isnan(reward) else float(reward),
                    float(judged.advantages.values_n[place]),
                    *(values[place] for values in extra.values()),
                ]
                for place, (one, reward) in enumerate(
                    zip(judged.rollouts[:count], judged.advantages.rewards_n, strict=False)
                )
            ],
        )
