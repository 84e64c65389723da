"""What the kernel tests share: tolerances per dtype, and a kernel against its reference in float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# A few units in the last place of each type (their eps: 1.2e-7, 7.8e-3, 9.8e-4).
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (2e-6, 2e-6),
    torch.bfloat16: (8e-3, 8e-3),
    torch.float16: (1e-3, 1e-3),
}


def assert_close(actual: Tensor, expected: Tensor, what: str = "", scale: float = 1.0) -> None:
    """Fail with the number, the place and the size of the differences; tolerance by the dtype of `actual`."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    absolute, relative = (t * scale for t in TOLERANCES[actual.dtype])
    torch.testing.assert_close(
        actual.double(), expected.double(), atol=absolute, rtol=relative, msg=lambda text: f"{what}: {text}"
    )


def as_tuple(result: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def check_against_reference(
    kernel: Callable[..., Tensor | Sequence[Tensor]],
    reference: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor],
    *,
    scale: float = 1.0,
    **options: object,
) -> None:
    """Every output and the gradient of every input, `kernel` as given and `reference` in float64.

    The inputs reach the kernel as results of an operation, not as leaves, as they do in a model.
    """
    generator = torch.Generator().manual_seed(1)
    leaves = [x.detach().requires_grad_() for x in inputs]
    exact_leaves = [x.detach().double().requires_grad_() for x in inputs]
    outputs = as_tuple(kernel(*[identity(x) for x in leaves], **options))
    expected = as_tuple(reference(*exact_leaves, **options))
    grads = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]
    for number, (actual, exact) in enumerate(zip(outputs, expected, strict=True)):
        assert_close(actual, exact, f"output {number}", scale)
    torch.autograd.backward(outputs, grads)
    torch.autograd.backward(expected, [grad.double() for grad in grads])
    for number, (leaf, exact) in enumerate(zip(leaves, exact_leaves, strict=True)):
        assert leaf.grad is not None, f"no gradient of input {number}"
        assert leaf.grad.dtype == leaf.dtype
        assert_close(leaf.grad, exact.grad, f"gradient of input {number}", scale)


def identity(x: Tensor) -> Tensor:
    """`x` as a non-leaf tensor of its own memory, in the same layout."""
    return x.clone()


def random(shape: Sequence[int], dtype: torch.dtype, seed: int = 0, spread: float = 1.5) -> Tensor:
    """Normally distributed values, the same for every dtype up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(tuple(shape), generator=generator)).to(dtype)
