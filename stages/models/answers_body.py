"""What a model says of answers.

B: pairs of a batch, L: tokens of the longest of their 2B sequences, V: the vocabulary.
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
    ids_2bl, mask_2bl = batch["input_ids"], batch["attention_mask"]
    logits_2blv = model(input_ids=ids_2bl, attention_mask=mask_2bl, use_cache=False).logits
    log_p_2bl = selective_log_softmax(logits_2blv[:, :-1], ids_2bl[:, 1:])
    answer_2bl = batch["labels"][:, 1:] != IGNORED
    pairs = len(ids_2bl) // 2
    return AnswerLogP(
        (log_p_2bl * answer_2bl).sum(-1),
        answer_2bl.sum(-1),
        (log_p_2bl[:pairs] * mask_2bl[:pairs, 1:]).sum(),
    )
