"""ReLoRA: at each restart the adapter's product goes into the base's weights in memory, and its factors start anew.

The factors of all cycles are kept. Side by side they are one adapter of a higher rank on the base as it was, which is
what is saved: scale * (B1 A1 + B2 A2 + ...). The base of each cycle is computed anew from its first weights and these
factors, so nothing is rounded twice, and a resumed training gets the same weights. A base in 4 or 8 bits would round
most of a product away: there the factors of earlier cycles stay beside the weights, and are computed with.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainerCallback

from tunemill.kernels.in_models.projections import is_quantized
from tunemill.stages.errors import SettingError
from tunemill.stages.models.module_names import names_of_tensors
from tunemill.stages.report import Report
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.adapters.factors_body import (
    NAME,
    adapted_layers,
    factors_of,
    weight_of,
)
from tunemill.stages.training.callbacks_body import random_state_kept
from tunemill.stages.training.keys.factors import PLAIN_STARTS
from tunemill.stages.training.keys.relora import FILE
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.optimizers.prune_body import prune

# Seeds of two trainings must not meet: no training has so many restarts.
SEED_STRIDE = 1_000_003


class Restarts(TrainerCallback):  # type: ignore[misc]
    """Has to hear of a checkpoint before it is sealed."""

    def __init__(
        self, config: TrainingKeys, model: Any, seed: int, root: Path, total: int, report: Report
    ) -> None:
        """`model` has a fresh adapter. Raises SettingError where it cannot be folded in exactly."""
        assert config.jagged_restart_steps is not None
        self._every = config.jagged_restart_steps
        self._method, self._share = config.relora_prune_method, config.pruned_share
        self._keeps_best = config.keeps_best
        self._model, self._seed, self._root, self._report = model, seed, root, report
        check_foldable(model)
        layers = dict(adapted_layers(model))
        self._beside = {name: EarlierCycles(layer) for name, layer in layers.items() if in_bits(layer)}
        self._first = {
            name: weight_of(layer).detach().to("cpu", copy=True)
            for name, layer in layers.items()
            if name not in self._beside
        }
        if self._every >= total:
            report.log(
                f"relora: the adapter never starts anew: jagged_restart_steps is {self._every}, and this training has "
                f"{total} steps"
            )

    def resume(self, checkpoint: Path | None) -> None:
        """The base as it was at a checkpoint. The current factors are overwritten: the checkpoint has them.

        Raises SettingError for a checkpoint of another run whose adapter is not of these cycles.
        """
        if checkpoint is None:
            return
        file = checkpoint / FILE
        self._model.folded = torch.load(file, weights_only=True) if file.is_file() else []
        taken = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
        now = {name: factor.shape for name, factor in factors_of(self._model).items()}
        pieces = [{name: factor.shape for name, factor in piece.items()} for piece in self._model.folded]
        if len(pieces) != self._restarts_before(taken) or any(piece != now for piece in pieces):
            raise SettingError(
                f"resume_from_checkpoint: {checkpoint}: in {taken} steps its adapter started anew {len(pieces)} times; "
                f"with jagged_restart_steps: {self._every} it is {self._restarts_before(taken)} times, of the same "
                f"modules and ranks. Set what that run had."
            )
        self._fold()

    def _restarts_before(self, step: int) -> int:
        """How often the adapter has started anew by the end of a step, from 1."""
        return max(0, step - 1) // self._every

    def on_step_begin(
        self, _args: Any, state: Any, _control: Any, optimizer: Any = None, **_kwargs: Any
    ) -> None:
        """Restart before the step whose learning rate restarts."""
        if state.global_step // self._every <= len(self._model.folded):
            return
        now = {name: tensor.detach().to("cpu", copy=True) for name, tensor in factors_of(self._model).items()}
        self._model.folded.append(now)
        self._fold()
        restart = len(self._model.folded)
        with random_state_kept():
            torch.manual_seed(self._seed + SEED_STRIDE * restart)
            self._start_anew()
            prune(optimizer, factors_of(self._model).values(), self._method, self._share)
        self._report.log(f"restart {restart} of the adapter after step {state.global_step}")

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Beside what the Trainer writes: the same in all processes."""
        if ranks.is_first():
            torch.save(self._model.folded, self._root / f"checkpoint-{state.global_step}" / FILE)

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Where the best step's factors are about to be put back, the base goes back to that step's too."""
        if self._keeps_best and state.best_global_step is not None:
            self._model.folded = self._model.folded[: self._restarts_before(state.best_global_step)]
            self._fold()

    def _fold(self) -> None:
        """The base's first weights with the products of all cycles, each computed by PEFT from its own factors."""
        with torch.no_grad():
            for name, layer in adapted_layers(self._model):
                if name in self._beside:
                    self._beside[name].keep(name, self._model.folded)
                    continue
                weight = weight_of(layer)
                folded = self._first[name].to(weight.device, torch.float32, copy=True)
                for piece in self._model.folded:
                    for factor, tensor in factors_of(layer, name).items():
                        tensor.data.copy_(piece[factor])
                    folded += layer.get_delta_weight(NAME).to(weight.device)
                weight.data.copy_(folded)

    def _start_anew(self) -> None:
        """As PEFT starts an adapter; the parameters stay the same objects, which the optimizer knows."""
        with torch.no_grad():
            start = self._model.peft_config[NAME].init_lora_weights
            for _, layer in adapted_layers(self._model):
                held = [
                    (holder, key, holder._parameters[key], holder._parameters[key].data)
                    for holder, key in _places(layer)
                ]
                if start == "orthogonal":
                    layer.orthogonal_init(NAME)
                else:
                    layer.reset_lora_parameters(NAME, start if start in PLAIN_STARTS else True)
                for holder, key, parameter, data in held:
                    data.copy_(holder._parameters[key])
                    parameter.data = data
                    holder._parameters[key] = parameter


