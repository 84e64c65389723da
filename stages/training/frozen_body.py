"""Which of a model's own weights are trained, and keeping the others exactly as they are."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from tunemill.stages.errors import SettingError
from tunemill.stages.models.heads_body import head_modules, output_modules
from tunemill.stages.models.module_names import names_of_tensors
from tunemill.stages.report import Report
from tunemill.stages.training.keys.frozen import FrozenKeys, Unfrozen
from tunemill.stages.training.spectrum_body import most_telling


def choose_trained(config: FrozenKeys, model: Any, seed: int, report: Report) -> list[TrainerCallback]:
    """Freeze what is not to be trained; what has to be done beside the steps for it comes back as callbacks.

    Raises SettingError for a pattern that matches no parameter, rows or layers that there are not.
    """
    if config.has_adapter:
        return []
    if config.lisa_n_layers is not None and config.lisa_step_interval is not None:
        layers = layers_of(model, config.lisa_layers_attribute)
        if config.lisa_n_layers > len(layers):
            raise SettingError(f"lisa_n_layers: {config.lisa_n_layers}: the model has {len(layers)} layers.")
        return [Lisa(layers, config.lisa_n_layers, config.lisa_step_interval, seed)]
    patterns = config.unfrozen
    if config.spectrum_top_fraction is not None:
        names = most_telling(model, config.spectrum_top_fraction)
        report.table("Trained modules (Spectrum)", ["module"], [(name,) for name in names])
        ends = [model.get_input_embeddings(), *output_modules(model)]
        names += [name for name, module in model.named_modules() if any(module is end for end in ends)]
        patterns = [Unfrozen(f"^{re.escape(name)}.weight$") for name in names]
    if not patterns:
        return []
    # A head that scores is what was asked for, and trained whatever else is.
    patterns = [*patterns, *(Unfrozen(f"^{re.escape(name)}\\.") for name in head_modules(model))]
    kept = freeze_all_but(model, patterns)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    report.log(
        f"trains {sum(p.numel() for p in trained)} of {sum(p.numel() for p in model.parameters())} weights, in "
        f"{len(trained)} tensors{f', of {len(kept)} of them some rows' if kept else ''}"
    )
    return [KeepRows(kept)] if kept else []


@dataclass(frozen=True)
class FrozenRows:
    """Rows of a parameter (True: frozen), and what they hold. frozen: [rows], values: [frozen rows, ...]."""

    parameter: Any
    frozen: Any
    values: Any


def freeze_all_but(model: Any, patterns: Sequence[Unfrozen]) -> list[FrozenRows]:
    """Let only parameters that match a pattern train. Returns those of which some rows are to stay.

    A tied tensor has several names. Raises SettingError for a pattern that matches none.
    """
    names = names_of_tensors(model)
    used: set[Unfrozen] = set()
    kept = []
    for parameter in model.parameters():
        matching = [one for one in patterns if any(one.matches(name) for name in names[id(parameter)])]
        used.update(matching)
        parameter.requires_grad_(bool(matching))
        if matching and all(one.rows is not None for one in matching):
            kept.append(_keep_rows(parameter, matching, names[id(parameter)][0]))
    unused = [one for one in patterns if one not in used]
    if unused:
        known = ", ".join(name for name, _ in list(model.named_parameters())[:3])
        raise SettingError(
            f"unfrozen_parameters: {unused[0].pattern}: matches no parameter of this model. Its names are such as "
            f"{known}."
        )
    return kept


def _keep_rows(parameter: Any, patterns: Iterable[Unfrozen], name: str) -> FrozenRows:
    count = parameter.shape[0]
    frozen = torch.ones(count, dtype=torch.bool, device=parameter.device)
    for one in patterns:
        assert one.rows is not None, "whole tensors keep no rows"
        start, end = one.rows[0], count if one.rows[1] is None else one.rows[1]
        if start >= count or end > count:
            raise SettingError(
                f"unfrozen_parameters: {one.pattern}[{start}:{end}]: {name} has {count} rows, from 0."
            )
        frozen[start:end] = False
    return FrozenRows(parameter, frozen, parameter.detach()[frozen].clone())


class KeepRows(TrainerCallback):  # type: ignore[misc]
    """Frozen rows add nothing to the gradient's length, and no optimizer moves them (weight decay would)."""

    def __init__(self, rows: Sequence[FrozenRows]) -> None:
        self._rows = rows
        for one in rows:
            one.parameter.register_post_accumulate_grad_hook(_without_rows(one.frozen))

    def on_optimizer_step(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """Put back what the optimizer has moved."""
        with torch.no_grad():
            for one in self._rows:
                mask = one.frozen.to(one.parameter.device)
                one.parameter[mask] = one.values.to(one.parameter.device)


def _without_rows(frozen: Any) -> Any:
    def clear(parameter: Any) -> None:
        parameter.grad[frozen.to(parameter.device)] = 0

    return clear


def layers_of(model: Any, attribute: str) -> Any:
    """The layers at a dotted name. Raises SettingError where there are none."""
    found: Any = model
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, torch.nn.ModuleList):
        lists = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
        raise SettingError(
            f"lisa_layers_attribute: {attribute}: no list of layers of this model. It has {', '.join(lists[:3])}."
        )
    return found


def drawn_layers(seed: int, period: int, count: int, layers: int) -> list[int]:
    """The layers that are trained in a period: the same whenever it is asked, also after an interruption."""
    generator = random.Random(f"{seed} {period}")  # noqa: S311
    return sorted(generator.sample(range(layers), count))


class Lisa(TrainerCallback):  # type: ignore[misc]
    """Layerwise importance sampled AdamW (Pan et al. 2024, arXiv 2403.17919): a few layers at a time are trained."""

    def __init__(self, layers: Any, count: int, interval: int, seed: int) -> None:
        self._layers, self._count, self._interval, self._seed = layers, count, interval, seed
        self._period: int | None = None

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Draw where a period begins, and where this process does."""
        period = state.global_step // self._interval
        if period == self._period:
            return
        self._period = period
        drawn = drawn_layers(self._seed, period, self._count, len(self._layers))
        for number, layer in enumerate(self._layers):
            layer.requires_grad_(number in drawn)
