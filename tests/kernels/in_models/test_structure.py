"""What is told from a module's children, parameters and arithmetic, and what only looks like it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.families import make_family
from torch import nn

from tunemill.kernels.in_models import structure
from tunemill.kernels.in_models.proof import UnfitError


def attention() -> Any:
    return make_family("qwen3").model.layers[0].self_attn


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda module: module.add_module("gate", nn.Linear(16, 16)), "attention with gate"),
        (lambda module: delattr(module, "q_norm"), "attention with k_norm"),
        (lambda module: delattr(module, "scaling"), "attention without scaling"),
        (
            lambda module: setattr(module.k_norm, "weight", nn.Parameter(torch.ones(16))),
            "its k_norm is no norm of single heads",
        ),
    ],
)
def test_attention_of_another_kind(change: Callable[[Any], None], reason: str) -> None:
    module = attention()
    assert structure.is_attention(module)
    change(module)
    with pytest.raises(UnfitError, match=reason):
        structure.is_attention(module)


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(16, bias=False), nn.LayerNorm((2, 8)), type("Other", (nn.LayerNorm,), {})(16)],
    ids=str,
)
def test_a_layer_norm_of_another_kind(norm: nn.LayerNorm) -> None:
    assert structure.is_layer_norm(nn.LayerNorm(16))
    assert not structure.is_layer_norm(norm)


def test_a_gated_mlp_of_another_kind() -> None:
    mlp = make_family("llama").model.layers[0].mlp
    assert structure.activation_of(mlp) == "silu"
    mlp.act_fn = nn.ReLU()
    with pytest.raises(UnfitError, match="none of silu, gelu and gelu in tanh form"):
        structure.activation_of(mlp)
    del mlp.act_fn
    with pytest.raises(UnfitError, match="no activation function"):
        structure.activation_of(mlp)
    mlp.router, mlp.expert = nn.Linear(16, 2), nn.Linear(16, 16)
    assert structure.activation_of(mlp) is None
