"""The experts of a mixture, which are bare parameters and no linear modules, in 4 or 8 bits.

Rounding is done once, when the base is quantized, and stored in the type of the base; what is rounded gives itself when
it is rounded again, as long as the scales stay as they are. So a training packs the stored numbers, and computes with
exactly these, and whatever reads them unpacked computes the same.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from bitsandbytes.functional import (
    dequantize_4bit,
    int8_vectorwise_dequant,
    int8_vectorwise_quant,
    quantize_4bit,
)
from bitsandbytes.nn.parametrize import replace_parameter_4bit
from torch.nn.utils import parametrize

# Values that share a scale. On a CPU bitsandbytes starts a new block with every row of a weight when it reads one, and
# not when it stores one: rows of linear modules and of experts that are no multiple of it come back as noise.
BLOCK = 64
# How the weights are stored: one of sixteen values for each, with a scale for each block; or 8 bits, with one for
# each row.
Bits = Literal["nf4", "fp4", "int8"]


def expert_parameters(model: Any, bits: Bits) -> Iterator[tuple[str, Any, str]]:
    """Whole name, module and name in it of each parameter that holds the weights of all experts of a layer."""
    for place, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            whole = f"{place}.{name}"
            of_experts = parameter.ndim == 3 and parameter.is_floating_point() and "expert" in whole
            if of_experts and (bits == "int8" or fills_blocks(parameter)):
                yield whole, module, name


def fills_blocks(weight: Any) -> bool:
    """Whether no row of a weight ends within a block of 4-bit values."""
    return bool(weight.shape[-1] % BLOCK == 0)


def round_experts(model: Any, bits: Bits) -> int:
    """Put every expert's weights onto values of these bits. Returns how many parameters there are."""
    count = 0
    for _, module, name in expert_parameters(model, bits):
        parameter = getattr(module, name)
        rows = parameter.data.reshape(-1, parameter.shape[-1])
        parameter.data = rounded(rows, bits).reshape(parameter.shape).to(parameter.dtype)
        count += 1
    return count


def rounded(rows: Any, bits: Bits) -> Any:
    """What is left of the weights, rows by inputs, when they are stored in these bits."""
    if bits == "int8":
        return int8_vectorwise_dequant(*_in_int8(rows))
    packed, state = quantize_4bit(rows, blocksize=BLOCK, compress_statistics=False, quant_type=bits)
    return dequantize_4bit(packed, state)


def _in_int8(rows: Any) -> tuple[Any, Any]:
    """Weights in 8 bits, and the largest size of each row. By way of float16, as linear modules in 8 bits have it:
    the scales are numbers of that type then, and stay as they are when the weights are rounded again."""
    values, scales, _ = int8_vectorwise_quant(rows.to(torch.float16))
    return values, scales


def pack_experts(model: Any, bits: Bits) -> int:
    """Hold the rounded weights of experts in these bits, unpacked for each use. Those with a gradient stay as they
    are. Returns how many parameters there are."""
    found = [one for one in expert_parameters(model, bits) if not getattr(one[1], one[2]).requires_grad]
    for _, module, name in found:
        if bits == "int8":
            _hold_in_int8(module, name)
        else:
            replace_parameter_4bit(module, name, compress_statistics=False, quant_type=bits, blocksize=BLOCK)
    return len(found)


class FromInt8(torch.nn.Module):  # type: ignore[misc]
    """Unpacks weights of one scale for each row, into the type that they had."""

    def __init__(self, scales: Any, dtype: Any) -> None:
        super().__init__()
        self.register_buffer("scales", scales)
        self.dtype = dtype

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def forward(self, values: Any) -> Any:
        """Weights of the shape of `values`, in `dtype`."""
        rows = values.reshape(-1, values.shape[-1])
        return int8_vectorwise_dequant(rows, self.scales).reshape(values.shape).to(self.dtype)


def _hold_in_int8(module: Any, name: str) -> None:
    parameter = getattr(module, name)
    values, scales = _in_int8(parameter.data.reshape(-1, parameter.shape[-1]))
    packed = torch.nn.Parameter(values.reshape(parameter.shape), requires_grad=False)
    setattr(module, name, packed)
    unpack = FromInt8(scales, parameter.dtype)
    parametrize.register_parametrization(module, name, unpack, unsafe=True)
    if len(module.parametrizations) == 1:
        _unpack_once_a_pass(module)


def _unpack_once_a_pass(module: Any) -> None:
    """What computes one expert after the other would unpack all of them for each."""
    entered: list[Any] = []

    def begin(_module: Any, _inputs: Any) -> None:
        entered.append(parametrize.cached())
        entered[-1].__enter__()

    def end(_module: Any, _inputs: Any, _outputs: Any) -> None:
        if entered:
            entered.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(begin)
    # A checkpoint ends its second pass by an exception when it has seen enough.
    module.register_forward_hook(end, always_call=True)
