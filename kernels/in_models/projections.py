"""Linear layers of a model as `Projection`s: plain, quantized by bitsandbytes, or with an adapter by PEFT.

A linear layer is torch's, or one of bitsandbytes' over a weight in 4 or 8 bits; `base_layer`, `lora_A`, `lora_B` and
`lora_dropout` around one make an adapter, whatever their class. What is read may change between two calls
(an adapter is switched off, merged, or another one made active), so it is read anew for every forward pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tunemill.kernels.functions.lora_linear import Dequantize, Projection, dequantize_int8
from tunemill.kernels.functions.nf4 import dequantize_nf4


def is_linear(module: nn.Module) -> bool:
    """A linear layer that is no more than its weight (outputs, inputs), stored densely or by bitsandbytes."""
    weight = module._parameters.get("weight")
    if not isinstance(module, nn.Linear) or weight is None or module._modules or has_hooks(module):
        return False
    # A subclass with a forward of its own computes something else, for instance with a rounded weight.
    return type(module).forward is nn.Linear.forward or is_quantized(weight)


def is_quantized(weight: Tensor) -> bool:
    """Whether bitsandbytes stores this weight in 4 or 8 bits."""
    return vars(weight).get("quant_state") is not None or weight.dtype == torch.int8


def has_hooks(module: nn.Module) -> bool:
    """Whether something runs with each call of `module`, which a function in its place would leave out."""
    forward = (module._forward_hooks, module._forward_pre_hooks)
    hooks = (*forward, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def is_adapter(module: nn.Module) -> bool:
    """A linear layer inside a LoRA adapter."""
    children = module._modules
    base = children.get("base_layer")
    if base is None or not is_linear(base) or has_hooks(module):
        return False
    return {"lora_A", "lora_B", "lora_dropout"} <= set(children)


def projection(module: nn.Module) -> Projection | None:
    """What `module` computes at this moment; None for what a `Projection` cannot say, so that it must be called."""
    if is_linear(module):
        return _base(module)
    if not is_adapter(module):
        return None
    layer: Any = module
    base = _base(layer.base_layer)
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if base is None or layer.merged or len(active) > 1 or _is_transposed(layer):
        return None
    if layer.disable_adapters or not active:
        return base
    return _adapted(layer, active[0], base)


def _adapted(layer: Any, name: str, base: Projection) -> Projection | None:
    magnitude = layer.lora_magnitude_vector[name].weight if name in layer.lora_magnitude_vector else None
    is_other_variant = name in layer.lora_variant and magnitude is None
    dropout = layer.lora_dropout[name]
    is_plain_dropout = isinstance(dropout, nn.Identity | nn.Dropout)
    if is_other_variant or not is_plain_dropout or layer.lora_B[name].bias is not None:
        return None
    drops = isinstance(dropout, nn.Dropout) and dropout.training
    return Projection(
        weight=base.weight,
        bias=base.bias,
        lora_a=layer.lora_A[name].weight,
        lora_b=layer.lora_B[name].weight,
        scaling=float(layer.scaling[name]),
        dropout=float(dropout.p) if drops else 0.0,
        magnitude=magnitude,
        dequantize=base.dequantize,
    )


def _is_transposed(layer: Any) -> bool:
    return bool(vars(layer).get("fan_in_fan_out", False))


def _base(module: Any) -> Projection | None:
    stored: Any = module.weight
    bias = module._parameters.get("bias")
    if not is_quantized(stored):
        is_dense = stored.is_floating_point() and stored.dim() == 2
        return Projection(weight=stored, bias=bias) if is_dense else None
    dequantize = _dequantize(module, stored)
    return None if dequantize is None else Projection(weight=stored, bias=bias, dequantize=dequantize)


def _dequantize(module: Any, stored: Any) -> Dequantize | None:
    """How a weight that bitsandbytes stores in 4 or 8 bits becomes dense; None where it does not say."""
    state = vars(stored).get("quant_state")
    if state is not None:
        # On a CPU bitsandbytes may keep the codes in an order of its own.
        is_reordered = vars(state).get("packing_format_for_cpu", False)
        return partial(_from_nf4, state) if state.quant_type == "nf4" and not is_reordered else None
    scale_n = vars(stored).get("SCB")
    if scale_n is None and "state" in vars(module):
        scale_n = module.state.SCB  # the first forward pass moves it there
    return None if scale_n is None else partial(_from_int8, scale_n)


def _from_nf4(state: Any, stored: Tensor) -> Tensor:
    return dequantize_nf4(stored.detach(), state)


def _from_int8(scale_n: Tensor, stored: Tensor) -> Tensor:
    return dequantize_int8(stored.detach(), scale_n, torch.float32)
