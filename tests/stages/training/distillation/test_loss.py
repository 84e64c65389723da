"""The divergence from a teacher's likeliest tokens, by hand and against PyTorch's own."""

from math import log, sqrt
from typing import Any

import pytest
import torch
from torch.nn import functional

from tunemill.stages.training.distillation.loss import top_k_divergence

# Probabilities of 1, 2 and 4 sevenths; the teacher says three quarters for the last token and a quarter for the second.
LOGITS_NV = torch.tensor([[0.0, log(2), log(4)]], dtype=torch.float64)
IDS_NK = torch.tensor([[2, 1]])
LOG_P_NK = torch.tensor([[log(0.75), log(0.25)]], dtype=torch.float64)
PLAIN: dict[str, Any] = {"temperature": 1.0, "beta": 0.0, "normalizes": True}


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def normalized(*weights: float) -> list[float]:
    return [weight / sum(weights) for weight in weights]


P, Q = [0.75, 0.25], [2 / 3, 1 / 3]
M = [0.5 * a + 0.5 * b for a, b in zip(P, Q, strict=True)]
WARM_P, WARM_Q = normalized(sqrt(0.75), sqrt(0.25)), normalized(2.0, sqrt(2))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, kl(P, Q)),
        ({"beta": 1.0}, kl(Q, P)),
        ({"beta": 0.5}, 0.5 * kl(P, M) + 0.5 * kl(Q, M)),
        ({"temperature": 2.0}, kl(WARM_P, WARM_Q)),
        ({"temperature": 2.0, "beta": 1.0}, kl(WARM_Q, WARM_P)),
        ({"normalizes": False}, kl(P, [4 / 7, 2 / 7])),
        ({"normalizes": False, "beta": 1.0}, kl([4 / 7, 2 / 7], P)),
    ],
)
def test_by_hand(settings: dict[str, Any], expected: float) -> None:
    found_n = top_k_divergence(LOGITS_NV, IDS_NK, LOG_P_NK, **{**PLAIN, **settings})
    assert found_n.tolist() == pytest.approx([expected], rel=1e-12)


def test_a_quarter_of_the_teacher_in_the_mixture() -> None:
    m = [0.25 * a + 0.75 * b for a, b in zip(P, Q, strict=True)]
    found_n = top_k_divergence(LOGITS_NV, IDS_NK, LOG_P_NK, **{**PLAIN, "beta": 0.25})
    assert found_n.item() == pytest.approx(0.25 * kl(P, m) + 0.75 * kl(Q, m), rel=1e-12)


@pytest.mark.parametrize("normalizes", [True, False])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_what_is_not_there_counts_nothing(beta: float, normalizes: bool) -> None:
    ids_nk = torch.tensor([[2, 1, 0], [0, 0, 0]])
    nothing = -torch.inf
    log_p_nk = torch.tensor([[log(0.75), log(0.25), nothing], [nothing] * 3], dtype=torch.float64)
    logits_nv = LOGITS_NV.repeat(2, 1).requires_grad_()
    settings = {"temperature": 2.0, "beta": beta, "normalizes": normalizes}
    found_n = top_k_divergence(logits_nv, ids_nk, log_p_nk, **settings)
    alone_n = top_k_divergence(LOGITS_NV, IDS_NK, LOG_P_NK, **settings)
    assert found_n.tolist() == pytest.approx([alone_n.item(), 0.0], rel=1e-12)
    found_n.sum().backward()
    assert torch.isfinite(logits_nv.grad).all() and not logits_nv.grad[1].any()


def test_what_is_the_same_for_all_tokens_of_the_teacher_does_not_matter() -> None:
    settings = {"temperature": 3.0, "beta": 0.5, "normalizes": True}
    first_n = top_k_divergence(LOGITS_NV, IDS_NK, LOG_P_NK, **settings)
    assert torch.allclose(top_k_divergence(LOGITS_NV, IDS_NK, LOG_P_NK + 5, **settings), first_n)


def test_over_the_whole_vocabulary_it_is_the_divergence_of_pytorch() -> None:
    torch.manual_seed(0)
    student_nv, teacher_nv = torch.randn(2, 5, 7, dtype=torch.float64)
    ids_nk = torch.arange(7).expand(5, 7)
    for normalizes in (True, False):
        found_n = top_k_divergence(
            student_nv, ids_nk, teacher_nv.log_softmax(-1), **{**PLAIN, "normalizes": normalizes}
        )
        expected_nv = functional.kl_div(
            student_nv.log_softmax(-1), teacher_nv.log_softmax(-1), reduction="none", log_target=True
        )
        assert torch.allclose(found_n, expected_nv.sum(-1))


@pytest.mark.parametrize("normalizes", [True, False])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_its_gradient(beta: float, normalizes: bool) -> None:
    torch.manual_seed(1)
    logits_nv = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    log_p_nk, ids_nk = torch.randn(4, 6, dtype=torch.float64).log_softmax(-1).topk(3)

    def divergence(logits_nv: torch.Tensor) -> torch.Tensor:
        return top_k_divergence(
            logits_nv, ids_nk, log_p_nk, temperature=2.0, beta=beta, normalizes=normalizes
        )

    assert torch.autograd.gradcheck(divergence, logits_nv)
