"""Proof, on the model itself, that a module computes what the module it replaces computes.

A few random tokens go through the model, and what each module is called with is kept. Then both modules get just
that, with their real weights, on their real device and in their real dtype; results and gradients have to agree.
The adapters' second factors, which are zero at the start and would hide a wrong first factor, are random meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BATCH, TOKENS = 2, 16

# Largest relative error in the Euclidean norm. Rounding alone gives a tenth to a third of it; another formula (a
# weight without its offset, the other rotation) gives tens of per cent.
TOLERANCES = {torch.float64: 1e-8, torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# bitsandbytes' 8-bit layers round their inputs to 8 bits too, which the kernels do not.
TOLERANCE_OF_INT8 = 1e-1
# Attention whose softmax is nearly all at one place makes far more of a rounding. What one rounding of its input
# changes, this many times (behind the input stand q, k, v and their products), is rounding too, if an input so much
# smaller, at which softmax is nearly linear, shows no such difference.
ROUNDINGS, SMALLER = 4.0, 1 / 16
UNIT_OF_INT8 = 1 / 127
# Gradients of larger parameters are matrix products like those of smaller ones, and cost memory to look at.
LARGEST_PARAMETER = 1 << 22


class UnfitError(ValueError):
    """Why a module stays as it is."""


@dataclass(frozen=True)
class Call:
    """What a module was called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def with_input(self, hidden_states: Tensor) -> Call:
        """The same call with another first tensor."""
        if self.args:
            return Call((hidden_states, *self.args[1:]), self.kwargs)
        return Call((), self.kwargs | {"hidden_states": hidden_states})

    @property
    def hidden_states(self) -> Tensor:
        """The first tensor; raises UnfitError where there is none."""
        given = self.args[0] if self.args else self.kwargs.get("hidden_states")
        if not isinstance(given, Tensor):
            raise UnfitError("it is called without hidden states")
        return given


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode (no dropout), and afterwards in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def random_adapters(model: nn.Module) -> Iterator[None]:
    """The second factors of adapters random, and afterwards bit for bit what they were."""
    factors = [p for name, p in model.named_parameters() if ".lora_B." in name]
    kept = [factor.detach().clone() for factor in factors]
    generator = torch.Generator().manual_seed(0)
    try:
        for factor in factors:
            noise = torch.randn(factor.shape, generator=generator) * 0.02
            factor.data.copy_(noise)
        yield
    finally:
        for factor, values in zip(factors, kept, strict=True):
            factor.data.copy_(values)


