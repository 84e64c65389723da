"""What proofs of rounded models have in common: who asks, bounds, a reload by stock transformers, errors of chance."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunemill.stages.errors import UserError
from tunemill.stages.models.heads_body import auto_class, head_of_folder
from tunemill.stages.models.rounding_body import noise

# How far logits may be from those before saving, as a share of the largest.
SAME = 1e-4
# KL to the model before, in multiples of what chance does with rounding errors of the same size: twice such errors have
# about four times the KL. And below this nothing is a fault.
TIMES_CHANCE, LEAST_KL = 4.0, 1e-4
# Held-out tokens that are looked at: what is said of them is kept, all of the vocabulary.
PLACES = 1024
WORDS = {
    "max_abs_difference_reloaded": "what stock transformers loads has other logits than what was saved",
    "max_abs_difference_to_training": "the stored model has other logits than the training with qat had",
    "kl_to_unquantized": "KL from the unquantized model, in nats, is more than such rounding makes by chance",
    "median_kl_to_unquantized": "the median KL from the unquantized model, in nats, is more than such rounding makes",
    "top1_disagreement": "the share of tokens after which another one is likeliest is more than chance makes",
}


@dataclass(frozen=True)
class Asked:
    """For the messages: the key that asks for the model, and what to do where it is not what was asked for."""

    key: str
    again: str
    remedy: str

    def bounded(self, name: str, found: float, bound: float) -> dict[str, float]:
        """The figure and its bound. Raises UserError where it is beyond, or no number."""
        if not found <= bound:
            raise UserError(
                f"{self.key}: {WORDS[name]}: {found:g}, and at most {bound:g} is rounding. {self.remedy}"
            )
        return {name: found, f"{name}_bound": bound}

    def reload(self, result: Path) -> Any:
        """The model, as anybody would load it. Raises UserError where weights are not in the files."""
        model, told = auto_class(head_of_folder(result)).from_pretrained(result, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(map(str, told[what])):
                raise UserError(
                    f"{self.key}: stock transformers loads the result with {what.replace('_', ' ')}: {names[0]}. "
                    f"{self.again}"
                )
        return model.eval()


@dataclass(frozen=True)
class Grid:
    """A type that numbers are rounded to, and how many of them share a scale; None: all of a row."""

    dtype: str
    group: int | None


def disturb(model: Any, weights: Iterable[str], of_weights: Grid, of_inputs: Grid | None) -> None:
    """Give each number of these weights, and of what their linear modules get, an error of chance of up to half a step.

    The model has them from then on.
    """
    random = torch.Generator().manual_seed(0)

    def disturb_inputs(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert of_inputs is not None
        return (inputs[0] + noise(inputs[0], of_inputs.dtype, of_inputs.group, random), *inputs[1:])

    with torch.no_grad():
        for name in weights:
            weight, module = model.get_parameter(name), model.get_submodule(name.rpartition(".")[0])
            weight += noise(weight, of_weights.dtype, of_weights.group, random)
            if of_inputs is not None and isinstance(module, nn.Linear):
                module.register_forward_pre_hook(disturb_inputs)
