"""SwiGLU's Triton kernels under the interpreter, against the reference in float64."""

import pytest
import torch
from support.kernels import assert_close, check_against_reference, identity, random

from tunemill.kernels.functions import gating
from tunemill.kernels.functions.swiglu import backward_kernel, reference, swiglu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (3, 5), (2, 3, 37), (7, 129), (2, 1030)]


def gated(shape, dtype):
    return [random(shape, dtype, seed=0), random(shape, dtype, seed=1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_match(shape, dtype):
    check_against_reference(swiglu, reference, gated(shape, dtype))


def test_gradcheck():
    gate, up = (x.requires_grad_() for x in gated((3, 5), torch.float64))
    assert torch.autograd.gradcheck(swiglu, (gate, up))


def test_gate_and_up_of_two_types():
    gate, up = random((3, 37), torch.float32), random((3, 37), torch.bfloat16)
    assert swiglu(gate, up).dtype == reference(gate, up).dtype == torch.float32
    check_against_reference(swiglu, reference, [gate, up.float()])
    leaf_gate, leaf_up = gate.requires_grad_(), up.requires_grad_()
    swiglu(leaf_gate, leaf_up).sum().backward()
    assert leaf_gate.grad.dtype == torch.float32
    assert leaf_up.grad.dtype == torch.bfloat16


def test_large_values_stay_finite():
    gate = torch.tensor([[-3e4, -90.0, -20.0, -0.0, 20.0, 90.0, 3e4]])
    check_against_reference(swiglu, reference, [gate, torch.ones_like(gate)])


def test_halves_of_one_tensor_are_overwritten():
    both = random((3, 4, 74), torch.float32).requires_grad_()
    made = identity(both)
    gate, up = made.chunk(2, dim=-1)
    swiglu(gate, up).sum().backward()
    exact = both.detach().double().requires_grad_()
    reference(*exact.chunk(2, dim=-1)).sum().backward()
    assert_close(both.grad, exact.grad)
    assert_close(made.detach(), exact.grad)


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1),
    "strided": lambda x: x[:, ::2],
    "columns repeated": lambda x: x[:, :1].expand(-1, 7),
    "rows repeated": lambda x: x[:1].expand(5, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts(layout):
    arrange = LAYOUTS[layout]
    leaves = [x.requires_grad_() for x in gated((5, 6), torch.float32)]
    exact_leaves = [x.detach().double().requires_grad_() for x in leaves]
    swiglu(*[arrange(identity(x)) for x in leaves]).square().sum().backward()
    reference(*[arrange(x) for x in exact_leaves]).square().sum().backward()
    for leaf, exact in zip(leaves, exact_leaves, strict=True):
        assert_close(leaf.grad, exact.grad, layout, scale=10)


def test_leaves_and_views_of_leaves_are_kept():
    gate, up = (x.requires_grad_() for x in gated((3, 37), torch.float32))
    before = gate.detach().clone(), up.detach().clone()
    swiglu(gate, up).sum().backward()
    swiglu(gate.view(1, 3, 37), up.view(1, 3, 37)).sum().backward()
    made = [x.tanh().chunk(1)[0].detach().requires_grad_() for x in (gate, up)]  # as checkpointing does
    kept = [x.detach().clone() for x in made]
    swiglu(*made).sum().backward()
    assert all(torch.equal(x, y) for x, y in zip(made, kept, strict=True))
    assert torch.equal(gate, before[0])
    assert torch.equal(up, before[1])


def test_gradients_take_the_place_of_gate_and_up():
    leaves = [x.requires_grad_() for x in gated((3, 37), torch.float32)]
    gate, up = (identity(x) for x in leaves)
    swiglu(gate, up).sum().backward()
    assert torch.equal(gate, leaves[0].grad)
    assert torch.equal(up, leaves[1].grad)


def test_a_kept_graph_is_not_overwritten():
    leaves = [x.requires_grad_() for x in gated((3, 37), torch.float32)]
    out = swiglu(*[identity(x) for x in leaves]).sum()
    first = torch.autograd.grad(out, leaves, retain_graph=True)
    second = torch.autograd.grad(out, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_tensor_as_gate_and_up():
    leaf = random((3, 37), torch.float32).requires_grad_()
    exact = leaf.detach().double().requires_grad_()
    x = identity(leaf)
    swiglu(x, x).sum().backward()
    reference(exact, exact).sum().backward()
    assert_close(leaf.grad, exact.grad)


def test_an_operation_that_saved_its_result_is_not_disturbed():
    leaf = random((3, 37), torch.float32).requires_grad_()
    exact = leaf.detach().double().requires_grad_()
    swiglu(leaf.sigmoid(), identity(leaf)).sum().backward()
    reference(exact.sigmoid(), exact).sum().backward()
    assert_close(leaf.grad, exact.grad)


@pytest.mark.parametrize("arguments", [lambda x: (x, x.exp()), lambda x: (x.exp(), x)], ids=["gate", "up"])
def test_a_stale_read_raises(arguments):
    x = identity(random((3, 37), torch.float32).requires_grad_())
    loss = swiglu(*arguments(x)).sum()
    other = (x * x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


def test_parts_of_something_larger_are_kept():
    leaf = random((3, 111), torch.float32).requires_grad_()
    gate, up, rest = identity(leaf).chunk(3, dim=-1)
    # Its gradient is computed after that of swiglu, and needs the rest.
    square = rest * rest
    (square.sum() + swiglu(gate, up).sum()).backward()
    assert torch.equal(leaf.grad[:, 74:], 2 * rest)


def test_hidden_is_written_over_the_gradient():
    gate, up = gated((3, 37), torch.float32)
    grad = random((3, 37), torch.float32, seed=2)
    exact = [x.double().requires_grad_() for x in (gate, up)]
    hidden = reference(*exact)
    hidden.backward(grad.double())
    grad_gate, grad_up = gating.backward(
        backward_kernel, grad, gate, up, overwrite_gate=True, overwrite_up=True, hidden=grad
    )
    assert_close(grad_gate, exact[0].grad)
    assert_close(grad_up, exact[1].grad)
    assert_close(grad, hidden.detach())


def test_no_rows():
    gate, up = (torch.empty(0, 5, requires_grad=True) for _ in range(2))
    swiglu(gate, up).sum().backward()
    assert gate.grad.shape == (0, 5)