class EarlierCycles:
    """What earlier cycles add to the output of a layer whose weight is in 4 or 8 bits."""

    def __init__(self, layer: Any) -> None:
        """They are added behind each call of `layer`; none so far."""
        self._scale: float = layer.scaling[NAME]
        self._factors: tuple[Any, Any] | None = None
        layer.register_forward_hook(self)

    def keep(self, name: str, folded: Sequence[Mapping[str, Any]]) -> None:
        """From now on the cycles of `folded` count, whose factors have the names that `factors_of` gives them."""
        self._factors = (
            None
            if not folded
            else (
                torch.cat([piece[f"{name}.lora_A.weight"] for piece in folded]),
                torch.cat([piece[f"{name}.lora_B.weight"] for piece in folded], dim=1),
            )
        )

    def __call__(self, _layer: Any, given: tuple[Any, ...], output: Any) -> Any:
        """`output` (batch, sequence, features) with their products, in its own type."""
        if self._factors is None:
            return output
        hidden = given[0]
        down, up = self._factors = tuple(factor.to(hidden.device) for factor in self._factors)
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(down.dtype)
        product = functional.linear(functional.linear(hidden, down), up) * self._scale
        return output + product.to(output.dtype)


def in_bits(layer: Any) -> bool:
    """Whether bitsandbytes holds the weight under the factors."""
    return is_quantized(weight_of(layer))


def check_foldable(model: Any) -> None:
    """Raise SettingError for an adapter that is more than products of factors, or a base that could not hold them."""
    if model.peft_config[NAME].use_dora:
        raise SettingError(
            "relora: the adapter in lora_model_dir is DoRA's, and a sum of several such is no adapter. Remove relora."
        )
    holders = names_of_tensors(model)
    for name, layer in adapted_layers(model):
        weight = weight_of(layer)
        if in_bits(layer) and hasattr(layer, "get_param"):
            raise SettingError(
                f"relora: {name} holds experts in few bits, which can neither be folded into nor have factors beside "
                f"them. Remove lora_target_parameters, quantize_moe_experts or relora."
            )
        if len(holders[id(weight)]) > 1:
            raise SettingError(
                f"relora: {' and '.join(holders[id(weight)])} are one tensor, and what is folded in for {name} would "
                f"change the others too. Leave it out of lora_target_modules."
            )


def _places(layer: Any) -> Iterator[tuple[Any, str]]:
    """Module and name of each factor in it."""
    for holder in ("lora_A", "lora_B"):
        if NAME in getattr(layer, holder):
            yield getattr(layer, holder)[NAME], "weight"
    for holder in ("lora_embedding_A", "lora_embedding_B"):
        if NAME in getattr(layer, holder):
            yield getattr(layer, holder), NAME


def with_folded(weights: dict[str, Any], model: Any) -> dict[str, Any]:
    """The weights of an adapter, with the factors of earlier cycles beside the current ones."""
    found = dict(weights)
    for layer_name, layer in adapted_layers(model):
        experts = getattr(layer, "num_experts", 1)
        for name in factors_of(layer, layer_name):
            parts = [*(piece[name].to(weights[name].device) for piece in model.folded), weights[name]]
            if name.removesuffix(".weight").endswith("_B"):
                found[name] = torch.cat(parts, dim=1)
            else:
                # Of several experts in one tensor, the ranks of each lie together.
                split = [part.reshape(experts, -1, *part.shape[1:]) for part in parts]
                found[name] = torch.cat(split, dim=1).flatten(0, 1)
    return found
