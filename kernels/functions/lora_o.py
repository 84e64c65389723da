"""The output projection of attention with LoRA: heads are joined and projected in one call.

y = concat_h(x_h) Wᵀ + b + s (dropout(concat_h(x_h)) Aᵀ) Bᵀ, forward and backward as in
`lora_linear`. x is what attention returns, [..., heads, head_dim] or already joined [..., k] with
k = heads * head_dim; joining is a view where attention wrote its heads side by side, else one explicit copy.

shapes: k inputs, n outputs, r rank. dtypes and sources: see `tunemill.kernels.functions.lora_linear`.
"""

from __future__ import annotations

from torch import Tensor

from tunemill.kernels.functions.lora_linear import Projection, fused, plain, runs_fused


def width(output: Projection) -> int:
    """k, from the adapter or else from a dense weight."""
    if output.lora_a is not None:
        return int(output.lora_a.shape[1])
    if output.dequantize is not None:
        raise ValueError(
            "lora_o: a quantized weight without an adapter does not say its width; join the heads"
        )
    return int(output.weight.shape[1])


def join_heads(x: Tensor, output: Projection) -> Tensor:
    """[..., heads, head_dim] to [..., k]; [..., k] stays as it is.

    Raises:
        ValueError: where neither the last nor the last two dimensions make k.
    """
    if output.lora_a is None and output.dequantize is not None and x.dim() <= 3:
        return x
    k = width(output)
    if x.shape[-1] == k:
        return x
    if x.dim() > 1 and x.shape[-2] * x.shape[-1] == k:
        return x.flatten(-2)
    raise ValueError(f"lora_o: input {tuple(x.shape)} is neither [..., {k}] nor [..., heads, {k} / heads]")


def reference(x: Tensor, output: Projection) -> Tensor:
    """Plain PyTorch `lora_o`."""
    return plain(join_heads(x, output), output)


def lora_o(x: Tensor, output: Projection) -> Tensor:
    """y [..., n] of attention heads x [..., heads, head_dim] or [..., k].

    Raises:
        ValueError: where shapes, dtypes or settings do not fit together.
    """
    joined = join_heads(x, output)
    return fused(joined, output) if runs_fused(joined) else plain(joined, output)
