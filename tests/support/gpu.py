"""What the tests on a GPU share: where they run, and how far a result may be from the same in float64."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from support.kernels import as_tuple

DEVICE = "cuda"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

# Relative to the norm of the exact result; for bfloat16 the smaller numbers round worse than the norm says.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = tuple(TOLERANCES)


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0, spread: float = 1.5) -> Tensor:
    """Normally distributed values on the GPU, the same for every dtype up to rounding."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, device=DEVICE)).to(dtype)


def error_of(actual: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of `exact`; NaN where something is not finite."""
    difference = torch.linalg.vector_norm(actual.double() - exact.double())
    return float(difference / torch.linalg.vector_norm(exact.double()).clamp_min(1e-30))


def check_against_float64(
    kernel: Callable[..., Tensor | Sequence[Tensor]],
    reference: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor],
    *,
    factor: float = 1.0,
) -> None:
    """Every output and the gradient of every input; the inputs reach the kernel as results of an operation."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    exact_leaves = [x.detach().double().requires_grad_() for x in inputs]
    outputs = as_tuple(kernel(*[x.clone() for x in leaves]))
    expected = as_tuple(reference(*exact_leaves))
    tolerance = factor * TOLERANCES[inputs[0].dtype]
    errors = {f"output {i}": error_of(a, b) for i, (a, b) in enumerate(zip(outputs, expected, strict=True))}
    gradients = [drawn(*y.shape, dtype=y.dtype, seed=9, spread=1.0) for y in outputs]
    torch.autograd.backward(outputs, gradients)
    torch.autograd.backward(expected, [gradient.double() for gradient in gradients])
    for number, (leaf, exact) in enumerate(zip(leaves, exact_leaves, strict=True)):
        assert leaf.grad is not None and exact.grad is not None, f"input {number} has no gradient"
        assert leaf.grad.dtype == leaf.dtype
        errors[f"gradient of input {number}"] = error_of(leaf.grad, exact.grad)
    wrong = {what: error for what, error in errors.items() if not error <= tolerance}
    assert not wrong, f"further than {tolerance}: {wrong}"
