"""PyTorch's ring attention over the operation that computes attention on a CPU, for which it has no rule itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.experimental._context_parallel import _attention

OPERATION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
# Of heads of a sequence: batch, head, token, ...
TOKENS = 2


def _forward(_operation: Any, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    query, key, value, dropout, is_causal = (*arguments, 0.0, False)[:5] if len(arguments) == 3 else arguments
    assert not dropout and not settings.get("attn_mask")
    mesh = query.device_mesh
    found = _attention._templated_ring_attention(
        mesh.get_group(), TOKENS, OPERATION, query.to_local(), key.to_local(), value.to_local(),
        is_causal=is_causal, scale=settings.get("scale"),
    )  # fmt: skip
    return tuple(DTensor.from_local(one, mesh, [Shard(TOKENS)], run_check=False) for one in found[:2])


def _backward(_operation: Any, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    *tensors, dropout, is_causal = arguments
    assert not dropout and not settings.get("attn_mask")
    mesh = tensors[1].device_mesh
    upstream, query, key, value, out, logsumexp = (one.to_local() for one in tensors)
    found = _attention._templated_ring_attention_backward(
        mesh.get_group(), TOKENS, BACKWARD, upstream, "grad_out", query, key, value, out, logsumexp, is_causal,
        dropout_p=0.0, scale=settings.get("scale"),
    )  # fmt: skip
    return tuple(DTensor.from_local(one, mesh, [Shard(TOKENS)], run_check=False) for one in found[:3])


@contextmanager
def split_on_cpus() -> Iterator[None]:
    """While open, PyTorch splits attention on CPUs, too."""
    _attention.custom_ops |= {OPERATION: _forward, BACKWARD: _backward}
    yield
    for operation in (OPERATION, BACKWARD):
        del _attention.custom_ops[operation]
