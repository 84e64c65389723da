"""Answers by letter while a model is trained: a monitor, whose random state is kept by who calls it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.errors import UserError
from tunemill.stages.models.positions_body import stated_positions
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report
from tunemill.stages.training.bench import BenchQuestion, bench_questions, shares

Score = Callable[[Any], dict[str, float]]


@dataclass(frozen=True)
class Asked:
    """A question as tokens: what is given, and for each answer the token at which it differs from the others."""

    number: int
    ids: tuple[int, ...]
    letters: tuple[int, ...]
    answer: int


def with_bench(score: Score, file: Path, batch_size: int, tokenizer: Path, report: Report) -> Score:
    """The same score, with the share of questions to which the likeliest letter is the right one."""
    questions = bench_questions(file)
    words = load_words(tokenizer)
    asked = [asked_of(words, number, question) for number, question in enumerate(questions)]
    report.log(f"bench_dataset: {len(asked)} questions are asked at each evaluation")

    def scored(model: Any) -> dict[str, float]:
        right = right_answers(model, asked, batch_size)
        return {**score(model), **shares(list(zip(questions, right, strict=True)))}

    return scored


def asked_of(words: Any, number: int, question: BenchQuestion) -> Asked:
    """The tokens of a question. What all answers begin with, such as a token of a space, is part of what is given.

    Raises UserError where the tokenizer does not tell the answers apart, or nothing stands before them.
    """
    whole = [words.encode(question.prompt + answer) for answer in question.answers]
    columns = enumerate(zip(*whole, strict=False))
    shared = next((place for place, tokens in columns if len(set(tokens)) > 1), 0)
    if not shared:
        raise UserError(
            f"bench_dataset: question {number + 1}: to this tokenizer all answers are the same, or nothing stands "
            f"before them. Take it out"
        )
    return Asked(number, tuple(whole[0][:shared]), tuple(ids[shared] for ids in whole), question.answer)


def right_answers(model: Any, asked: Sequence[Asked], batch_size: int) -> list[bool]:
    """Of each question whether its right letter is the likeliest of its letters. The model's mode is left as it was."""
    longest = stated_positions(model)
    device = next(model.parameters()).device
    right = [False] * len(asked)
    was_training = model.training
    model.eval()
    # Questions of one length stand side by side without padding.
    for _, group in groupby(sorted(asked, key=lambda one: len(one.ids)), key=lambda one: len(one.ids)):
        same = list(group)
        for first in range(0, len(same), batch_size):
            batch = same[first : first + batch_size]
            ids_bl = torch.tensor(
                [one.ids[-longest:] if longest else one.ids for one in batch], device=device
            )
            with torch.no_grad():
                logits_blv = model(input_ids=ids_bl, attention_mask=torch.ones_like(ids_bl)).logits
            for one, logits_v in zip(batch, logits_blv[:, -1].float(), strict=True):
                right[one.number] = int(logits_v[list(one.letters)].argmax()) == one.answer
    model.train(was_training)
    return right
