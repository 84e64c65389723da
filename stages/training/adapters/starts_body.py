"""Starts that change the base: the trained adapter, written for the base as it was, or as it was rounded."""

import math
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora.layer import ParamWrapper

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.loading_body import load_base_of
from tunemill.stages.models.module_names import names_of_tensors
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.rounded_body import with_adapter
from tunemill.stages.training.adapters.factors_body import NAME, adapted_layers, weight_of

FACTORS = (".lora_A.weight", ".lora_B.weight")
# Largest difference of a logit over the largest: what is left of the base was rounded to its type once.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


def probe(model: Any) -> Any:
    """Logits of fixed tokens."""
    was_training = model.training
    model.eval()
    ids = fixed_tokens(model.config.get_text_config().vocab_size).to(
        model.get_input_embeddings().weight.device
    )
    found = logits_of(model, ids)
    model.train(was_training)
    return found


def first_factors(model: Any, before: Any, start: str) -> dict[str, Any]:
    """Name -> copy of each factor as it starts. `before`: what `probe` found without the adapter.

    Raises SettingError for modules that cannot start so, and where the model computes something else already.
    """
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    start = f"peft_init_lora_weights: {start}"
    if any("lora_embedding_" in name for name in weights):
        raise SettingError(f"{start} is for linear modules, and an embedding gets an adapter. Take it out.")
    check_same(probe(model), before, model.get_input_embeddings().weight.dtype, SettingError, (
        f"{start}: with the adapter the model computes something else before the first step: a module that gets one "
        f"shares its weight, as an output head tied to the embeddings does. Leave that module out"
    ))  # fmt: skip
    return {name: tensor.detach().clone() for name, tensor in weights.items() if name.endswith(FACTORS)}


def check_linear(model: Any, start: str) -> None:
    """Raise SettingError for an adapter beside something else than a linear module with a weight of its own."""
    check_modules(model, start)
    holders = names_of_tensors(model)
    for name, layer in adapted_layers(model):
        weight = weight_of(layer)
        if not weight.is_floating_point() or weight.ndim != 2:
            raise SettingError(
                f"peft_init_lora_weights: {start} changes the weights below the adapter, and {name} has none in full "
                f"precision. Start from a model in 16 bits, or with gaussian."
            )
        if len(holders[id(weight)]) > 1:
            raise SettingError(
                f"peft_init_lora_weights: {start}: {' and '.join(holders[id(weight)])} are one tensor, and what "
                f"changes for {name} would change the others too. Leave it out of lora_target_modules."
            )


def check_modules(model: Any, start: str) -> None:
    """Raise SettingError where something else than a module that multiplies by a matrix has an adapter."""
    for name, layer in adapted_layers(model):
        kind = "an embedding" if NAME in layer.lora_embedding_A else "a bare parameter, as of experts,"
        if NAME in layer.lora_embedding_A or isinstance(layer, ParamWrapper):
            raise SettingError(
                f"peft_init_lora_weights: {start} is for linear modules, and {kind} gets an adapter: {name}. Name "
                f"others in lora_target_modules."
            )


def without_start(weights: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """The factors [A; A0] and [B, -B0] of twice the rank: B A - B0 A0, what training added to the base as it was."""
    found = dict(weights)
    for name, start in first.items():
        now, old = weights[name], start.to(weights[name].device)
        is_first = name.endswith(FACTORS[0])
        found[name] = torch.cat([now, old], dim=0) if is_first else torch.cat([now, -old], dim=1)
    return found


def of_more_rank(config: Any, times: int) -> None:
    """Change the settings of an adapter so that factors of so many times the rank are scaled as before."""
    grown = math.sqrt(times) if config.use_rslora else times
    config.r *= times
    config.lora_alpha *= grown
    config.rank_pattern = {name: times * rank for name, rank in config.rank_pattern.items()}
    config.alpha_pattern = {name: alpha * grown for name, alpha in config.alpha_pattern.items()}
    config.init_lora_weights = True


def prove_start(model: Any, base: Path, adapter: Path) -> float:
    """The largest difference of a logit between the model that was trained and the stored adapter on its base.

    Raises UserError where it is more than rounding.
    """
    cause = "relora" if model.folded else "peft_init_lora_weights"
    weight = model.get_input_embeddings().weight
    plain = load_base_of(adapter, base, dtype=weight.dtype).to(weight.device)
    # Products with weights in 8 bits round their inputs to 8 bits, which is what bfloat16 has.
    in_8_bits = any(parameter.dtype == torch.int8 for parameter in plain.parameters())
    dtype = torch.bfloat16 if in_8_bits else weight.dtype
    return check_same(probe(with_adapter(plain, adapter)), probe(model), dtype, UserError, (
        f"{cause}: beside the base as it was, the trained adapter gives other logits than those that were trained. "
        f"Train with float32: true, or {'without relora' if model.folded else 'start with gaussian'}"
    ))  # fmt: skip


def check_same(found: Any, expected: Any, dtype: Any, error: type[ValueError], reason: str) -> float:
    """The largest difference of two logits; raises `error` with the reason where it is more than rounding."""
    difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
    if not difference <= TOLERANCE.get(dtype, TOLERANCE[torch.float32]) * largest:
        raise error(f"{reason} (they differ by {difference:g}, of {largest:g} at most).")
    return difference
