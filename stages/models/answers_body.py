"""What a model says of answers.

B: pairs of a batch, S: sequences of any batch, L: tokens of the longest of them, V: the vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.data.rows.collate_body import Batch
from tunemill.stages.data.rows.labels import IGNORED


@dataclass(frozen=True)
class AnswerLogP:
    """Log probabilities of the answers of B pairs: `sum_2b` over their tokens, of which there are `tokens_2b`.

    `chosen_sequences` is the sum over all tokens of the chosen sequences, their prompts included.
    """

    sum_2b: Tensor
    tokens_2b: Tensor
    chosen_sequences: Tensor

    @property
    def mean_b(self) -> tuple[Tensor, Tensor]:
        """In the mean over an answer's tokens: of the chosen answers, and of the rejected ones."""
        chosen_b, rejected_b = (self.sum_2b / self.tokens_2b).chunk(2)
        return chosen_b, rejected_b


def answer_log_p(model: Any, batch: Batch) -> AnswerLogP:
    """What the model says of the answers of a batch of `collate_pairs`."""
    log_p_2bl, answer_2bl = _token_log_p(model, batch)
    pairs = len(log_p_2bl) // 2
    return AnswerLogP(
        (log_p_2bl * answer_2bl).sum(-1),
        answer_2bl.sum(-1),
        (log_p_2bl[:pairs] * batch["attention_mask"][:pairs, 1:]).sum(),
    )


def summed_log_p(model: Any, batch: Batch) -> Tensor:
    """[S] the log probability of the answer of each of a batch's S sequences, summed over its tokens."""
    log_p_sl, answer_sl = _token_log_p(model, batch)
    return (log_p_sl * answer_sl).sum(-1)


def _token_log_p(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """[S, L - 1] log probability of each token behind the first, and whether it belongs to the answer."""
    ids_sl, mask_sl = batch["input_ids"], batch["attention_mask"]
    logits_slv = model(input_ids=ids_sl, attention_mask=mask_sl, use_cache=False).logits
    log_p_sl = selective_log_softmax(logits_slv[:, :-1], ids_sl[:, 1:])
    return log_p_sl, batch["labels"][:, 1:] != IGNORED
