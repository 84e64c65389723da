"""Apple's Cut Cross Entropy under the signature of our `linear_cross_entropy`.

Importing this imports cut_cross_entropy. Its kernels run on a GPU, in bfloat16 and float16; they skip blocks of the
vocabulary whose gradient would round to nothing.
"""

import torch
from cut_cross_entropy import linear_cross_entropy as cut_linear_cross_entropy
from torch import Tensor

# Its kernel fills the last block of logits with -inf and caps them then, so that each adds exp(-softcap) to the sum.
VOCABULARY_BLOCK = 128


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Mean loss of hidden (..., H) @ weight.T (V, H) against labels (...) already shifted; 0 if all are ignored.

    Raises ValueError for label smoothing and z-loss, which it has not, for a dtype that it does not train in, and
    for a soft cap over a vocabulary that is no multiple of 128, which it gets wrong.
    """
    for name, value in (("label_smoothing", label_smoothing), ("z_loss", z_loss)):
        if value:
            raise ValueError(
                f"{name}: {value}; Cut Cross Entropy has none. Leave it at 0, or set cut_cross_entropy: false."
            )
    if softcap is not None and weight.shape[0] % VOCABULARY_BLOCK:
        raise ValueError(
            f"softcap: {softcap} with a vocabulary of {weight.shape[0]}; Cut Cross Entropy caps right only if that "
            f"is a multiple of {VOCABULARY_BLOCK}. Set cut_cross_entropy: false."
        )
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if hidden.dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"hidden is {hidden.dtype}; Cut Cross Entropy computes in bfloat16 or float16. "
            "Set bf16: true or fp16: true, or cut_cross_entropy: false."
        )
    # Its own mean divides by zero where every label is ignored.
    counted = (labels != ignore_index).sum().clamp(min=1)
    total: Tensor = cut_linear_cross_entropy(
        hidden, weight, labels, ignore_index=ignore_index, softcap=softcap, reduction="sum"
    )
    return total / counted
