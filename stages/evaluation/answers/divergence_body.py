"""How far a model's probabilities are from those of the teacher that it learned from, on held-out rows.

B: rows of a batch, L: tokens of the longest, V: a vocabulary, N: trained tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows, batches_by_length
from tunemill.stages.models.agreement_body import divergence
from tunemill.stages.models.loss_body import LOGIT_BYTES

# Logits and log-probabilities of both models.
AT_ONCE = 4


@dataclass(frozen=True)
class Divergence:
    """Of the trained tokens of a row: the sum of KL(teacher || student) in nats, and where both say the same token."""

    total: float
    agreed: int
    tokens: int

    @property
    def figures(self) -> dict[str, float | None]:
        """In the mean over the row's tokens; None where none is trained."""
        return {
            "teacher_kl": self.total / self.tokens if self.tokens else None,
            "teacher_agreement": self.agreed / self.tokens if self.tokens else None,
        }


def divergences(
    student: Any, teacher: Any, rows: Rows, numbers: Sequence[int], batch_size: int, tokens: int
) -> list[Divergence]:
    """That of each row of `numbers`, in that order, over the first `tokens` tokens, which both models have."""
    vocabulary = max(model.config.get_text_config().vocab_size for model in (student, teacher))
    padded, found = Collator("padded", None), dict[int, Divergence]()
    with torch.no_grad():
        for batch in batches_by_length(
            rows, numbers, batch_size, max(1, LOGIT_BYTES // (4 * AT_ONCE * vocabulary))
        ):
            tensors = padded([[(rows.ids(row), rows.labels(row))] for row in batch])
            trained_bl = tensors.pop("labels")[:, 1:] != IGNORED
            student_nv, teacher_nv = (
                log_p(model, tensors, trained_bl, tokens) for model in (student, teacher)
            )
            teacher_nv = teacher_nv.to(student_nv.device)
            kl_n, same_n = divergence(student_nv, teacher_nv)
            counts = trained_bl.sum(dim=1).tolist()
            for row, kl, same in zip(batch, kl_n.split(counts), same_n.split(counts), strict=True):
                found[row] = Divergence(float(kl.sum()), int(same.sum()), len(kl))
    return [found[row] for row in numbers]


def log_p(model: Any, tensors: dict[str, Tensor], trained_bl: Tensor, tokens: int) -> Tensor:
    """[N, tokens] log-probabilities of the trained tokens' places."""
    device = next(model.parameters()).device
    logits_blv = model(**{name: t.to(device) for name, t in tensors.items()}, use_cache=False).logits
    return logits_blv[:, :-1][trained_bl.to(logits_blv.device)][:, :tokens].float().log_softmax(-1)


def mean_divergence(found: Sequence[Divergence]) -> dict[str, float]:
    """The same figures in the mean over all trained tokens."""
    tokens = sum(one.tokens for one in found)
    return {
        "teacher_kl": sum(one.total for one in found) / tokens,
        "teacher_agreement": sum(one.agreed for one in found) / tokens,
    }
