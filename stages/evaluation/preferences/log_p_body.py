"""What a model says of answers, and how far it has gone from a reference model.

B: sequences of a batch, L: tokens of the longest, N: tokens of all their answers, V: the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.data.rows.collate_body import Batch, Collator, Row
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.evaluation.preferences.figures import AnswerScore
from tunemill.stages.models.loss_body import LOGIT_BYTES

# Logits of both models for the tokens that are looked at together, as float32, stay below this many bytes.
FLOAT_BYTES = 256 << 20
# [B, L, V] of a batch.
Logits = Callable[[Batch], Tensor]


def logits_of(model: Any) -> Logits:
    """What a model says."""
    return lambda batch: (
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    )


def without_adapter(model: Any) -> Logits:
    """What the base of an adapter says, the adapter switched off."""

    def logits(batch: Batch) -> Tensor:
        with model.disable_adapter():
            return logits_of(model)(batch)

    return logits


def score_answers(
    model: Any,
    reference: Logits | None,
    answers: Sequence[Row],
    batch_size: int,
    on_batch: Callable[[int], None],
    most_bytes: int = FLOAT_BYTES,
) -> list[AnswerScore]:
    """The score of each answer, in their order. Without a reference the model is its own.

    Answers of like length share a batch. `on_batch` hears how many are done. Logits of both models become
    float32 for some tokens at a time, `most_bytes` of them.
    """
    # Of both models, in float32.
    bytes_of_token = 2 * 4 * model.config.get_text_config().vocab_size
    at_once, most_tokens = (max(1, most // bytes_of_token) for most in (most_bytes, LOGIT_BYTES))
    device = next(model.parameters()).device
    found: dict[int, AnswerScore] = {}
    with torch.no_grad():
        for numbers in batches_of(answers, batch_size, most_tokens):
            batch = Collator("padded", None)([[answers[number]] for number in numbers])
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            found.update(zip(numbers, _score_batch(logits_of(model), reference, moved, at_once), strict=True))
            on_batch(len(found))
    return [found[number] for number in range(len(answers))]


def batches_of(answers: Sequence[Row], batch_size: int, most_tokens: int) -> list[list[int]]:
    """Numbers of answers by length, of at most so many tokens a batch with padding unless one is longer by itself."""
    batches: list[list[int]] = []
    for number in sorted(range(len(answers)), key=lambda number: (len(answers[number][0]), number)):
        fits = batches and len(batches[-1]) < batch_size
        if fits and (len(batches[-1]) + 1) * len(answers[number][0]) <= most_tokens:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


def _score_batch(model: Logits, reference: Logits | None, batch: Batch, at_once: int) -> list[AnswerScore]:
    is_answer_bl = batch["labels"][:, 1:] != IGNORED
    tokens_n = batch["input_ids"][:, 1:][is_answer_bl]
    counts = is_answer_bl.sum(dim=1).tolist()
    logits_nv = model(batch)[:, :-1][is_answer_bl]
    reference_nv = logits_nv if reference is None else reference(batch)[:, :-1][is_answer_bl]
    pieces = zip(*(tensor.split(at_once) for tensor in (logits_nv, reference_nv, tokens_n)), strict=True)
    found_n3 = torch.cat([_score_tokens(*piece, is_itself=reference is None) for piece in pieces])
    # Summed by slices: an atomic addition on a GPU would differ from run to run.
    totals = [part.sum(dim=0).tolist() for part in found_n3.double().split(counts)]
    return [AnswerScore(count, *total) for count, total in zip(counts, totals, strict=True)]


def _score_tokens(logits_nv: Tensor, reference_nv: Tensor, tokens_n: Tensor, *, is_itself: bool) -> Tensor:
    """[N, 3] log probability of each token, that of the reference, and the divergence from it."""
    log_p_n = selective_log_softmax(logits_nv, tokens_n)
    if is_itself:
        return torch.stack([log_p_n, log_p_n, torch.zeros_like(log_p_n)], dim=1)
    reference_n = selective_log_softmax(reference_nv, tokens_n)
    return torch.stack([log_p_n, reference_n, divergence(logits_nv, reference_nv)], dim=1)


def divergence(logits_nv: Tensor, reference_nv: Tensor) -> Tensor:
    """[N] Kullback-Leibler divergence of the model's distribution from the reference's, in nats, over all V tokens.

    KL = sum_v p_v (log p_v - log q_v), with p of the model and q of the reference (Kullback and Leibler 1951).
    """
    log_p_nv, log_q_nv = logits_nv.float().log_softmax(-1), reference_nv.float().log_softmax(-1)
    p_nv = log_p_nv.exp()
    # Where p is 0, whatever the logarithms say, nothing is added.
    return (p_nv * (log_p_nv - log_q_nv)).masked_fill(p_nv == 0, 0.0).sum(-1)
