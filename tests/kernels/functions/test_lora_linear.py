"""`lora_linear`: the autograd function against plain autograd, PEFT and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import peft
import pytest
import torch
from bitsandbytes import functional as bnb
from support.lora import assert_close, clone, int8_projection, leaves, projection
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tunemill.kernels.functions import lora_linear as kernel
from tunemill.kernels.functions import nf4

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 5e-2, torch.float16: 6e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "no bias": {"bias": False},
    "dropout": {"dropout": 0.4},
    "dora": {"dora": True},
    "dora, dropout": {"dora": True, "dropout": 0.4},
    "dora, no bias": {"dora": True, "bias": False},
    "no adapter": {"adapter": False},
    "frozen base": {"trained_base": False},
    "frozen base, dora, dropout": {"trained_base": False, "dora": True, "dropout": 0.4},
}


def run(
    function: Callable[..., Tensor], x: Tensor, *projections: kernel.Projection
) -> list[tuple[str, Tensor]]:
    """Output and every gradient under a fixed generator state and a fixed upstream gradient."""
    x = x.detach().requires_grad_()
    torch.manual_seed(7)
    y = function(x, *projections)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    named = [("x", x), *leaves(*projections)]
    grads = torch.autograd.grad(y, [t for _, t in named], upstream.to(y.dtype))
    return [("y", y.detach()), *((name, grad) for (name, _), grad in zip(named, grads, strict=True))]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7, 3), (17, 33, 9)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_plain_autograd(variant: str, shape: tuple[int, ...]) -> None:
    *lead, inputs, outputs = shape
    one = projection(inputs, outputs, **VARIANTS[variant])
    x = torch.randn(*lead, inputs, dtype=torch.float64)
    assert_close(run(kernel.fused, x, one), run(kernel.plain, x, one), 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("variant", ["lora", "dora", "frozen base"])
def test_each_dtype_against_float64(variant: str, dtype: torch.dtype) -> None:
    exact = projection(65, 33, dtype=dtype, **VARIANTS[variant])
    x = torch.randn(19, 65).to(dtype)
    wide = run(kernel.plain, x.double(), clone(exact, torch.float64))
    assert_close(run(kernel.fused, x, exact), wide, TOLERANCE[dtype])


@pytest.mark.parametrize("variant", ["lora", "no bias", "dropout", "no adapter"])
def test_gradcheck(variant: str) -> None:
    one = projection(5, 4, **VARIANTS[variant])
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    names = [name.split(".")[1] for name, _ in leaves(one)]

    def function(x: Tensor, *tensors: Tensor) -> Tensor:
        torch.manual_seed(3)
        return kernel.fused(x, replace(one, **dict(zip(names, tensors, strict=True))))

    assert torch.autograd.gradcheck(function, (x, *(t for _, t in leaves(one))))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradcheck_of_dora_where_the_norm_is_constant(dropout: float) -> None:
    one = projection(5, 4, dora=True, dropout=dropout)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, bias: Tensor, magnitude: Tensor) -> Tensor:
        torch.manual_seed(3)
        return kernel.fused(x, replace(one, bias=bias, magnitude=magnitude))

    assert torch.autograd.gradcheck(function, (x, one.bias, one.magnitude))


def test_hand_derived_values() -> None:
    # x = (1, 2), W = (3, 4), b = 5, A = (1, 1), B = (2), s = 10: 3 + 8 + 5 + 10 * 2 * 3 = 76.
    # dA = s B G x = 20 x = (20, 40); dB = s G (A x) = 30; dx = W + s B A = (23, 24).
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    one = kernel.Projection(
        weight=torch.tensor([[3.0, 4.0]]),
        bias=torch.tensor([5.0]),
        lora_a=torch.tensor([[1.0, 1.0]], requires_grad=True),
        lora_b=torch.tensor([[2.0]], requires_grad=True),
        scaling=10.0,
    )
    y = kernel.fused(x, one)
    y.sum().backward()
    assert y.item() == 76.0
    assert one.lora_a is not None
    assert one.lora_b is not None
    assert x.grad.tolist() == [[23.0, 24.0]]
    assert one.lora_a.grad.tolist() == [[20.0, 40.0]]
    assert one.lora_b.grad.tolist() == [[30.0]]


def test_strided_input_and_expanded_gradient() -> None:
    one = projection(6, 4)
    x = torch.randn(6, 5, dtype=torch.float64).t().requires_grad_()
    fused = torch.autograd.grad(kernel.fused(x, one).sum(), x)[0]
    assert torch.allclose(fused, torch.autograd.grad(kernel.plain(x, one).sum(), x)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_int8_base(dtype: torch.dtype) -> None:
    one = int8_projection(48, 20, dtype=dtype)
    x = torch.randn(9, 48).to(dtype)
    assert one.dequantize is not None
    dense = replace(clone(one, torch.float64), weight=one.dequantize(one.weight).double(), dequantize=None)
    assert_close(run(kernel.fused, x, one), run(kernel.plain, x.double(), dense), TOLERANCE[dtype])


@pytest.mark.parametrize("dora", [False, True])
def test_nf4_base(dora: bool) -> None:
    dense = projection(128, 24, dtype=torch.float32, dora=dora, dropout=0.3, trained_base=False)
    packed, state = bnb.quantize_4bit(dense.weight.detach(), quant_type="nf4", compress_statistics=True)
    quantized = replace(dense, weight=packed, dequantize=partial(nf4.dequantize_nf4, state=state))
    rounded = replace(dense, weight=bnb.dequantize_4bit(packed, state))
    x = torch.randn(9, 128)
    assert_close(run(kernel.fused, x, quantized), run(kernel.plain, x, rounded), 2e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_equals_peft(dora: bool) -> None:
    base = torch.nn.Sequential(torch.nn.Linear(12, 8))
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"], use_dora=dora, init_lora_weights=False)
    layer = peft.get_peft_model(base, config).base_model.model[0]
    one = kernel.Projection(
        weight=layer.base_layer.weight,
        bias=layer.base_layer.bias,
        lora_a=layer.lora_A["default"].weight,
        lora_b=layer.lora_B["default"].weight,
        scaling=layer.scaling["default"],
        magnitude=layer.lora_magnitude_vector["default"].weight if dora else None,
    )
    x = torch.randn(3, 5, 12)
    assert_close(run(kernel.fused, x, one), run(lambda x, _: layer(x), x, one), 1e-5)


class Shapes(TorchDispatchMode):  # type: ignore[misc]
    """Records the shape of every tensor that an operation computes, views of `known` aside."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = known.untyped_storage().data_ptr()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() != self.known:
            self.seen.add(tuple(result.shape))
        return result


