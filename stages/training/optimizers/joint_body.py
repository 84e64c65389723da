"""Several optimizers that act as one: each has parameters of its own; and such as step while gradients are computed."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer


class JointOptimizer(Optimizer):  # type: ignore[misc]
    """The groups of all parts in one list, so that a schedule and a checkpoint see one optimizer."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        groups = [group for part in parts for group in part.param_groups]
        super().__init__(
            [{"params": group["params"], "lr": group["lr"]} for group in groups],
            {"lr": parts[0].defaults["lr"]},
        )
        self.parts = list(parts)
        # One and the same dictionaries: the learning rate that a schedule sets is that of the part.
        self.param_groups = groups

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Every part steps."""
        assert closure is None, "the loss is computed once in a step"
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The gradients of every part."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loading makes new groups in every part, which are shared again."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class BackwardOptimizer(JointOptimizer):
    """One part for each parameter, which steps as soon as its gradient is there, and frees it."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__(parts)
        for part in self.parts:
            (parameter,) = part.param_groups[0]["params"]
            parameter.register_post_accumulate_grad_hook(_stepping(part))

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Every part has stepped already."""


def _stepping(part: Optimizer) -> Callable[[Any], None]:
    def step(_parameter: Any) -> None:
        part.step()
        part.zero_grad()

    return step
