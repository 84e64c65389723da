"""Greedy answers to held-out prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import GenerationConfig

from tunemill.stages.data.rows.mapped import Rows


@dataclass(frozen=True)
class Question:
    """One held-out row as a prompt and the answer that should follow it, in token ids.

    `stops` end an answer: the model's end tokens, and the special token that ends this reference.
    """

    row: int
    prompt: tuple[int, ...]
    reference: tuple[int, ...]
    stops: frozenset[int]

    @property
    def ends(self) -> bool:
        """Whether the reference ends with a stop token."""
        return self.reference[-1] in self.stops


def last_trained_span(labels: Sequence[int]) -> tuple[int, int] | None:
    """Start and end of the last run of labels that are not -100; None where there is none."""
    end = len(labels)
    while end and labels[end - 1] == -100:
        end -= 1
    start = end
    while start and labels[start - 1] != -100:
        start -= 1
    return (start, end) if end else None


def question_of(
    rows: Rows, row: int, end_ids: frozenset[int], special_ids: frozenset[int]
) -> Question | None:
    """The row's last answer as a question; None where nothing is trained or nothing stands before it."""
    span = last_trained_span(rows.labels(row).tolist())
    if span is None or span[0] == 0:
        return None
    ids = rows.ids(row).tolist()
    prompt, reference = tuple(ids[: span[0]]), tuple(ids[span[0] : span[1]])
    ending = {reference[-1]} & special_ids
    # A token that also stands inside the reference does not end it.
    return Question(row, prompt, reference, (end_ids | ending) - frozenset(reference[:-1]))


def answer(
    model: Any,
    questions: Sequence[Question],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_batch: Callable[[int], None],
) -> dict[int, list[int]]:
    """Row number -> the ids that the model generates, cut at the first stop token.

    Questions are batched by stop tokens and prompt length, padded on the left. A batch generates at most twice
    its longest reference and 8 tokens: longer answers are wrong already. An answer to a reference that ends with
    no stop token is cut to the reference's length. `on_batch` hears how many questions are done.
    """
    answers: dict[int, list[int]] = {}
    ordered = sorted(
        questions, key=lambda question: (_stops_of(question), len(question.prompt), question.prompt)
    )
    for _, group in groupby(ordered, key=_stops_of):
        same_stops = list(group)
        for first in range(0, len(same_stops), batch_size):
            batch = same_stops[first : first + batch_size]
            answers.update(_answer_batch(model, batch, max_new_tokens))
            on_batch(len(answers))
    return answers


def _stops_of(question: Question) -> list[int]:
    return sorted(question.stops)


def _answer_batch(model: Any, batch: Sequence[Question], max_new_tokens: int) -> dict[int, list[int]]:
    longest = max(len(question.prompt) for question in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, question in enumerate(batch):
        ids[place, longest - len(question.prompt) :] = torch.tensor(question.prompt)
        mask[place, longest - len(question.prompt) :] = 1
    stops = sorted(batch[0].stops)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=min(max_new_tokens, 2 * max(len(question.reference) for question in batch) + 8),
        eos_token_id=stops or None,
        pad_token_id=stops[0] if stops else 0,
    )
    device = next(model.parameters()).device
    with torch.no_grad():
        generated = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings
        )
    new = generated[:, longest:].tolist()
    return {question.row: _cut(question, tokens) for question, tokens in zip(batch, new, strict=True)}


def _cut(question: Question, tokens: list[int]) -> list[int]:
    kept = tokens if question.ends else tokens[: len(question.reference)]
    for place, token in enumerate(kept):
        if token in question.stops:
            return kept[: place + 1]
    return kept