@pytest.mark.parametrize("variant", ["frozen base", "frozen base, dora, dropout"])
def test_the_product_of_the_adapter_is_never_built(variant: str) -> None:
    one = projection(31, 23, **VARIANTS[variant])
    x = torch.randn(7, 31, dtype=torch.float64, requires_grad=True)
    with Shapes(one.weight) as shapes:
        kernel.fused(x, one).sum().backward()
    assert (7, 23) in shapes.seen
    assert not {(23, 31), (31, 23)} & shapes.seen


def test_saves_the_input_and_a_thin_product_only() -> None:
    one = projection(31, 23, trained_base=False)
    x = torch.randn(7, 31, dtype=torch.float64, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        kernel.fused(x, one)
    owned = {t.data_ptr() for t in (x, one.weight, one.bias, one.lora_a, one.lora_b) if t is not None}
    assert {tuple(t.shape) for t in saved if t.data_ptr() not in owned} == {(7, 3)}


def test_checkpointing_changes_nothing() -> None:
    one = projection(9, 4, dropout=0.3)
    x = torch.randn(5, 9, dtype=torch.float64)
    again = run(lambda x, p: checkpoint(kernel.fused, x, p, use_reentrant=False), x, one)
    assert_close(again, run(kernel.fused, x, one), 0.0)


def test_compiling_changes_nothing() -> None:
    one = projection(9, 4, dora=True)
    x = torch.randn(5, 9, dtype=torch.float64)
    compiled = torch.compile(kernel.fused, backend="aot_eager", fullgraph=True)
    assert_close(run(compiled, x, one), run(kernel.fused, x, one), 1e-12)


def test_autocast_runs_narrow_and_returns_gradients_in_the_parameters_dtype() -> None:
    one = projection(16, 8, dtype=torch.float32)
    x = torch.randn(5, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = kernel.fused(x, one)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad.dtype == torch.float32
    assert all(tensor.grad.dtype == torch.float32 for _, tensor in leaves(one))


def test_float64_stays_under_autocast() -> None:
    one = projection(6, 4)
    x = torch.randn(5, 6, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kernel.fused(x, one), kernel.plain(x, one))
        assert kernel.fused(x, one).dtype == torch.float64


def test_public_function_takes_its_arguments_in_order() -> None:
    one = projection(6, 4, dora=True)
    x = torch.randn(5, 6, dtype=torch.float64)
    arguments = (x, one.weight, one.bias, one.lora_a, one.lora_b, one.scaling)
    expected = kernel.plain(x, one)
    assert torch.equal(kernel.lora_linear(*arguments, magnitude=one.magnitude), expected)
    assert torch.equal(kernel.reference(*arguments, magnitude=one.magnitude), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"lora_b": None}, "give both matrices, or none"),
        ({"lora_a": torch.zeros(3, 5)}, r"must be \[r, k\] and \[n, r\] for inputs of width k = 6"),
        ({"weight": torch.zeros(4, 6, dtype=torch.int8)}, "needs `dequantize`, got None"),
        ({"weight": torch.zeros(4, 5)}, "does not take inputs of width 6"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel.fused(torch.randn(2, 6, dtype=torch.float64), replace(projection(6, 4), **change))


def test_the_norm_is_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 5), (3, 5), (7, 3))
    weight, lora_a, lora_b = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    expected = kernel.adapted_norm(weight, lora_a, lora_b, 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(kernel.adapted_norm(weight, lora_a, lora_b, 2.0), expected)
