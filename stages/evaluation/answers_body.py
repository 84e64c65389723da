"""Answers to held-out prompts: greedy ones, or drawn."""

from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import GenerationConfig

from tunemill.stages.evaluation.batching_body import Batching, left_padded
from tunemill.stages.evaluation.questions import Question
from tunemill.stages.evaluation.sampling_body import drawn
from tunemill.stages.evaluation.sampling_keys import Sampling


def answer(
    model: Any,
    questions: Sequence[Question],
    *,
    batching: Batching,
    batch_size: int,
    max_new_tokens: int,
    positions: int | None,
    on_batch: Callable[[int], None],
    sampling: Sampling | None = None,
) -> dict[int, list[int]]:
    """Row number -> the ids that the model generates, as the question cuts them.

    Questions in a batch have the same stop tokens and are alike in prompt length, or equal where `batching` says so,
    or where the model has a table of `positions`, beyond which no answer goes. `on_batch` hears how many are done.
    Without `sampling` the likeliest token is taken.
    """

    def alike(question: Question) -> tuple[Hashable, ...]:
        stops = tuple(sorted(question.stops))
        return (stops,) if batching == "padded" and positions is None else (stops, len(question.prompt))

    answers: dict[int, list[int]] = {}
    at_once = 1 if batching == "alone" else batch_size
    ordered = sorted(questions, key=lambda q: (sorted(q.stops), len(q.prompt), q.prompt))
    for _, group in groupby(ordered, key=alike):
        same = list(group)
        for first in range(0, len(same), at_once):
            batch = same[first : first + at_once]
            room = max_new_tokens if positions is None else positions - len(batch[0].prompt)
            answers.update(_answer_batch(model, batch, min(room, max_new_tokens), sampling))
            on_batch(len(answers))
    return answers


def _answer_batch(
    model: Any, batch: Sequence[Question], max_new_tokens: int, sampling: Sampling | None
) -> dict[int, list[int]]:
    stops = sorted(batch[0].stops)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max(question.limit(max_new_tokens) for question in batch),
        eos_token_id=stops or None,
        pad_token_id=stops[0] if stops else 0,
    )
    device = next(model.parameters()).device
    inputs = {name: t.to(device) for name, t in left_padded([q.prompt for q in batch]).items()}
    with torch.no_grad():
        generated = model.generate(
            **inputs,
            generation_config=settings,
            logits_processor=drawn(sampling, [question.row for question in batch]),
        )
    new = generated[:, inputs["input_ids"].shape[1] :].tolist()
    return {
        question.row: question.cut(tokens, max_new_tokens)
        for question, tokens in zip(batch, new, strict=True)
    }
