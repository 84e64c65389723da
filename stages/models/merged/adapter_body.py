"""A stored LoRA adapter: what it does to each tensor of the base, and what of it cannot be folded."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file

from tunemill.stages.errors import UserError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunemill.stages.models.merged.change_body import Change, ExpertLowRank, LowRank, Replaced, Rows
from tunemill.stages.models.merged.names_body import Names
from tunemill.stages.models.rounded_body import rounding_of

PREFIX = "base_model.model."
LORA_PART = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<kind>A|B)\.weight|lora_embedding_(?P<embedding>A|B)|"
    r"lora_(?P<magnitude>magnitude)_vector(?:\.weight)?)"
)
TOKENS = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta")
# What of a LoRA config folding reads, or what has done its work when training ends.
FOLDED = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "modules_to_save", "peft_type", "peft_version", "r", "rank_pattern", "revision", "target_modules",
    "target_parameters", "task_type", "trainable_token_indices", "use_dora", "use_rslora",
}  # fmt: skip
# What PEFT merges in the loaded model.
BY_PEFT = ("ensure_weight_tying", "layer_replication")
# These starts leave the base as it is, or say how it is rounded; pissa and its like take the adapter out of it first.
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "mica", "loftq")


def read_changes(folder: Path, names: Names) -> dict[str, Change] | None:
    """Tensor of the model -> its change; None for an adapter of a model that is not that of the base's files.

    Raises UserError for what cannot be merged at all, and an adapter that is not whole.
    """
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    _refuse_unfoldable(config)
    if _beyond_folding(config):
        return None
    stored: dict[str, Any] = load_file(folder / ADAPTER_WEIGHTS)
    factors: dict[str, dict[str, str]] = {}
    changes: dict[str, Change] = {}
    for name in sorted(stored):
        if not name.startswith(PREFIX):
            raise UserError(
                f"adapter: {name}: not a tensor of a LoRA adapter (its name does not start with {PREFIX})"
            )
        bare = name.removeprefix(PREFIX)
        if part := LORA_PART.fullmatch(bare):
            kind = part["kind"] or part["magnitude"] or f"embedding_{part['embedding']}"
            factors.setdefault(part["module"], {})[kind] = name
        elif part := TOKENS.fullmatch(bare):
            changes[f"{part['module']}.weight"] = _rows(part["module"], name, stored[name], config)
        else:
            changes[bare] = Replaced((name,), stored[name])
    for module, parts in factors.items():
        if (parameter := _parameter(module, config, names.skeleton)) is not None:
            changes[parameter] = _of_experts(module, parameter, parts, stored, config, names)
        else:
            changes[f"{module}.weight"] = _low_rank(module, parts, stored, config, names)
    return changes


def _rows(module: str, name: str, values: Any, config: Mapping[str, Any]) -> Rows:
    tokens = config["trainable_token_indices"]
    if isinstance(tokens, dict):
        tokens = next((found for key, found in tokens.items() if f".{module}".endswith(f".{key}")), [])
    if len(tokens) != len(values):
        raise UserError(
            f"adapter: {name}: {len(values)} rows, and trainable_token_indices of its config are {len(tokens)}. It is "
            f"damaged."
        )
    return Rows((name,), torch.tensor(tokens), values)


def _low_rank(
    module: str,
    parts: Mapping[str, str],
    stored: Mapping[str, Any],
    config: Mapping[str, Any],
    names: Names,
) -> LowRank:
    embedding = "embedding_A" in parts
    a, b = _factors(module, parts, stored, ("embedding_A", "embedding_B") if embedding else ("A", "B"))
    if a.ndim != 2 or b.ndim != 2:
        raise UserError(f"adapter: {module}: a convolution's adapter cannot be folded in yet.")
    if config["use_dora"] != ("magnitude" in parts):
        found = "no magnitude" if config["use_dora"] else "a magnitude"
        raise UserError(
            f"adapter: {module}: {found}, and use_dora of its config is {str(config['use_dora']).lower()}. It is "
            f"incomplete."
        )
    # An embedding's factors are stored for rows by tokens, its weight as tokens by rows.
    return LowRank(
        tuple(parts.values()),
        a=a,
        b=b,
        scaling=_scaling(config, module, a.shape[0]),
        transposed=embedding or f"{module}.weight" in names.turned,
        magnitude=stored[parts["magnitude"]] if "magnitude" in parts else None,
        bits=rounding_of(config),
    )


def _of_experts(
    module: str,
    parameter: str,
    parts: Mapping[str, str],
    stored: Mapping[str, Any],
    config: Mapping[str, Any],
    names: Names,
) -> Change:
    a, b = _factors(module, parts, stored, ("A", "B"))
    holder, weight = (
        names.skeleton.get_submodule(parameter.rpartition(".")[0]),
        names.skeleton.get_parameter(parameter),
    )
    if weight.ndim == 2:
        return LowRank(tuple(parts.values()), a, b, _scaling(config, parameter, a.shape[0]))
    scaling = _scaling(config, parameter, a.shape[0] // weight.shape[0])
    transposed = bool(getattr(holder, "is_transposed", False))
    return ExpertLowRank(tuple(parts.values()), a, b, scaling, transposed)


def _factors(
    module: str, parts: Mapping[str, str], stored: Mapping[str, Any], keys: tuple[str, str]
) -> tuple[Any, Any]:
    if set(parts) - {"magnitude"} != set(keys):
        raise UserError(
            f"adapter: {module}: only {', '.join(parts.values())} of its two factors. It is incomplete."
        )
    return stored[parts[keys[0]]], stored[parts[keys[1]]]


def _parameter(module: str, config: Mapping[str, Any], model: Any) -> str | None:
    """The parameter that factors stand beside, if not a module's weight.

    PEFT wraps a module once for each of its parameters that are targeted, in their order there: the factors of the last
    one are those of the module, and those of the one before it are of its `base_layer`, and so on.
    """
    targets = config.get("target_parameters") or []
    bare = module
    while bare.endswith(".base_layer"):
        bare = bare.removesuffix(".base_layer")
    depth = (len(module) - len(bare)) // len(".base_layer")
    try:
        holder = model.get_submodule(bare)
    except AttributeError:
        return None
    named = [f"{bare}.{name}" for name, _ in holder.named_parameters(recurse=False)]
    meant = [name for name in named if any(name == one or name.endswith(f".{one}") for one in targets)]
    return meant[len(meant) - 1 - depth] if depth < len(meant) else None


def _scaling(config: Mapping[str, Any], name: str, rank: int) -> float:
    alpha = _of_pattern(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
    return float(alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank)


def _of_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return default


def _beyond_folding(config: Mapping[str, Any]) -> list[str]:
    """Settings of the adapter that are not folded. PEFT writes empty lists for those that are unset."""
    plain = json.loads(json.dumps(LoraConfig().to_dict()))
    return [
        key
        for key, value in config.items()
        if key not in FOLDED and (value or None) != (plain.get(key) or None)
    ]


def _refuse_unfoldable(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"adapter: peft_type {config.get('peft_type')} cannot be folded in, only LORA.")
    if config.get("init_lora_weights") not in PLAIN_STARTS:
        raise UserError(
            f"adapter: init_lora_weights {config.get('init_lora_weights')} changed the base before training: it "
            f"cannot be folded into the unchanged one. Use true, gaussian or orthogonal."
        )
    odd = [key for key in _beyond_folding(config) if key not in BY_PEFT]
    if odd:
        raise UserError(
            f"adapter: {', '.join(sorted(odd))}: cannot be folded in yet. Without it LoRA and DoRA can be."
        )
