"""EBFT (Jelassi et al. 2026, arXiv 2603.12248): completions rewarded for what a frozen model makes of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.artifacts import Adapter, Model, PromptData
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.errors import RowError
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.words_body import load_words
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.ebft.answers_body import AnsweredPrompts, Answers, answered_prompts, told
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.ebft.documents_body import documents_of
from tunemill.stages.training.ebft.held_out_body import documents_scored
from tunemill.stages.training.ebft.rewards_body import FeatureRewards, FrozenModel
from tunemill.stages.training.ebft.strided_body import check_masked
from tunemill.stages.training.ebft.strided_body import counts as counts_of_blocks
from tunemill.stages.training.ebft.strided_body import loss_of as blocks_loss
from tunemill.stages.training.ebft.strided_rounds_body import StridedRounds
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Batch, Counts, LossParts, Method, OwnLoss
from tunemill.stages.training.online.batches_body import sequences
from tunemill.stages.training.online.examples_body import places
from tunemill.stages.training.online.held_out_body import held_out_of
from tunemill.stages.training.online.learning_body import (
    check_enough,
    ends_of,
    method_of,
    opened_rounds,
    scoring,
    with_journal_of_all,
)
from tunemill.stages.training.online.policy_body import completion_log_p
from tunemill.stages.training.online.rounds_body import Rounds

# What is counted beside completions: tokens of the answers that the cross entropy is of, once for each completion.
ANSWERS = "answer_tokens"
ANSWER = "answer_"


def ebft(
    config: EbftConfig,
    base_model: Model,
    training_data: PromptData,
    out: Workspace,
    report: Report,
    evaluation_data: PromptData | None = None,
    stored_adapter: Adapter | None = None,
    reward_models: list[Model] | None = None,  # noqa: ARG001 - of every online method; a check refuses them here
) -> None:
    """Train on completions of the model's own.

    Raises RowError where a row has no answer, UserError where features are no numbers, and what `learn` raises.
    """
    out = with_journal_of_all(config, out)
    words = load_words(base_model.path)
    asked = answered_prompts(PromptRows(training_data.rows), words)
    rows = held_out_of(training_data, evaluation_data)
    held_out = None if rows is None else answered_prompts(rows, words)
    learn = strided if config.is_strided else structured
    learn(config, base_model, asked, held_out, words, out, report, stored_adapter)


def structured(
    config: EbftConfig,
    base_model: Model,
    asked: AnsweredPrompts,
    held_out: AnsweredPrompts | None,
    words: Any,
    out: Workspace,
    report: Report,
    stored_adapter: Adapter | None,
) -> None:
    """Train on completions of prompts."""
    prompts, answers = asked.prompts, asked.answers
    check_enough(config, config.plan(len(prompts)))
    if config.starts_vllm:
        config.room_for(prompts.longest + config.max_completion_length)
    frozen = FrozenModel(config, base_model)
    features = FeatureRewards(config, frozen, words, ends_of(config, base_model, words))

    def longest(some: AnsweredPrompts, row: int) -> int:
        return config.longest_for(len(some.answers[row]))

    with opened_rounds(config, prompts, features, base_model, out, report, partial(longest, asked)) as rounds:
        method = on_features(method_of(config, rounds, prompts, report), rounds, frozen)
        if held_out is not None:
            others, most = held_out.prompts, partial(longest, held_out)
            method = scoring(config, method, rounds, others, features, base_model, out, report, most)
        method = beside_answers(config, method, rounds, prompts, answers, report)
        train(config.going_on_from(stored_adapter), base_model, method, out, report)


def strided(
    config: EbftConfig,
    base_model: Model,
    asked: AnsweredPrompts,
    held_out: AnsweredPrompts | None,
    words: Any,
    out: Workspace,
    report: Report,
    stored_adapter: Adapter | None,
) -> None:
    """Train on blocks of completions inside of documents."""
    documents, without_room = documents_of(config, asked.prompts, asked.answers)
    report.summary(documents=len(documents), without_room=without_room)
    frozen = FrozenModel(config, base_model)
    rounds = StridedRounds(config, asked.prompts, documents, words, frozen, out, report)
    if not rounds.plan.rounds_of_epoch:
        raise RowError(
            f"a step learns from {config.per_step} documents (micro_batch_size times gradient_accumulation_steps), and "
            f"{len(documents)} have room for a block. Add rows, or lower one of these"
        )
    others = [] if held_out is None else documents_of(config, held_out.prompts, held_out.answers)[0]
    longest = max([*documents, *others], key=lambda one: len(one.ids))

    def check(model: Any, _collator: Any) -> None:
        check_positions(plain_model(model), len(longest.ids), "the longest document", report)
        check_masked(max(documents, key=lambda one: len(one.starts)), model)

    method = Method(
        examples=rounds.slots,
        collator=lambda _model: places,
        check=check,
        own_loss=OwnLoss(partial(blocks_loss, config), counts_of_blocks, made=rounds.made),
        score=partial(documents_scored, config, frozen, others) if others else None,
        prepare=rounds.meet,
    )
    train(config.going_on_from(stored_adapter), base_model, method, out, report)


def on_features(method: Method, rounds: Rounds, frozen: FrozenModel) -> Method:
    """The method, whose frozen model meets the trained one before anything is sampled."""

    def prepare(model: Any, precision: Any, checkpoints: Path) -> list[Any]:
        frozen.meet(model, precision)
        return rounds.meet(model, precision, checkpoints)

    return replace(method, prepare=prepare)


def beside_answers(
    config: EbftConfig,
    method: Method,
    rounds: Rounds,
    prompts: PromptRows,
    answers: Answers,
    report: Report,
) -> Method:
    """The method, with the cross entropy of the prompts' answers in its loss where `ce_coef` asks for it."""
    longest = max(len(prompts[row].ids) + len(ids) for row, ids in enumerate(answers))

    def check(model: Any, collator: Any) -> None:
        method.check(model, collator)
        check_positions(plain_model(model), longest, "the longest prompt with its ground_truth", report)

    own = method.own_loss
    assert own is not None, "of every online method"
    if not config.ce_coef:
        return replace(method, check=check)

    def made(model: Any, step: int, batches: list[Batch]) -> list[Batch]:
        found = rounds.made(model, step, batches)
        device = next(model.parameters()).device
        rows = [[rounds.slots.rows(place)[0] for place in batch["slots"].tolist()] for batch in batches]
        return [
            {**batch, **answer_batch(prompts, answers, some, device)}
            for batch, some in zip(found, rows, strict=True)
        ]

    def loss(model: Any, batch: Batch) -> LossParts:
        return with_answers(config, model, batch, own.loss(model, batch))

    def counts(batch: Batch) -> Counts:
        return {
            **own.counts(batch),
            ANSWERS: int((batch[f"{ANSWER}mask"].sum(-1) * batch[f"{ANSWER}times"]).sum()),
        }

    return replace(method, check=check, own_loss=replace(own, loss=loss, counts=counts, made=made))


def answer_batch(prompts: PromptRows, answers: Answers, rows: Sequence[int], device: Any) -> Batch:
    """The answers of these rows as sequences, each row once; `answer_times`: how many completions are of it."""
    counted = Counter(rows)
    batch = sequences([told(prompts[row].ids, answers[row]) for row in counted], device)
    times_b = torch.tensor(list(counted.values()), device=device)
    return {**{f"{ANSWER}{name}": values for name, values in batch.items()}, f"{ANSWER}times": times_b}


def with_answers(config: EbftConfig, model: Any, batch: Batch, parts: LossParts) -> LossParts:
    """The loss with `ce_coef` times the cross entropy of the answers, in nats a token, each as often as completed."""
    answers = {name.removeprefix(ANSWER): values for name, values in batch.items() if name.startswith(ANSWER)}
    log_p_bt, _ = completion_log_p(model, answers, 1.0)
    surprise = -(log_p_bt * answers["mask"] * answers["times"][:, None]).sum()
    return LossParts(
        {**parts.totals, ANSWERS: config.ce_coef * surprise},
        {**parts.metrics, "ce_loss": (surprise.detach(), ANSWERS)},
    )
