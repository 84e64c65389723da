"""Rounds of documents: blocks are drawn and compared just before the step that learns from them, and kept on disk."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.dropout_body import leave_nothing_out
from tunemill.stages.training.ebft.answers_body import told
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.ebft.documents_body import Document
from tunemill.stages.training.ebft.features_body import feature_advantages
from tunemill.stages.training.ebft.rewards_body import FrozenModel, likeness
from tunemill.stages.training.ebft.strided_body import block_features, drawn
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.method import Batch
from tunemill.stages.training.online.advantages import Advantages
from tunemill.stages.training.online.engine import Completion
from tunemill.stages.training.online.examples_body import Slots
from tunemill.stages.training.online.journal import Journal
from tunemill.stages.training.online.judged_body import answer_of, as_json, scores_of
from tunemill.stages.training.online.kept import Judged, chosen_rounds, write_kept
from tunemill.stages.training.online.policy_body import digest_of
from tunemill.stages.training.online.rewards import Scores
from tunemill.stages.training.online.rollouts import Rollout
from tunemill.stages.training.online.taken import TakenSteps

SHOWN = ("reward", "alignment", "diversity")


class StridedRounds(TrainerCallback):  # type: ignore[misc]
    """Makes the micro batches of each step, of blocks that are drawn of the model as it is then; a step is a round.

    Whatever it makes it takes from the journal where it is there already.
    """

    def __init__(
        self,
        config: EbftConfig,
        prompts: PromptRows,
        documents: Sequence[Document],
        words: Any,
        frozen: FrozenModel,
        out: Workspace,
        report: Report,
    ) -> None:
        self.config, self.plan = config, config.strided_plan(len(documents))
        self.slots = Slots(self.plan, prompts.file)
        self._prompts, self._documents, self._words, self._frozen = prompts, documents, words, frozen
        self._out, self._report = out, report
        self._journal = Journal.among(out.checkpoints)
        self._journal.mend()
        self._taken = TakenSteps(self._journal, report)
        self._generated = 0

    def meet(self, model: Any, precision: Precision, checkpoints: Path) -> list[Any]:  # noqa: ARG002 - of every method
        """Called with the loaded model, of each attempt to train."""
        leave_nothing_out(model)
        self._frozen.meet(model, precision)
        self._taken.read()
        return [self]

    def resume(self, checkpoint: Path | None) -> None:
        """What a training goes on with lies in the journal."""

    def made(self, model: Any, step: int, batches: list[Batch]) -> list[Batch]:
        """The micro batches of the step behind so many others, as large as those that are given."""
        documents = [self._documents[place] for place in self.plan.prompts_of(step)]
        self.slots.fill(step, [replace(told((), one.ids), prompt_row=one.row) for one in documents])
        policy = digest_of(model)
        rollouts = [self._rollouts(model, policy, step, *one) for one in self._firsts(documents)]
        judged = self._judged(step, documents, rollouts)
        device = next(model.parameters()).device
        every: list[tuple[Document, Any, Any, dict[str, float]]] = []
        first = 0
        for document, own in zip(documents, rollouts, strict=True):
            part = slice(first, first + len(own))
            first += len(own)
            advantages_an = torch.tensor(judged.advantages.values_n[part], dtype=torch.float32, device=device)
            values = np.array(judged.scores.values_nf, np.float64)[part]
            sums = (judged.advantages.rewards_n[part].sum(), *values.sum(axis=0))
            figures = dict(zip(SHOWN, map(float, sums), strict=True))
            every.append(
                (
                    document,
                    self._ids(document, own, device),
                    advantages_an.view(len(document.starts), -1),
                    figures,
                )
            )
        made, place = [], 0
        for batch in batches:
            some = every[place : place + len(batch["slots"])]
            place += len(some)
            sums_of = {name: torch.tensor(sum(one[3][name] for one in some)) for name in SHOWN}
            made.append({"documents": [one[:3] for one in some], "figures": sums_of})
        return made

    def _firsts(self, documents: Sequence[Document]) -> list[tuple[int, Document]]:
        """Each with how many blocks are before it in its round: a block is a group."""
        found, first = [], 0
        for document in documents:
            found.append((first, document))
            first += len(document.starts)
        return found

    def _rollouts(
        self, model: Any, policy: str, number: int, first: int, document: Document
    ) -> list[Rollout]:
        """Of a document the completions of each block, one block behind the other."""
        found = self._journal.rollouts(number, first)
        if found is not None:
            return found
        config = self.config
        plan = replace(self.plan, num_generations=config.n_samples_per_prompt)
        seeds_an = [plan.seeds(number, first + block) for block in range(len(document.starts))]
        blocks_nag, log_p_nag = (one.tolist() for one in drawn(config, model, document, seeds_an))
        found = []
        for block, start in enumerate(document.starts):
            context = document.ids[max(0, start - config.context_length) : start]
            for sample, seed in enumerate(seeds_an[block]):
                ids, log_p = tuple(blocks_nag[sample][block]), tuple(log_p_nag[sample][block])
                completion = Completion(ids, log_p, "length", seed, policy)
                text = answer_of(self._words, ids)
                found.append(Rollout(number, first + block, document.row, context, completion, text))
        self._generated += len(found) * document.generated
        self._journal.keep_rollouts(found, config.strided_sampling)
        return found

    def _ids(self, document: Document, rollouts: Sequence[Rollout], device: Any) -> Any:
        """[N, Q] of a document with each of its completions."""
        count = self.config.n_samples_per_prompt
        own = [[one.completion.ids for one in rollouts[sample::count]] for sample in range(count)]
        return torch.tensor([document.sequence(blocks) for blocks in own], device=device)

    def _judged(
        self, number: int, documents: Sequence[Document], rollouts: Sequence[Sequence[Rollout]]
    ) -> Judged:
        stored = self._journal.scores(number)
        scores = scores_of(stored) if stored is not None else self._scores(number, documents, rollouts)
        if stored is None:
            self._journal.keep_scores(number, as_json(scores))
        return self._advantages([one for own in rollouts for one in own], scores)

    def _scores(
        self, number: int, documents: Sequence[Document], rollouts: Sequence[Sequence[Rollout]]
    ) -> Scores:
        """Alignment and diversity of each completion, beside what the document itself has there."""
        values: list[list[float | None]] = []
        distances = []
        with self._frozen.opened() as (frozen, device):
            for document, own in zip(documents, rollouts, strict=True):
                ids_nq = self._ids(document, own, device)
                answer_1q = torch.tensor([document.sequence(document.own_blocks)], device=device)
                features_and = block_features(self.config, frozen, document, torch.cat([ids_nq, answer_1q]))
                alike_an, among_an, distance_a = likeness(
                    self.config, features_and[:, :-1], features_and[:, -1], number
                )
                pairs = zip(alike_an.flatten().tolist(), among_an.flatten().tolist(), strict=True)
                values += [list(pair) for pair in pairs]
                distances += distance_a.tolist()
        return Scores(
            tuple(self.config.reward_names), values, metrics={"cfm_loss": sum(distances) / len(distances)}
        )

    def _advantages(self, rollouts: list[Rollout], scores: Scores) -> Judged:
        rewards_n = np.array(scores.values_nf, np.float64) @ np.array(self.config.weights)
        count = self.config.n_samples_per_prompt
        rewards_gn = torch.tensor(rewards_n).view(-1, count)
        values_gn = feature_advantages(rewards_gn, self.config.advantage_estimator)
        spread_n = np.repeat(rewards_gn.std(-1, correction=0).numpy(), count)
        return Judged(rollouts, scores, Advantages(values_gn.flatten().numpy(), rewards_n, spread_n))

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any, **_kwargs: Any) -> None:
        """The step was taken: that is kept before anything else is drawn."""
        self._taken.keep(state.global_step, state.global_step - 1, digest_of(model))

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Figures of the whole training, and the completions that are kept of it."""
        rounds, config = state.global_step, self.config
        most = (
            max(len(one.starts) for one in self._documents)
            * config.n_samples_per_prompt
            * self.plan.per_round
        )
        count = write_kept(
            self._out.logs,
            chosen_rounds(rounds, most, config.keep_rollouts),
            self._kept_round,
            self._prompts,
            config.reward_names,
            config.weights,
            config.strided_sampling,
            1,
        )
        self._report.summary(
            rounds=rounds,
            kept_rollouts=count,
            generated_tokens=self._generated,
            **self._taken.figures,
        )

    def _kept_round(self, number: int) -> Judged:
        documents = [self._documents[place] for place in self.plan.prompts_of(number)]
        rollouts = [self._journal.whole(number, first) for first, _ in self._firsts(documents)]
        return self._judged(number, documents, rollouts)