def probe_batch(vocabulary: int, positions: int, device: torch.device) -> dict[str, Tensor]:
    """Random input_ids and labels (b, s), some labels ignored, and position_ids.

    The first row stands at the first of the model's `positions`, the second at the last: some models scale what
    stands far back.
    """
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(vocabulary, (BATCH, TOKENS), generator=generator)
    labels = input_ids.masked_fill(torch.rand(input_ids.shape, generator=generator) < 0.3, -100)
    first = torch.tensor([[0], [max(positions - TOKENS, 0)]])
    position_ids = first + torch.arange(TOKENS)
    batch = {"input_ids": input_ids, "labels": labels, "position_ids": position_ids}
    return {name: values.to(device) for name, values in batch.items()}


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """The autocast that training runs under; None is none."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def recorded_calls(modules: Sequence[nn.Module], run: Callable[[], Any]) -> dict[nn.Module, Call]:
    """The last call of each module while `run` runs; modules that were not called are missing."""
    calls: dict[nn.Module, Call] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[module] = Call(_detached(args), _detached(kwargs))

    handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in modules]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple):
        return tuple(_detached(part) for part in value)
    if isinstance(value, dict):
        return {name: _detached(part) for name, part in value.items()}
    return value


def check_same(original: nn.Module, replacement: nn.Module, call: Call) -> None:
    """Raise UnfitError where results or gradients of the two disagree."""
    expected = _result_and_gradients(original, original, call)
    actual = _result_and_gradients(replacement, original, call)
    tolerance = tolerance_of(original, expected[0][1].dtype)
    left, right = (_result_in_training(module, call) for module in (replacement, original))
    check_close("result in training", left, right, tolerance)
    if [name for name, _ in actual] != [name for name, _ in expected]:
        raise UnfitError("it returns something else beside the result")
    try:
        _check_each(actual, expected, [tolerance] * len(expected))
    except UnfitError:
        rounded = _result_and_gradients(original, original, _rounded_once(original, call))
        changes = [
            relative_error(left, right) for (_, left), (_, right) in zip(rounded, expected, strict=True)
        ]
        _check_each(actual, expected, [max(tolerance, ROUNDINGS * change) for change in changes])
        small = call.with_input(call.hidden_states * SMALLER)
        actual, expected = (
            _result_and_gradients(module, original, small) for module in (replacement, original)
        )
        _check_each(actual, expected, [tolerance] * len(expected))


def _check_each(
    actual: list[tuple[str, Tensor]], expected: list[tuple[str, Tensor]], tolerances: Sequence[float]
) -> None:
    for (name, left), (_, right), tolerance in zip(actual, expected, tolerances, strict=True):
        check_close(name, left, right, tolerance)


def _rounded_once(module: nn.Module, call: Call) -> Call:
    """The call with every value of its input a unit in the last place larger or smaller, at random."""
    given = call.hidden_states
    unit = torch.finfo(_rounded_to(given.device.type, given.dtype)).eps
    unit = UNIT_OF_INT8 if _has_int8(module) else unit
    signs = torch.randint(2, given.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return call.with_input((given.double() * (1 + unit * signs.to(given.device))).to(given.dtype))


def _has_int8(module: nn.Module) -> bool:
    return any(parameter.dtype == torch.int8 for parameter in module.parameters())


def tolerance_of(module: nn.Module, dtype: torch.dtype) -> float:
    """The relative error that rounding may cause."""
    if _has_int8(module):
        return TOLERANCE_OF_INT8
    device = next(module.parameters()).device
    return max(TOLERANCES[dtype], TOLERANCES[_rounded_to(device.type, dtype)])


def _rounded_to(kind: str, dtype: torch.dtype) -> torch.dtype:
    """The type that products are rounded to: the autocast's, where there is one."""
    within: torch.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype
    return within


def check_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raise UnfitError unless two tensors have one shape, one dtype and nearly one value."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        given = f"{actual.dtype} {tuple(actual.shape)}"
        raise UnfitError(f"{name} is {given}, not {expected.dtype} {tuple(expected.shape)}")
    error = relative_error(actual, expected)
    if not error <= tolerance:
        raise UnfitError(f"{name} differs: relative error {error:.2g}, at most {tolerance:g} is rounding")


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of `expected`."""
    size = expected.double().norm()
    return float((actual.double() - expected.double()).norm() / size.clamp_min(1e-30))


def _result_and_gradients(module: nn.Module, owner: nn.Module, call: Call) -> list[tuple[str, Tensor]]:
    hidden_states = call.hidden_states.clone().requires_grad_()
    # A model's own tensor is never a leaf, and kernels may write over what is not.
    given = call.with_input(hidden_states * 1.0)
    parameters = [
        (name, parameter)
        for name, parameter in owner.named_parameters()
        if parameter.requires_grad and parameter.numel() <= LARGEST_PARAMETER
    ]
    with torch.enable_grad():
        output = module(*given.args, **given.kwargs)
        results = output if isinstance(output, tuple) else (output,)
        result: Tensor = results[0]
        direction = torch.linspace(-1.0, 1.0, result.numel(), device=result.device).view_as(result)
        gradients = torch.autograd.grad(
            result,
            [hidden_states, *(p for _, p in parameters)],
            direction.to(result.dtype),
            allow_unused=True,
        )
    names = ["gradient of the input", *(f"gradient of {name}" for name, _ in parameters)]
    found = [("result", result.detach())]
    found += [
        (f"result {place} of {len(results)}", part.detach())
        for place, part in enumerate(results)
        if place and isinstance(part, Tensor)
    ]
    if isinstance(output, tuple):
        found.append((f"a tuple of {len(results)}", torch.zeros(())))
    found += [(name, _or_zero(gradient)) for name, gradient in zip(names, gradients, strict=True)]
    return found


def _result_in_training(module: nn.Module, call: Call) -> Tensor:
    """The result with the module, not its children, in training mode: it may call dropout as a function."""
    device = call.hidden_states.device
    mode = module.training
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        module.training = True
        try:
            output = module(*call.args, **call.kwargs)
        finally:
            module.training = mode
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


def _or_zero(gradient: Tensor | None) -> Tensor:
    return torch.zeros(()) if gradient is None else gradient
