"""What a module is, told by its children, its parameters and its arithmetic; never by its model's name.

Each function gives what it takes to put a kernel in place of the module, None where the module is something else,
and raises `UnfitError` where it nearly fits.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunemill.kernels.functions import geglu, rms_norm
from tunemill.kernels.in_models.modules import FusedNorm
from tunemill.kernels.in_models.projections import has_hooks, is_adapter, is_linear
from tunemill.kernels.in_models.proof import UnfitError

ATTENTION_CHILDREN = {"q_proj", "k_proj", "v_proj", "o_proj"}
ATTENTION_INPUTS = {"hidden_states", "position_embeddings", "attention_mask"}
HEAD_NORMS = {"q_norm", "k_norm"}
ATTENTION_SETTINGS = {"head_dim", "scaling", "attention_dropout", "layer_idx", "config"}
MLP_CHILDREN = {"gate_proj", "up_proj", "down_proj"}
GATE_UP_CHILDREN = {"gate_up_proj", "down_proj"}
LAYER_CHILDREN = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


@dataclass(frozen=True)
class Norm:
    """y = h / rms(h) * (offset + weight)."""

    eps: float
    offset: float


def norm_of(module: nn.Module) -> Norm | None:
    """The formula of an RMSNorm module; found by trying it on random rows in float32."""
    weight = module._parameters.get("weight")
    sole = set(module._parameters) == {"weight"} and not module._modules and not module._buffers
    if not sole or weight is None or weight.dim() != 1 or has_hooks(module):
        return None
    found = [vars(module)[name] for name in ("variance_epsilon", "eps") if name in vars(module)]
    # A norm that takes a gate too, even if it need not get one, does more.
    takes_rows_only = len(inspect.signature(type(module).forward).parameters) == 2
    if len(found) != 1 or not isinstance(found[0], float) or not takes_rows_only:
        return None
    eps = found[0]
    generator = torch.Generator().manual_seed(0)
    # The second row is so small that eps decides.
    rows = torch.randn((2, weight.shape[0]), generator=generator) * torch.tensor([[1.0], [eps**0.5]])
    probe = copy.copy(module)
    values = torch.randn(weight.shape, generator=generator)
    vars(probe)["_parameters"] = {"weight": nn.Parameter(values, requires_grad=False)}
    try:
        with torch.no_grad():
            actual = probe(rows)
    except (RuntimeError, TypeError, ValueError):  # a norm of something other than rows
        return None
    for offset in (0.0, 1.0):
        expected = rms_norm.reference(rows, values, eps, offset=offset)
        if isinstance(expected, Tensor) and torch.allclose(actual, expected, rtol=1e-4, atol=1e-5):
            return Norm(eps, offset)
    return None


def is_layer_norm(module: nn.Module) -> bool:
    """torch's LayerNorm over the last dimension, with weight and bias."""
    parameters = set(module._parameters) == {"weight", "bias"} and None not in module._parameters.values()
    return type(module) is nn.LayerNorm and parameters and len(module.normalized_shape) == 1


def mlp_projections(mlp: nn.Module) -> set[str]:
    """The names of the projections of a gated MLP with at most one other child; none where it is something else."""
    children = set(mlp._modules)
    known = next((names for names in (MLP_CHILDREN, GATE_UP_CHILDREN) if children >= names), None)
    return set() if known is None or len(children) > len(known) + 1 else known


def activation_of(mlp: nn.Module) -> str | None:
    """silu, gelu or gelu_tanh where `mlp` is gate, up, down and one of these; None where it is something else."""
    names = mlp_projections(mlp)
    if not names:
        return None
    if not all(is_linear_or_adapter(mlp.get_submodule(name)) for name in names):
        raise UnfitError(f"one of {', '.join(sorted(names))} is no plain linear layer")
    others = set(mlp._modules) - names
    function: Any = mlp.get_submodule(others.pop()) if others else vars(mlp).get("act_fn")
    if not callable(function):
        raise UnfitError("it has no activation function")
    points = torch.linspace(-8.0, 8.0, 257, dtype=torch.float64)
    with torch.no_grad():
        actual = function(points)
    for name, known in KNOWN_ACTIVATIONS.items():
        if torch.allclose(actual, known(points), rtol=0.0, atol=1e-9):
            return name
    raise UnfitError("its activation is none of silu, gelu and gelu in tanh form")


def _gelu_tanh(points: Tensor) -> Tensor:
    return geglu.reference(points, torch.ones_like(points), "tanh")


KNOWN_ACTIVATIONS = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": _gelu_tanh,
}


def is_attention(module: nn.Module) -> bool:
    """Four projections, and perhaps norms of the heads of q and k; raises UnfitError for more or less."""
    children = set(module._modules)
    if not children >= ATTENTION_CHILDREN:
        return False
    strange = children - ATTENTION_CHILDREN - HEAD_NORMS
    if strange or len(children & HEAD_NORMS) == 1:
        raise UnfitError(f"attention with {', '.join(sorted(strange or children & HEAD_NORMS))}")
    if not set(inspect.signature(type(module).forward).parameters) >= ATTENTION_INPUTS:
        raise UnfitError("attention that is called in another way")
    if not set(vars(module)) >= ATTENTION_SETTINGS:
        missing = sorted(ATTENTION_SETTINGS - set(vars(module)))
        raise UnfitError(f"attention without {', '.join(missing)}")
    if not all(is_linear_or_adapter(module.get_submodule(name)) for name in ATTENTION_CHILDREN):
        raise UnfitError("one of its projections is no plain linear layer")
    for name in children & HEAD_NORMS:
        weight = module.get_submodule(name)._parameters.get("weight")
        if weight is None or weight.shape != (vars(module)["head_dim"],):
            raise UnfitError(f"its {name} is no norm of single heads")
    return True


def is_linear_or_adapter(module: nn.Module) -> bool:
    """A linear layer, or one inside a LoRA adapter."""
    return is_linear(module) or is_adapter(module)


def has_adapter(module: nn.Module, *names: str) -> bool:
    """Whether one of these children is inside a LoRA adapter."""
    return any(is_adapter(module.get_submodule(name)) for name in names)


def is_layer(module: nn.Module) -> bool:
    """A decoder layer whose children are those of Llama, with norms that a kernel computes already."""
    if set(module._modules) != LAYER_CHILDREN:
        return False
    return all(
        isinstance(module.get_submodule(f"{name}_layernorm"), FusedNorm)
        for name in ("input", "post_attention")
    )
