"""Grokfast: gradients plus a multiple of their running mean, which is kept in checkpoints."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tunemill.stages.training import ranks_body as ranks

FILE = "grokfast.pt"


class Grokfast(TrainerCallback):  # type: ignore[misc]
    """Has to hear of a checkpoint before it is sealed."""

    def __init__(self, root: Path, alpha: float, lamb: float) -> None:
        self._root = root
        self._alpha, self._lamb = alpha, lamb
        self._means: dict[str, Any] = {}

    def resume(self, checkpoint: Path | None) -> None:
        """Go on from the means of a checkpoint; one of another run may have none."""
        if checkpoint is not None and (checkpoint / FILE).is_file():
            self._means = torch.load(checkpoint / FILE, weights_only=True)

    def on_pre_optimizer_step(
        self, _args: Any, _state: Any, _control: Any, model: Any, **_kwargs: Any
    ) -> None:
        """The first gradient is the first mean."""
        for name, parameter in model.named_parameters():
            gradient = parameter.grad
            if gradient is None:
                continue
            mean = self._means.get(name, gradient).to(gradient.device)
            self._means[name] = mean = mean * self._alpha + gradient * (1 - self._alpha)
            parameter.grad = gradient + mean * self._lamb

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Beside what the Trainer writes; among several processes all have the same means."""
        if ranks.is_first():
            torch.save(self._means, self._root / f"checkpoint-{state.global_step}" / FILE)
