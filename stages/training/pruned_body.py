"""Weights that were pruned before the training stay zero: after each step they are set back, as llm-compressor does."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report
from tunemill.stages.training.keys.pruned import PATTERN, PRUNABLE, SparsitySettings

# What is no further from zero than this counts as zero, as it does for llm-compressor.
NEARLY = 1e-8
CLASSES = {PRUNABLE: ("Linear", "Conv1d", "Conv2d", "Conv3d")}


@dataclass(frozen=True)
class Zeros:
    """A weight, and where it is zero. zero: bool, of the weight's shape."""

    name: str
    weight: Any
    zero: Any


class KeepZeros(TrainerCallback):  # type: ignore[misc]
    """Sets weights back to zero after each step. Gradients stay as they are, so that clipping sees all of them.

    `share`: which share of the numbers of all weights that are named is zero.
    """

    def __init__(self, zeros: Sequence[Zeros], share: float) -> None:
        self._zeros, self.share = zeros, share
        self.weights = [one.name for one in zeros]

    def on_optimizer_step(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """The optimizer has moved all weights."""
        self.settle()

    def settle(self) -> None:
        """Set them back."""
        with torch.no_grad():
            for one in self._zeros:
                one.weight.masked_fill_(one.zero.to(one.weight.device), 0)


def keep_zeros(settings: SparsitySettings | None, model: Any, report: Report) -> list[KeepZeros]:
    """What keeps the zeros of the model's weights that the settings name; nothing without settings.

    Raises SettingError for a target that names nothing, and where no weight of all of them is zero.
    """
    if settings is None:
        return []
    found = [
        Zeros(name, weight, weight.detach().abs() <= NEARLY)
        for name, weight in named_weights(model, settings.targets)
    ]
    kept = [one for one in found if bool(one.zero.any())]
    if not kept:
        raise SettingError(
            f"llmcompressor: none of the {len(found)} weights of its targets has a zero: base_model is not pruned, and "
            f"nothing is pruned here. Name a pruned model in base_model, or take llmcompressor out."
        )
    share = sum(int(one.zero.sum()) for one in kept) / sum(one.zero.numel() for one in found)
    without = f"; {len(found) - len(kept)} of them have none" if len(kept) < len(found) else ""
    report.log(
        f"llmcompressor: {share:.1%} of the numbers in {len(found)} weights are zero and stay zero{without}"
    )
    return [KeepZeros(kept, share)]


def settle(zeros: Sequence[KeepZeros], report: Report) -> None:
    """Set the weights back that are saved, whatever has made them, and tell the share of zeros."""
    for one in zeros:
        one.settle()
        report.summary(zero_share=one.share)


def named_weights(model: Any, targets: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Each weight that a target names, once. A target is a name of a module or of its weight, or a class.

    Raises SettingError for one that names nothing.
    """
    unused, seen = dict.fromkeys(targets), set()
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter):
            continue
        matching = [target for target in targets if _names(target, name, module)]
        for target in matching:
            unused.pop(target, None)
        if matching and id(weight) not in seen:
            seen.add(id(weight))
            yield f"{name}.weight", weight
    if unused:
        known = ", ".join(name for name, _ in list(model.named_parameters())[1:4])
        raise SettingError(
            f"llmcompressor: targets: {next(iter(unused))}: names no weight of this model. Its names are such "
            f"as {known}."
        )


def _names(target: str, name: str, module: Any) -> bool:
    if target.startswith(PATTERN):
        pattern = target.removeprefix(PATTERN)
        return any(re.match(pattern, one) for one in (name, f"{name}.weight"))
    classes = CLASSES.get(target, (target,))
    named = {base.__name__ for base in type(module).__mro__}
    return target in (name, f"{name}.weight") or bool(named.intersection(classes))
