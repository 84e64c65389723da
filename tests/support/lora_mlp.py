"""What the two test files of `lora_mlp` share: settings and one run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from support.lora import leaves, projection
from tunemill.kernels.functions.lora_linear import Projection

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dropout": {"dropout": 0.4},
    "dora, dropout": {"dora": True, "dropout": 0.4},
    "frozen base, no bias": {"trained_base": False, "bias": False},
    "no adapter": {"adapter": False},
}
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


def three(width: int, intermediate: int, **settings: Any) -> tuple[Projection, Projection, Projection]:
    """Gate, up and down."""
    return (
        projection(width, intermediate, seed=1, **settings),
        projection(width, intermediate, seed=2, rank=2, **settings),
        projection(intermediate, width, seed=3, **settings),
    )


def run(
    function: Any, x: Tensor, projections: tuple[Projection, ...], activation: str = "silu"
) -> list[tuple[str, Tensor]]:
    """Output and every gradient; by `backward`, so that saved tensors may be overwritten."""
    x = x.detach().clone().requires_grad_()
    torch.manual_seed(7)
    y = function(x, *projections, activation)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    named = [("x", x), *leaves(*projections)]
    grads = torch.autograd.grad(y, [t for _, t in named], upstream.to(y.dtype))
    return [("y", y.detach()), *((name, grad) for (name, _), grad in zip(named, grads, strict=True))]
