"""Spectrum: which linear modules hold most signal (Hartford et al. 2024, arXiv 2406.06623)."""

import math
import re
from typing import Any

import torch

from tunemill.stages.models.heads_body import output_modules

# Of a normal distribution: the interquartile range in standard deviations.
QUARTILES = 1.349


def signal_to_noise(weight: Any) -> float:
    """Singular values above the Marchenko-Pastur edge over those below it, over the largest. weight: [out, in]."""
    values = torch.linalg.svdvals(weight.detach().float())
    quarter = torch.quantile(values, torch.tensor([0.25, 0.75], device=values.device))
    deviation = float(quarter[1] - quarter[0]) / QUARTILES
    ratio = min(weight.shape) / max(weight.shape)
    edge = deviation * (1 + math.sqrt(ratio))
    signal, noise = float(values[values > edge].sum()), float(values[values <= edge].sum())
    return signal / max(noise, 1e-6) / max(float(values[0]), 1e-12)


def most_telling(model: Any, share: float) -> list[str]:
    """Names of the linear modules to train: of each kind the share with most signal, and at least one.

    Kinds are names without the number of the layer; the output head is of none.
    """
    heads = output_modules(model)
    kinds: dict[str, list[tuple[float, str]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not any(module is head for head in heads):
            kind = re.sub(r"\.\d+\.", ".", name)
            kinds.setdefault(kind, []).append((signal_to_noise(module.weight), name))
    chosen = []
    for found in kinds.values():
        ordered = sorted(found, key=lambda item: (-item[0], item[1]))
        chosen += [name for _, name in ordered[: max(1, int(len(found) * share))]]
    return sorted(chosen)
