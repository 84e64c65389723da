"""The experts of a mixture, which are bare parameters and no linear modules, in 4 bits.

Rounding is done once, when the base is quantized, and stored in the type of the base; what is rounded gives itself when
it is rounded again, as long as the scales stay as they are. So a training packs the stored numbers, and computes with
exactly these, and whatever reads them unpacked computes the same.
"""

from collections.abc import Iterator
from typing import Any, Literal

from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn.parametrize import replace_parameter_4bit

# Values that share a scale. On a CPU bitsandbytes starts a new block with every row of a weight when it reads one, and
# not when it stores one: rows of linear modules and of experts that are no multiple of it come back as noise.
BLOCK = 64


def expert_parameters(model: Any) -> Iterator[tuple[str, Any, str]]:
    """Whole name, module and name in it of each parameter that holds the weights of all experts of a layer."""
    for place, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            whole = f"{place}.{name}"
            if parameter.ndim == 3 and "expert" in whole and parameter.shape[-1] % BLOCK == 0:
                yield whole, module, name


def round_experts(model: Any, quant_type: Literal["nf4", "fp4"]) -> int:
    """Put every expert's weights onto values of 4 bits. Returns how many parameters there are."""
    count = 0
    for _, module, name in expert_parameters(model):
        parameter = getattr(module, name)
        rows = parameter.data.reshape(-1, parameter.shape[-1])
        packed, state = quantize_4bit(rows, blocksize=BLOCK, compress_statistics=False, quant_type=quant_type)
        parameter.data = dequantize_4bit(packed, state).reshape(parameter.shape).to(parameter.dtype)
        count += 1
    return count


def pack_experts(model: Any, quant_type: Literal["nf4", "fp4"]) -> int:
    """Hold the rounded weights of experts in 4 bits, unpacked for each use. Those with a gradient stay as they are."""
    found = [one for one in expert_parameters(model) if not getattr(one[1], one[2]).requires_grad]
    for _, module, name in found:
        replace_parameter_4bit(
            module, name, compress_statistics=False, quant_type=quant_type, blocksize=BLOCK
        )
    return len(found)
