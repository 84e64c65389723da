"""The launches of every kernel, by its own host code, as a training run makes them: one function per kernel.

Rows are few, since only their number's divisibility reaches the compiler; widths, dtypes, strides and flags
are those of real models, most of them in bfloat16. What is over 2^31 elements is a meta tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from tunemill.kernels.functions import gating, geglu, nf4, swiglu
from tunemill.kernels.functions.entropy import _Entropy
from tunemill.kernels.functions.geglu import GeGLU
from tunemill.kernels.functions.linear_cross_entropy import _LinearCrossEntropy, _Settings
from tunemill.kernels.functions.rms_norm import RMSNorm
from tunemill.kernels.functions.rope import RoPE
from tunemill.kernels.functions.selective_log_softmax import _SelectiveLogSoftmax
from tunemill.kernels.functions.swiglu import SwiGLU

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
TOKENS, VOCABULARY = 16, 151_936


def made(*shape: int, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    """A result of an operation, as an activation is, that needs a gradient."""
    return torch.zeros(shape, dtype=dtype, device=device).requires_grad_() + 0


def swiglu_launches(dtype: torch.dtype) -> None:
    SwiGLU.apply(made(TOKENS, 14336, dtype=dtype), made(TOKENS, 14336, dtype=dtype)).sum().backward()
    SwiGLU.apply(*made(TOKENS, 2 * 14336, dtype=dtype).chunk(2, dim=-1)).sum().backward()
    grad, gate, up = (made(TOKENS, 14336, dtype=dtype).detach() for _ in range(3))
    gating.backward(
        swiglu.backward_kernel, grad, gate, up, overwrite_gate=True, overwrite_up=True, hidden=grad
    )


def swiglu_over_2_31_elements(dtype: torch.dtype) -> None:
    shape = (1 << 18, 14336)
    gate, up = (made(*shape, dtype=dtype, device="meta") for _ in range(2))
    SwiGLU.apply(gate, up).sum().backward()
    SwiGLU.apply(*made(1 << 17, 2 * 14336, dtype=dtype, device="meta").chunk(2, dim=-1)).sum().backward()


def geglu_launches(dtype: torch.dtype) -> None:
    for tanh in (False, True):
        shape = (TOKENS, 14336)
        GeGLU.apply(made(*shape, dtype=dtype), made(*shape, dtype=dtype), tanh).sum().backward()
        grad, gate, up = (made(*shape, dtype=dtype).detach() for _ in range(3))
        gating.backward(
            geglu.backward_kernel,
            grad,
            gate,
            up,
            overwrite_gate=True,
            overwrite_up=True,
            hidden=grad,
            TANH=tanh,
        )


def rms_norm_launches(dtype: torch.dtype) -> None:
    for columns in (128, 4096, 8192, 16384) if dtype == torch.bfloat16 else (4096,):
        for trained in (False, True):
            weight = torch.ones(columns, dtype=dtype, requires_grad=trained)
            x, residual = (made(TOKENS, columns, dtype=dtype) for _ in range(2))
            RMSNorm.apply(x, weight, None, 1e-6, 0.0).sum().backward()
            y, h = RMSNorm.apply(x, weight, residual, 1e-6, 1.0)
            (y.sum() + h.sum()).backward()


def rope_launches(dtype: torch.dtype) -> None:
    models = ((32, 8, 128, 128), (32, 8, 64, 64), (32, 32, 96, 48), (8, 4, 256, 256))
    for q_heads, k_heads, head, rotated in models if dtype == torch.bfloat16 else models[:1]:
        q = made(1, TOKENS, q_heads * head, dtype=dtype).view(1, TOKENS, q_heads, head).transpose(1, 2)
        k = made(1, TOKENS, k_heads * head, dtype=dtype).view(1, TOKENS, k_heads, head).transpose(1, 2)
        cos = torch.ones(1, TOKENS, rotated, dtype=dtype)
        for in_place in (False, True):
            rotated_q, rotated_k = RoPE.apply(q, k, cos, cos, in_place)
        (rotated_q.sum() + rotated_k.sum()).backward()


def nf4_launches(dtype: torch.dtype) -> None:
    rows, columns = 64, 4096
    nested = SimpleNamespace(absmax=torch.ones(16), code=torch.ones(256), blocksize=256)
    for blocksize, state2 in ((64, nested), (64, None), (128, nested)):
        absmax = torch.ones(rows * columns // blocksize, dtype=torch.uint8 if state2 else torch.float32)
        state = SimpleNamespace(
            absmax=absmax,
            shape=(rows, columns),
            dtype=dtype,
            blocksize=blocksize,
            quant_type="nf4",
            offset=torch.tensor(0.5),
            state2=state2,
        )
        nf4.launch(torch.zeros(rows * columns // 2, 1, dtype=torch.uint8), state)


def entropy_launches(dtype: torch.dtype) -> None:
    _Entropy.apply(made(2, 17, VOCABULARY, dtype=dtype)[:, :-1]).sum().backward()
    _Entropy.apply(made(1 << 15, VOCABULARY, dtype=dtype, device="meta")).sum().backward()


def selective_log_softmax_launches(dtype: torch.dtype) -> None:
    index = torch.zeros(2, 16, dtype=torch.int64)
    _SelectiveLogSoftmax.apply(made(2, 17, VOCABULARY, dtype=dtype)[:, :-1], index).sum().backward()
    several = torch.zeros(TOKENS, 20, dtype=torch.int64)
    _SelectiveLogSoftmax.apply(made(TOKENS, VOCABULARY, dtype=dtype), several).sum().backward()


def linear_cross_entropy_launches(dtype: torch.dtype) -> None:
    hidden = made(TOKENS, 16, dtype=dtype, device="meta")
    labels = torch.zeros(TOKENS, dtype=torch.int64, device="meta")
    weights = torch.ones(TOKENS, device="meta")
    plain, every = _Settings(0.0, 0.0, 0.0), _Settings(30.0, 0.1, 1e-4)
    for vocabulary, settings in ((VOCABULARY, plain), (VOCABULARY, every), (VOCABULARY + 1, plain)):
        weight = made(vocabulary, 16, dtype=dtype, device="meta")
        for wants in ((True, True), (False, False)):
            loss = _LinearCrossEntropy.apply(hidden, weight, labels, weights, settings, wants)
            if any(wants):
                loss.backward()


LAUNCHES: dict[str, Callable[[torch.dtype], None]] = {
    "swiglu": swiglu_launches,
    "swiglu over 2^31 elements": swiglu_over_2_31_elements,
    "geglu": geglu_launches,
    "rms_norm": rms_norm_launches,
    "rope": rope_launches,
    "nf4": nf4_launches,
    "entropy": entropy_launches,
    "selective_log_softmax": selective_log_softmax_launches,
    "linear_cross_entropy": linear_cross_entropy_launches,
}
