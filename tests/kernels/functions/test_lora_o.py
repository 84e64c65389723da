"""`lora_o`: heads joined as the reference joins them; the projection itself is tested with `lora_linear`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.lora import leaves, projection

from tunemill.kernels.functions import lora_linear, lora_o


@pytest.mark.parametrize("dora", [False, True])
def test_heads_and_joined_inputs_agree(dora: bool) -> None:
    one = projection(12, 7, dora=dora, dropout=0.3)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    results = []
    for function, value in (
        (lora_o.lora_o, x),
        (lora_o.reference, x),
        (lora_linear.fused, x.flatten(-2)),
        (lora_o.lora_o, x.flatten(-2)),
    ):
        torch.manual_seed(5)
        y = function(value, one)
        assert y.shape == (2, 5, 7)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *(t for _, t in leaves(one))])])
    for other in results[1:]:
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(results[0], other, strict=True))


def test_heads_written_apart_are_copied_once() -> None:
    one = projection(12, 7)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    assert torch.equal(
        lora_o.lora_o(x.transpose(1, 2), one), lora_o.lora_o(x.transpose(1, 2).contiguous(), one)
    )


def test_without_an_adapter() -> None:
    one = projection(12, 7, adapter=False)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    expected = torch.nn.functional.linear(x.flatten(-2), one.weight, one.bias)
    assert torch.allclose(lora_o.lora_o(x, one), expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"neither \[..., 12\] nor"):
        lora_o.lora_o(torch.randn(5, 3, 5, dtype=torch.float64), projection(12, 7))
    stored = replace(projection(12, 7, adapter=False), dequantize=lambda w: w)
    with pytest.raises(ValueError, match="join the heads"):
        lora_o.lora_o(torch.randn(2, 5, 3, 4, dtype=torch.float64), stored)
