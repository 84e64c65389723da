"""What a model says of answers.

B: pairs of a batch, S: sequences of any batch, L: tokens of the longest of them, T: tokens of all
sequences in one line, V: the vocabulary.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.data.rows.collate_body import Batch
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.models.wrapped_body import plain_model, uncompiled


@dataclass(frozen=True)
class AnswerLogP:
    """Log probabilities of the answers of B pairs: `sum_2b` over their tokens, of which there are `tokens_2b`."""

    sum_2b: Tensor
    tokens_2b: Tensor

    @property
    def mean_b(self) -> tuple[Tensor, Tensor]:
        """In the mean over an answer's tokens: of the chosen answers, and of the rejected ones."""
        chosen_b, rejected_b = (self.sum_2b / self.tokens_2b).chunk(2)
        return chosen_b, rejected_b


@dataclass(frozen=True)
class SequenceLogP(AnswerLogP):
    """With `chosen_sequences`, the sum over all tokens of the chosen sequences, their prompts included."""

    chosen_sequences: Tensor


@dataclass(frozen=True)
class WeightedLogP(AnswerLogP):
    """With `weights_2b`, how much an answer is what the model would say by itself (no gradient; 1: as it samples).

    The exponential of the mean over its tokens of log p(token) - log sum_v p(v)^2: Zhou et al. 2024, "WPO" (arXiv
    2406.11827), equation 2 with the alignment of its section 3.3.
    """

    weights_2b: Tensor


def answer_log_p(model: Any, batch: Batch) -> SequenceLogP:
    """What the model says of the answers of a batch of `collate_pairs`, and of their prompts."""
    ids_2bl, mask_2bl = batch["input_ids"], batch["attention_mask"]
    logits_2blv = model(input_ids=ids_2bl, attention_mask=mask_2bl, use_cache=False).logits
    log_p_2bl = selective_log_softmax(logits_2blv[:, :-1], ids_2bl[:, 1:])
    answer_2bl = batch["labels"][:, 1:] != IGNORED
    pairs = len(ids_2bl) // 2
    return SequenceLogP(
        (log_p_2bl * answer_2bl).sum(-1),
        answer_2bl.sum(-1),
        (log_p_2bl[:pairs] * mask_2bl[:pairs, 1:]).sum(),
    )


def answer_log_p_alone(model: Any, batch: Batch) -> AnswerLogP:
    """What the model says of the answers of pairs, of which prompts get no logits if possible."""
    said = _said(model, batch)
    return AnswerLogP(said.sums(selective_log_softmax(said.logits, said.targets)), said.tokens_s)


def summed_log_p(model: Any, batch: Batch) -> Tensor:
    """[S] the log probability of the answer of each of a batch's S sequences, summed over its tokens."""
    said = _said(model, batch)
    return said.sums(selective_log_softmax(said.logits, said.targets))


def weighted_answer_log_p(model: Any, batch: Batch) -> WeightedLogP:
    """As `answer_log_p_alone`, and how much each answer is what the model would say by itself."""
    said = _said(model, batch)
    log_p = selective_log_softmax(said.logits, said.targets)
    with torch.no_grad():
        logits = said.logits.float()
        log_sum_of_squares = (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1)
        weights_2b = (said.sums(log_p - log_sum_of_squares) / said.tokens_s).exp()
    return WeightedLogP(said.sums(log_p), said.tokens_s, weights_2b)


@dataclass(frozen=True)
class _Said:
    """Logits of places, the token behind each, and what sums values of places over the answer of each sequence."""

    logits: Tensor
    targets: Tensor
    tokens_s: Tensor
    sums: Callable[[Tensor], Tensor]


def is_flat(batch: Batch) -> bool:
    """Whether the sequences stand in one line, kept apart by their positions."""
    return "attention_mask" not in batch


def sequences_in(batch: Batch) -> int:
    """How many sequences a batch holds."""
    return int((batch["position_ids"] == 0).sum()) if is_flat(batch) else len(batch["input_ids"])


def _said(model: Any, batch: Batch) -> _Said:
    return (_said_in_a_line if is_flat(batch) else _said_in_rows)(model, batch)


def _said_in_rows(model: Any, batch: Batch) -> _Said:
    """Of the K places from the first answer of the batch on."""
    ids_sl, answer_sl = batch["input_ids"], batch["labels"] != IGNORED
    kept = ids_sl.shape[1]
    arguments = {"input_ids": ids_sl, "attention_mask": batch["attention_mask"], "use_cache": False}
    if takes_logits_to_keep(model):
        # A token is predicted at the place before it.
        kept -= max(int(answer_sl.any(0).int().argmax()) - 1, 0)
        arguments["logits_to_keep"] = kept
    logits_skv = model(**arguments).logits[:, -kept:]
    answer_sk = answer_sl[:, -kept:][:, 1:]
    return _Said(
        logits_skv[:, :-1],
        ids_sl[:, -kept:][:, 1:],
        answer_sk.sum(-1),
        lambda value_sk: (value_sk * answer_sk).sum(-1),
    )


def _said_in_a_line(model: Any, batch: Batch) -> _Said:
    """Of the N places that a token of an answer stands behind, in the order of the sequences."""
    ids_t, positions_t = batch["input_ids"][0], batch["position_ids"][0]
    before_n = (batch["labels"][0, 1:] != IGNORED).nonzero().squeeze(-1)
    arguments = {"input_ids": ids_t[None], "position_ids": positions_t[None], "use_cache": False}
    if takes_logits_to_keep(model):
        logits_nv = model(**arguments, logits_to_keep=before_n).logits[0]
    else:
        logits_nv = model(**arguments).logits[0, before_n]
    sequence_t = (positions_t == 0).cumsum(0) - 1
    tokens_s = torch.bincount(sequence_t[before_n + 1], minlength=sequences_in(batch))
    counts = tokens_s.tolist()
    return _Said(
        logits_nv,
        ids_t[before_n + 1],
        tokens_s,
        # Not by index_add, whose order on a GPU is another each time.
        lambda value_n: torch.stack([part_n.sum() for part_n in value_n.split(counts)]),
    )


def takes_logits_to_keep(model: Any) -> bool:
    """Whether the model can be told to compute logits of the last places alone."""
    plain = plain_model(uncompiled(model))
    return "logits_to_keep" in inspect.signature(plain.forward).parameters
