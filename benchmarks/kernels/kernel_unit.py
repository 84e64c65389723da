"""Measures one way of computing one case: is it right, how long does it take, how much memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kernels.case import DTYPE_NAMES, Case, Function, Inputs
from benchmarks.kernels.row import FAILED, Row
from benchmarks.kernels.timing import free_memory, milliseconds, peak_mib
from benchmarks.kernels.ways import EAGER, OURS

BUDGET_MS = 60.0
SEED = 0
LONGEST_NOTE = 200
# What our own rows may lack without having failed.
OPTIONAL = ("transformers", "peft", "accelerate")


def empty_row(case: Case, way: str) -> Row:
    """What is to be measured."""
    return Row(
        kernel=case.kernel,
        shape=case.shape,
        dtype=DTYPE_NAMES[case.dtype],
        way=way,
        forward_bytes=case.work.forward_bytes,
        both_bytes=case.work.both_bytes,
        forward_flops=case.work.forward_flops,
        both_flops=case.work.both_flops,
    )


def measure(case: Case, way: str) -> Row:
    """The row of `way`. Nothing is raised: what fails is in its note, as FAILED if it is ours."""
    row = empty_row(case, way)
    try:
        row = measured(case, way, row)
    except Exception as error:  # noqa: BLE001 - another library's call may fail in any way; ours must not end the run
        row = replace(row, note=reason(error, ours=way == OURS))
    # Behind the handler: an error holds the tensors of the functions that it came through.
    free_memory(thoroughly=bool(row.note))
    return row


def reason(error: Exception, *, ours: bool) -> str:
    """Why there are no numbers, in one line."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        text = "out of memory"
    elif isinstance(error, ModuleNotFoundError) and error.name and (not ours or error.name in OPTIONAL):
        return f"{error.name} not installed"
    else:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_NOTE]
    return f"{FAILED}: {text}" if ours else text


def measured(case: Case, way: str, row: Row) -> Row:
    """`row` with its numbers."""
    load = case.ways[way]
    if way == OURS:
        difference = largest_difference(case)
        free_memory()
        if not difference <= case.tolerance:
            text = f"differs from the reference by {difference:.2g}, more than {case.tolerance:g}"
            row = replace(row, note=f"{FAILED}: {text}")
        row = replace(row, difference=difference)
    inputs = made(case, gradients=False)
    function = load(inputs)
    with torch.no_grad():
        forward = forward_call(function, inputs)
        row = replace(row, forward_ms=milliseconds(forward, budget_ms=BUDGET_MS))
        if case.work.both_bytes is None:
            return replace(row, peak_mib=peak_mib(forward))
    del function, forward, inputs
    free_memory()
    inputs = made(case, gradients=True)
    both = both_call(load(inputs), inputs)
    row = replace(row, both_ms=milliseconds(both, budget_ms=BUDGET_MS))
    return replace(row, peak_mib=peak_mib(both))


def made(case: Case, *, gradients: bool) -> Inputs:
    """The inputs of a case, the same each time."""
    torch.manual_seed(SEED)
    return case.make(gradients)


class Produced(torch.autograd.Function):  # type: ignore[misc]
    """Makes a leaf look like the result of an operation, at no cost: inputs of a kernel in a model are such results,
    and some backwards write gradients over them."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return grad


def arguments_of(inputs: Inputs) -> list[Any]:
    """The arguments for a forward with gradients: parameters as they are, activations as results."""
    return [
        Produced.apply(argument)
        if isinstance(argument, Tensor) and argument.requires_grad and not isinstance(argument, nn.Parameter)
        else argument
        for argument in inputs.arguments
    ]


def as_tuple(result: Any) -> tuple[Tensor, ...]:
    """The tensors of a result."""
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def forward_call(function: Function, inputs: Inputs) -> Callable[[], object]:
    """Forward without gradients."""
    return lambda: function(*inputs.arguments)


def both_call(function: Function, inputs: Inputs) -> Callable[[], object]:
    """Forward and backward, with gradients of the result that were drawn beforehand."""
    gradients = drawn_gradients(as_tuple(function(*arguments_of(inputs))))

    def call() -> object:
        results = as_tuple(function(*arguments_of(inputs)))
        return torch.autograd.grad(results, inputs.wanted, gradients)

    return call


def drawn_gradients(results: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients that stand for those of the rest of a model; 1 for a loss. Their values do not depend on the memory
    order of the results, in which two ways may differ."""
    torch.manual_seed(SEED + 1)
    return [
        torch.ones_like(one)
        if one.dim() == 0
        else torch.empty_like(one).copy_(torch.randn(one.shape, dtype=one.dtype, device=one.device))
        for one in results
    ]


def results_and_gradients(case: Case, way: str) -> list[Tensor]:
    """Everything that a case computes."""
    inputs = made(case, gradients=True)
    results = as_tuple(case.ways[way](inputs)(*arguments_of(inputs)))
    if case.work.both_bytes is None:
        return list(results)
    gradients = torch.autograd.grad(results, inputs.wanted, drawn_gradients(results))
    return [*(one.detach() for one in results), *gradients]


def largest_difference(case: Case) -> float:
    """Norm of the difference of each result and gradient from the reference's, over the norm of the latter."""
    ours = results_and_gradients(case, OURS)
    free_memory()
    expected = results_and_gradients(case, EAGER)
    return max(relative_difference(one, other) for one, other in zip(ours, expected, strict=True))


def relative_difference(ours: Tensor, expected: Tensor) -> float:
    """0 where they are equal, NaN or inf where only one of them is finite."""
    if ours.shape != expected.shape:
        return float("inf")
    if not expected.is_floating_point():
        return float((ours != expected).float().mean())
    wide = torch.promote_types(expected.dtype, torch.float32)
    norm = torch.linalg.vector_norm(expected, dtype=wide)
    off = torch.linalg.vector_norm(ours - expected, dtype=wide)
    return float(off / norm) if norm else float(off)
