"""What a model says of answers.

B: pairs of a batch, S: sequences of any batch, L: tokens of the longest of them, V: the vocabulary.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.data.rows.collate_body import Batch
from tunemill.stages.data.rows.labels import IGNORED


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
    """What the model says of the answers of a batch of `collate_pairs`, of which prompts get no logits if possible."""
    logits_2bkv, targets_2bk, answer_2bk = _answer_logits(model, batch)
    log_p_2bk = selective_log_softmax(logits_2bkv, targets_2bk)
    return AnswerLogP((log_p_2bk * answer_2bk).sum(-1), answer_2bk.sum(-1))


def summed_log_p(model: Any, batch: Batch) -> Tensor:
    """[S] the log probability of the answer of each of a batch's S sequences, summed over its tokens."""
    logits_skv, targets_sk, answer_sk = _answer_logits(model, batch)
    return (selective_log_softmax(logits_skv, targets_sk) * answer_sk).sum(-1)


def weighted_answer_log_p(model: Any, batch: Batch) -> WeightedLogP:
    """The same, and how much each answer is what the model would say by itself."""
    logits_2bkv, targets_2bk, answer_2bk = _answer_logits(model, batch)
    log_p_2bk = selective_log_softmax(logits_2bkv, targets_2bk)
    tokens_2b = answer_2bk.sum(-1)
    with torch.no_grad():
        z_2bkv = logits_2bkv.float()
        log_sum_of_squares_2bk = (2 * z_2bkv).logsumexp(-1) - 2 * z_2bkv.logsumexp(-1)
        weights_2b = (((log_p_2bk - log_sum_of_squares_2bk) * answer_2bk).sum(-1) / tokens_2b).exp()
    return WeightedLogP((log_p_2bk * answer_2bk).sum(-1), tokens_2b, weights_2b)


def _answer_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the K places from the first answer of the batch on, the tokens there, and which are of answers."""
    ids_sl, answer_sl = batch["input_ids"], batch["labels"] != IGNORED
    kept = ids_sl.shape[1]
    arguments = {"input_ids": ids_sl, "attention_mask": batch["attention_mask"], "use_cache": False}
    if takes_logits_to_keep(model):
        # A token is predicted at the place before it.
        kept -= max(int(answer_sl.any(0).int().argmax()) - 1, 0)
        arguments["logits_to_keep"] = kept
    logits_skv = model(**arguments).logits[:, -kept:]
    return logits_skv[:, :-1], ids_sl[:, -kept:][:, 1:], answer_sl[:, -kept:][:, 1:]


def takes_logits_to_keep(model: Any) -> bool:
    """Whether the model can be told to compute logits of the last places alone."""
    plain = model.get_base_model() if hasattr(model, "peft_config") else model
    return "logits_to_keep" in inspect.signature(plain.forward).parameters
