"""Weights that GPTQ has quantized, as AutoGPTQ and GPTQModel store them.

Of a module with `in` inputs and `out` outputs: `qweight` [in * bits / 32, out], `qzeros` [groups, out * bits / 32],
both of int32 and packed along the axis that is shorter, `scales` [groups, out], and `g_idx` [in]: the group of each
input. A weight is (code - zero) * scale. The codes of an axis follow each other bit by bit, from the lowest bit of the
first number on, so that with 3 bits some of them lie in two numbers.
"""

from collections.abc import Mapping
from typing import Any

import torch

from tunemill.stages.models.base_model.layouts.formats import ZEROS_AS_THEY_ARE

SIGN, ENDS, OPTIONAL = ".qweight", (".qweight", ".qzeros", ".scales", ".g_idx"), (".g_idx",)
WORD = 32


def unpack_gptq(settings: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    """The weight [out, in], in the type of the scales. `settings` is the quantization_config."""
    bits: int = settings["bits"]
    scales = tensors[".scales"]
    codes = unpack_words(tensors[".qweight"].T, bits).T
    zeros = unpack_words(tensors[".qzeros"], bits)[:, : scales.shape[1]]
    if settings.get("checkpoint_format") != ZEROS_AS_THEY_ARE:
        # Stored less one; the largest that fits stands for 0.
        zeros = (zeros + 1) & (2**bits - 1)
    inputs = codes.shape[0]
    group = tensors[".g_idx"].long() if ".g_idx" in tensors else _groups(inputs, scales.shape[0])
    weight = (codes - zeros[group]).float() * scales.float()[group]
    return weight.T.to(scales.dtype)


def unpack_words(words: Any, bits: int) -> Any:
    """The codes [n, m * 32 / bits] that lie in the numbers [n, m]."""
    # In 64 bits, so that shifting brings no sign along.
    unsigned = words.contiguous().long() & (2**WORD - 1)
    beyond = torch.cat((unsigned, torch.zeros_like(unsigned[:, :1])), dim=1)
    first = torch.arange(words.shape[1] * WORD // bits) * bits
    word, shift = first // WORD, first % WORD
    low = beyond[:, word] >> shift
    high = beyond[:, word + 1] << (WORD - shift)
    return (low | high) & (2**bits - 1)


def _groups(inputs: int, groups: int) -> Any:
    return torch.arange(inputs) // (-(-inputs // groups))
