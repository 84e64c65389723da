"""Rewards by features: what the frozen model makes of each completion, beside what it makes of the answer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.artifacts import Model
from tunemill.stages.data.rows.answers import GROUND_TRUTH
from tunemill.stages.errors import UserError
from tunemill.stages.models.answers_body import takes_logits_to_keep
from tunemill.stages.training.ebft.answers_body import ids_of, told
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.ebft.features_body import (
    distance_to_answer,
    feature_rewards,
    features_of,
    layers_of,
    pooled,
    whitened,
)
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.online.batches_body import sequences
from tunemill.stages.training.online.policy_body import asked
from tunemill.stages.training.online.reward_asking import Asked
from tunemill.stages.training.online.rewards import Scores
from tunemill.stages.training.reference_body import load_reference

Sequence_ = tuple[Sequence[int], Sequence[int]]
"""The tokens of a prompt, and of what is behind it."""


class FrozenModel:
    """The one that is trained without its adapter, or a copy, once it has met that one."""

    def __init__(self, config: EbftConfig, base_model: Model) -> None:
        self.config, self._base_model = config, base_model
        self._model: Any = None
        self._copy: Any = None
        self._autocast: Any = None

    def meet(self, model: Any, precision: Precision) -> None:
        """Called with the loaded model, of each attempt to train. What is frozen follows nothing."""
        self._model, self._autocast = model, precision.autocast
        self._copy = None
        if self.config.holds_a_copy:
            self._copy = load_reference(self.config, self._base_model, precision)

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Any]]:
        """The frozen model and its device, to be asked while this lasts."""
        model = self._model if self._copy is None else self._copy
        device = next(model.parameters()).device
        with (
            asked(model) as plain,
            nullcontext() if self._copy is not None else plain.disable_adapter(),
            torch.autocast(device.type, dtype=self._autocast, enabled=self._autocast is not None),
        ):
            yield plain, device


class FeatureRewards:
    """Asks the frozen model of completions."""

    def __init__(self, config: EbftConfig, frozen: FrozenModel, words: Any, end_ids: frozenset[int]) -> None:
        self.config = config
        self._frozen, self._words, self._ends = frozen, words, end_ids

    def __call__(self, about: Asked) -> Scores:
        """Alignment and diversity of each completion. Raises UserError where features are no numbers."""
        firsts = range(0, len(about.ids), about.group)
        texts = about.columns[GROUND_TRUTH]
        made_gnd = self._features(
            [
                (prompt, self._without_end(ids))
                for prompt, ids in zip(about.prompt_ids, about.ids, strict=True)
            ]
        ).unflatten(0, (len(firsts), about.group))
        answers_gd = self._features(
            [(about.prompt_ids[first], ids_of(self._words, texts[first])) for first in firsts]
        )
        alike_gn, among_gn, distance_g = likeness(self.config, made_gnd, answers_gd, about.round)
        values_nf: list[list[float | None]] = [
            list(pair) for pair in zip(alike_gn.flatten().tolist(), among_gn.flatten().tolist(), strict=True)
        ]
        return Scores(
            tuple(self.config.reward_names), values_nf, metrics={"cfm_loss": float(distance_g.mean())}
        )

    def _without_end(self, ids: Sequence[int]) -> Sequence[int]:
        """An answer has no token that ends it, and is compared with what stands before that."""
        return ids[:-1] if ids and ids[-1] in self._ends else ids

    def _features(self, parts: Sequence[Sequence_]) -> Tensor:
        """[n, D] of prompts with what is behind them, a micro batch at a time."""
        size = self.config.micro_batch_size
        with self._frozen.opened() as (frozen, device):
            return torch.cat(
                [
                    self._batch(frozen, parts[first : first + size], device)
                    for first in range(0, len(parts), size)
                ]
            )

    def _batch(self, frozen: Any, parts: Sequence[Sequence_], device: Any) -> Tensor:
        batch = sequences([told(*part) for part in parts], device)
        arguments = {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "output_hidden_states": True,
            "use_cache": False,
        }
        if takes_logits_to_keep(frozen):
            arguments["logits_to_keep"] = 1
        states = frozen(**arguments).hidden_states
        return embedded(self.config, states, batch["attention_mask"], batch["prompt_tokens"])


def embedded(
    config: EbftConfig, states_kbld: Sequence[Tensor], mask_bl: Tensor, prompt_tokens_b: Tensor
) -> Tensor:
    """[B, D] features of sequences, of the hidden states of all layers of a model."""
    chosen = [states_kbld[layer] for layer in layers_of(config.feature_layers, len(states_kbld) - 1)]
    return pooled(features_of(chosen), mask_bl, config.embed_method, prompt_tokens_b)


def likeness(
    config: EbftConfig, made_gnd: Tensor, answers_gd: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """[G, N] how alike completions are to their answer, and to the others; [G] how far their mean is from it.

    Raises UserError where features of this round are no finite numbers.
    """
    check_finite(number, made_gnd, answers_gd)
    if config.use_whitening:
        both = [whitened(made_nd, answer_d) for made_nd, answer_d in zip(made_gnd, answers_gd, strict=True)]
        made_gnd, answers_gd = (torch.stack(one) for one in zip(*both, strict=True))
    unit = not config.use_whitening
    _, alike_gn, among_gn = feature_rewards(made_gnd, answers_gd, 1.0, 1.0, unit=unit)
    check_finite(number, alike_gn, among_gn)
    return alike_gn, among_gn, distance_to_answer(made_gnd, answers_gd, unit=unit)


def check_finite(number: int, *found: Tensor) -> None:
    """Raise UserError where features of that round, or what is made of them, are no finite numbers."""
    if not all(bool(torch.isfinite(one).all()) for one in found):
        raise UserError(
            f"round {number + 1}: the frozen model's features of some completions are no finite numbers. "
            f"Look at the model, or at its precision (bf16, fp16)"
        )
