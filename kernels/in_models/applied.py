"""What `apply_kernels` did to a model, and how to undo it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tunemill.kernels.in_models.proof import UnfitError


@dataclass
class Applied:
    """What was put where."""

    places: dict[str, list[str]] = field(default_factory=dict)
    """Kernel to the names of the modules that call it."""
    refusals: dict[str, dict[str, str]] = field(default_factory=dict)
    """Kernel to the names of the modules that nearly fit but do not call it, and why."""
    undoing: list[Callable[[], None]] = field(default_factory=list)
    pairs: list[tuple[nn.Module, nn.Module]] = field(default_factory=list)
    """The model's own modules and those in their place."""

    def undo(self, *, down_to: int = 0) -> None:
        """Put the model's own modules back, the last first; its parameters keep their values."""
        while len(self.undoing) > down_to:
            self.undoing.pop()()

    def put_child(self, model: nn.Module, name: str, module: nn.Module, made: nn.Module) -> None:
        """Put `made` in the place of `module`, which is called `name` in `model`."""
        parent_name, _, child = name.rpartition(".")
        children = model.get_submodule(parent_name)._modules

        def put_back() -> None:
            module.training = made.training
            children[child] = module

        children[child] = made
        self.undoing.append(put_back)
        self.pairs.append((module, made))

    def note(self, kernels: tuple[str, ...], name: str) -> None:
        """Module `name` calls `kernels`."""
        for kernel in kernels:
            self.places.setdefault(kernel, []).append(name)
            refused = self.refusals.get(kernel, {})
            refused.pop(name, None)
            if not refused:
                self.refusals.pop(kernel, None)

    def refuse(self, kernels: tuple[str, ...], name: str, reason: str) -> None:
        """Module `name` does not call `kernels`, and why."""
        for kernel in kernels:
            self.refusals.setdefault(kernel, {})[name] = reason


class told:  # noqa: N801 - reads as a word of the sentence that it makes
    """Names the kernel in an error that is raised inside; a ValueError of the kernel's checks means: does not fit."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UnfitError) or error is None:
            return
        if isinstance(error, ValueError):
            raise UnfitError(str(error)) from error
        error.add_note(f"While proving {self.what} on the model. `kernels: off` trains without kernels.")
