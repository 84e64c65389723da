"""Weights that AWQ has quantized, as AutoAWQ stores them for its GEMM kernel.

Of a module with `in` inputs and `out` outputs: `qweight` [in, out / 8] and `qzeros` [groups, out / 8], of int32 and
packed along the outputs, and `scales` [groups, out]. A weight is (code - zero) * scale. The eight codes of a number are
those of outputs 0, 2, 4, 6, 1, 3, 5, 7, from the lowest bits on.
"""

from collections.abc import Mapping
from typing import Any

import torch

from tunemill.stages.models.base_model.layouts.gptq_body import unpack_words

SIGN, ENDS = ".qweight", (".qweight", ".qzeros", ".scales")
BITS = 4
# Where in a number the code of each of the eight outputs lies.
PLACES = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])


def unpack_awq(tensors: Mapping[str, Any]) -> Any:
    """The weight [out, in], in the type of the scales."""
    scales = tensors[".scales"]
    codes, zeros = (_in_order(unpack_words(tensors[end], BITS)) for end in (".qweight", ".qzeros"))
    group = torch.arange(codes.shape[0]) // (codes.shape[0] // scales.shape[0])
    weight = (codes - zeros[group]).float() * scales.float()[group]
    return weight.T.to(scales.dtype)


def _in_order(codes: Any) -> Any:
    return codes.unflatten(1, (-1, len(PLACES)))[:, :, PLACES].flatten(1)
