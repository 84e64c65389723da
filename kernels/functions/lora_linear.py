"""A linear layer with a low-rank adapter (LoRA, DoRA) over a frozen base that may be 4-bit or 8-bit.

Forward, with x̃ = dropout(x) and W the dense base weight::

    LoRA   y = x Wᵀ + b + s (x̃ Aᵀ) Bᵀ
    DoRA   y = x Wᵀ + b + (c - 1) ∘ x̃ Wᵀ + c ∘ s (x̃ Aᵀ) Bᵀ,    c = m / ‖W + s B A‖ (norm of each row)

Backward, for G = dL/dy and H = c ∘ G (H = G without DoRA)::

    dA = s (H B)ᵀ x̃        dB = s Hᵀ (x̃ Aᵀ)        dm = Σ_t G ∘ (x̃ Wᵀ + s (x̃ Aᵀ) Bᵀ) / ‖W + s B A‖
    dx = G W + dropout'((H - G) W + s (H B) A)

B A (n x k) is never built: products associate so that every intermediate has r columns, and the DoRA norm is
‖w‖² + 2 s (W Aᵀ ∘ B) 1 + s² (B (A Aᵀ) ∘ B) 1, a constant for autograd as in the DoRA paper (section 4.3).
Saved for backward: x, x̃ Aᵀ (t x r), the dropout mask (one byte per element) and, for DoRA only, the product
before the magnitude. W is dequantized again in backward, never saved dense.

shapes: t tokens (all leading dimensions of x), k inputs, n outputs, r rank; weight_nk, lora_a_rk, lora_b_nr.
dtypes: float64, float32, bfloat16, float16. Everything runs in the dtype of x (under autocast, in autocast's);
adapters in a wider dtype are cast, their gradients arrive in their own dtype. An 8-bit base is dequantized:
unlike bitsandbytes' `Linear8bitLt`, the activations are not quantized.

sources: LoRA https://arxiv.org/abs/2106.09685, QLoRA https://arxiv.org/abs/2305.14314,
DoRA https://arxiv.org/abs/2402.09353, LLM.int8() https://arxiv.org/abs/2208.07339
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tunemill.kernels.functions.triton_runtime import interpreted

Dequantize = Callable[[Tensor], Tensor]
"""Stored weight in, dense weight [n, k] out; called in forward and again in backward."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """One linear layer: base weight, and a LoRA adapter unless `lora_a` and `lora_b` are None."""

    weight: Tensor
    bias: Tensor | None = None
    lora_a: Tensor | None = None
    lora_b: Tensor | None = None
    scaling: float = 1.0
    dropout: float = 0.0
    """Probability that an input of the adapter is zeroed; 0.0 when the module is not training."""
    magnitude: Tensor | None = None
    """DoRA's m [n]; None for plain LoRA."""
    dequantize: Dequantize | None = None
    """Needed when `weight` is stored in 4 or 8 bits."""


class Constants(NamedTuple):
    """What autograd does not see of a projection."""

    scaling: float
    keep: float
    dequantize: Dequantize | None


class Factors(NamedTuple):
    """The tensors of a projection in the order an autograd function takes them and returns gradients."""

    weight: Tensor
    bias: Tensor | None
    lora_a_rk: Tensor | None
    lora_b_nr: Tensor | None
    magnitude_n: Tensor | None
    mask_tk: Tensor | None


class Saved(NamedTuple):
    """Intermediates of one projection that backward needs."""

    low_tr: Tensor | None
    direction_tn: Tensor | None
    norm_n: Tensor | None


FACTORS = len(Factors._fields)
SAVED = len(Saved._fields)


def dequantize_int8(weight_nk: Tensor, scale_n: Tensor, dtype: torch.dtype) -> Tensor:
    """Row-wise int8 to dense: q * (scale / 127), what bitsandbytes' 8-bit layers keep as CB and SCB."""
    return weight_nk.to(dtype) * (scale_n.unsqueeze(1) * (1.0 / 127.0)).to(dtype)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a linear layer over `x` runs in: autocast's where autocast is on, else that of `x`."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def prepare(x_tk: Tensor, projection: Projection) -> tuple[Constants, Factors]:
    """Check a projection, cast its adapter to the dtype of `x_tk` and draw its dropout mask.

    Raises:
        ValueError: where shapes, dtypes or settings do not fit together.
    """
    check(x_tk, projection)
    dtype = x_tk.dtype
    mask_tk = dropout_mask(x_tk, projection.dropout) if projection.lora_a is not None else None

    def cast(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(dtype)

    factors = Factors(
        projection.weight,
        cast(projection.bias),
        cast(projection.lora_a),
        cast(projection.lora_b),
        projection.magnitude,
        mask_tk,
    )
    return Constants(float(projection.scaling), 1.0 - projection.dropout, projection.dequantize), factors


def check(x: Tensor, projection: Projection) -> None:
    """Raise ValueError where a projection contradicts itself or `x`."""
    lora_a, lora_b, weight = projection.lora_a, projection.lora_b, projection.weight
    if not 0.0 <= projection.dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {projection.dropout}")
    if projection.dequantize is None and not weight.is_floating_point():
        raise ValueError(f"a weight stored as {weight.dtype} needs `dequantize`, got None")
    if projection.dequantize is None and weight.shape[1] != x.shape[-1]:
        raise ValueError(f"weight {tuple(weight.shape)} does not take inputs of width {x.shape[-1]}")
    if lora_a is None or lora_b is None:
        if lora_a is not None or lora_b is not None or projection.magnitude is not None:
            raise ValueError("lora_a, lora_b and magnitude: give both matrices, or none of the three")
        return
    if lora_a.shape[1] != x.shape[-1] or lora_b.shape[1] != lora_a.shape[0]:
        raise ValueError(
            f"lora_a {tuple(lora_a.shape)} and lora_b {tuple(lora_b.shape)} must be [r, k] and [n, r] "
            f"for inputs of width k = {x.shape[-1]}"
        )


def dropout_mask(x_tk: Tensor, probability: float) -> Tensor | None:
    """True where an element is kept; None for no dropout."""
    if probability == 0.0:
        return None
    return torch.empty(x_tk.shape, dtype=torch.bool, device=x_tk.device).bernoulli_(1.0 - probability)


def drop(tensor_tk: Tensor, mask_tk: Tensor | None, keep: float) -> Tensor:
    """tensor ∘ mask / keep in one kernel (PyTorch's dropout backward is this very product)."""
    if mask_tk is None:
        return tensor_tk
    dropped: Tensor = torch.ops.aten.native_dropout_backward(tensor_tk, mask_tk, 1.0 / keep)
    return dropped


def dense_weight(factors: Factors, constants: Constants, dtype: torch.dtype) -> Tensor:
    """The base weight [n, k] in `dtype`."""
    stored = factors.weight
    return (stored if constants.dequantize is None else constants.dequantize(stored)).to(dtype)


def adapted_norm(weight_nk: Tensor, lora_a_rk: Tensor, lora_b_nr: Tensor, scaling: float) -> Tensor:
    """‖W + s B A‖ of each row without B A, in float32 (float64 for float64)."""
    wide = torch.promote_types(weight_nk.dtype, torch.float32)
    a_rk, b_nr = lora_a_rk.to(wide), lora_b_nr.to(wide)
    base_n = torch.linalg.vector_norm(weight_nk, dim=1, dtype=wide).square()
    cross_n = ((weight_nk @ lora_a_rk.t()).to(wide) * b_nr).sum(1)
    with torch.autocast(weight_nk.device.type, enabled=False):  # which would round these products
        update_n = ((b_nr @ (a_rk @ a_rk.t())) * b_nr).sum(1)
    return (base_n + 2.0 * scaling * cross_n + scaling**2 * update_n).clamp_min(0.0).sqrt()


def project(x_tk: Tensor, constants: Constants, factors: Factors) -> tuple[Tensor, Saved]:
    """Forward of one projection, outside autograd: y [t, n] and what its backward needs."""
    weight_nk = dense_weight(factors, constants, x_tk.dtype)
    a_rk, b_nr, scaling = factors.lora_a_rk, factors.lora_b_nr, constants.scaling
    if a_rk is None or b_nr is None:
        return functional.linear(x_tk, weight_nk, factors.bias), Saved(None, None, None)
    dropped_tk = drop(x_tk, factors.mask_tk, constants.keep)
    low_tr = dropped_tk @ a_rk.t()
    if factors.magnitude_n is None:
        y_tn = functional.linear(x_tk, weight_nk, factors.bias)
        return y_tn.addmm_(low_tr, b_nr.t(), alpha=scaling), Saved(low_tr, None, None)
    norm_n = adapted_norm(weight_nk, a_rk, b_nr, scaling)
    direction_tn = (dropped_tk @ weight_nk.t()).addmm_(low_tr, b_nr.t(), alpha=scaling)
    y_tn = direction_tn * (factors.magnitude_n / norm_n).to(x_tk.dtype)
    if factors.mask_tk is not None:
        y_tn.addmm_(x_tk - dropped_tk, weight_nk.t())
    if factors.bias is not None:
        y_tn.add_(factors.bias)
    return y_tn, Saved(low_tr, direction_tn, norm_n)


def add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """total + left @ right, in the memory of `total` where there is one."""
    return left @ right if total is None else total.addmm_(left, right)


def project_backward(
    grad_tn: Tensor,
    x_tk: Tensor,
    constants: Constants,
    factors: Factors,
    saved: Saved,
    needs: Sequence[bool],
    grad_x_tk: Tensor | None,
    needs_x: bool,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Backward of one projection.

    Adds its share to `grad_x_tk` in place (None: starts it) and returns it with the gradients of the factors,
    None where `needs` says that nobody asks.
    """
    grads: list[Tensor | None] = [None] * FACTORS
    a_rk, b_nr, magnitude_n, mask_tk = factors[2:]
    low_tr, direction_tn, norm_n = saved
    scaling, keep = constants.scaling, constants.keep
    inner_tn = grad_tn
    if magnitude_n is not None and norm_n is not None and direction_tn is not None:
        inner_tn = grad_tn * (magnitude_n / norm_n).to(grad_tn.dtype)
        if needs[4]:
            total_n = (grad_tn * direction_tn).sum(0, dtype=norm_n.dtype)
            grads[4] = (total_n / norm_n).to(magnitude_n.dtype)
    if needs[1]:
        grads[1] = grad_tn.sum(0)
    grad_low_tr = None
    if a_rk is not None and b_nr is not None and low_tr is not None:
        grad_low_tr = (inner_tn @ b_nr).mul_(scaling)
        if needs[2]:
            grads[2] = grad_low_tr.t() @ drop(x_tk, mask_tk, keep)
        if needs[3]:
            grads[3] = (inner_tn.t() @ low_tr).mul_(scaling)
    if needs[0]:
        grads[0] = _grad_weight(grad_tn, inner_tn, x_tk, constants, factors).to(factors.weight.dtype)
    if not needs_x:
        return grad_x_tk, grads
    weight_nk = dense_weight(factors, constants, grad_tn.dtype)
    if grad_low_tr is None or a_rk is None:
        return add_product(grad_x_tk, grad_tn, weight_nk), grads
    if mask_tk is None:
        return add_product(grad_x_tk, inner_tn, weight_nk).addmm_(grad_low_tr, a_rk), grads
    grad_x_tk = add_product(grad_x_tk, grad_tn, weight_nk)
    branch_tk = grad_low_tr @ a_rk
    if magnitude_n is not None:
        branch_tk.addmm_(inner_tn - grad_tn, weight_nk)
    return grad_x_tk.add_(drop(branch_tk, mask_tk, keep)), grads


def _grad_weight(
    grad_tn: Tensor, inner_tn: Tensor, x_tk: Tensor, constants: Constants, factors: Factors
) -> Tensor:
    """Gradient of a dense base weight that is trained beside its adapter."""
    if factors.magnitude_n is None or factors.mask_tk is None:
        return inner_tn.t() @ x_tk
    return (grad_tn.t() @ x_tk).addmm_((inner_tn - grad_tn).t(), drop(x_tk, factors.mask_tk, constants.keep))


class LoraLinear(torch.autograd.Function):  # type: ignore[misc]
    """`forward(x_tk, constants, *factors)`; saves only what `Saved` holds besides its inputs."""

    @staticmethod
    def forward(ctx: Any, x_tk: Tensor, constants: Constants, *tensors: Tensor | None) -> Tensor:
        """One projection of x_tk; tensors are the fields of `Factors`."""
        factors = Factors(*tensors)
        y_tn, saved = project(x_tk, constants, factors)
        ctx.save_for_backward(x_tk, *factors, *saved)
        ctx.constants = constants
        return y_tn

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_tn: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x_tk and of each factor that asks for one."""
        x_tk, *rest = ctx.saved_tensors
        factors, saved = Factors(*rest[:FACTORS]), Saved(*rest[FACTORS:])
        needs = ctx.needs_input_grad
        grad_x_tk, grads = project_backward(
            grad_tn.contiguous(), x_tk, ctx.constants, factors, saved, needs[2:], None, needs[0]
        )
        return (grad_x_tk, None, *grads)


def fused(x: Tensor, projection: Projection) -> Tensor:
    """The autograd function on any device: x [..., k] to y [..., n]."""
    x_tk = x.to(compute_dtype(x)).reshape(-1, x.shape[-1])
    constants, factors = prepare(x_tk, projection)
    y_tn: Tensor = LoraLinear.apply(x_tk, constants, *factors)
    return y_tn.view(*x.shape[:-1], y_tn.shape[-1])


def plain(x: Tensor, projection: Projection) -> Tensor:
    """The same formulas by plain autograd; the DoRA norm is taken of the materialised W + s B A."""
    x = x.to(compute_dtype(x))
    constants, factors = prepare(x.reshape(-1, x.shape[-1]), projection)
    weight_nk = dense_weight(factors, constants, x.dtype)
    y = functional.linear(x, weight_nk, factors.bias)
    a_rk, b_nr, magnitude_n, mask_tk = factors[2:]
    if a_rk is None or b_nr is None:
        return y
    dropped = x if mask_tk is None else x * mask_tk.view_as(x) * (1.0 / constants.keep)
    update = functional.linear(functional.linear(dropped, a_rk), b_nr) * constants.scaling
    if magnitude_n is None:
        return y + update
    wide = torch.promote_types(x.dtype, torch.float32)
    delta_nk = constants.scaling * (b_nr.detach().to(wide) @ a_rk.detach().to(wide))
    norm_n = torch.linalg.vector_norm(weight_nk.detach().to(wide) + delta_nk, dim=1)
    ratio_n = (magnitude_n / norm_n).to(x.dtype)
    return y + (ratio_n - 1.0) * functional.linear(dropped, weight_nk) + ratio_n * update


def runs_fused(x: Tensor) -> bool:
    """On accelerators, and under the interpreter; a plain CPU takes the reference like every kernel here."""
    return interpreted or x.device.type != "cpu"


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lora_a: Tensor,
    lora_b: Tensor,
    scaling: float,
    *,
    dropout: float = 0.0,
    magnitude: Tensor | None = None,
    dequantize: Dequantize | None = None,
) -> Tensor:
    """Plain PyTorch `lora_linear`; draws the same dropout mask from the same generator state."""
    projection = Projection(
        weight=weight,
        bias=bias,
        lora_a=lora_a,
        lora_b=lora_b,
        scaling=scaling,
        dropout=dropout,
        magnitude=magnitude,
        dequantize=dequantize,
    )
    return plain(x, projection)


def lora_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lora_a: Tensor,
    lora_b: Tensor,
    scaling: float,
    *,
    dropout: float = 0.0,
    magnitude: Tensor | None = None,
    dequantize: Dequantize | None = None,
) -> Tensor:
    """y [..., n] of x [..., k] through a base layer and its LoRA or DoRA adapter.

    Args:
        weight: [n, k] dense, or the stored tensor that `dequantize` turns into that.
        bias: [n] or None.
        lora_a: [r, k].
        lora_b: [n, r].
        scaling: alpha / r (alpha / sqrt(r) for rsLoRA).
        dropout: probability; 0.0 when the module is not training.
        magnitude: [n], DoRA's m.
        dequantize: for 4-bit and 8-bit bases, e.g. ``partial(dequantize_nf4, state=state)``.

    Raises:
        ValueError: where shapes, dtypes or settings do not fit together.
    """
    projection = Projection(
        weight=weight,
        bias=bias,
        lora_a=lora_a,
        lora_b=lora_b,
        scaling=scaling,
        dropout=dropout,
        magnitude=magnitude,
        dequantize=dequantize,
    )
    return fused(x, projection) if runs_fused(x) else plain(x, projection)
