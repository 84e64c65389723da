"""A stored LoRA adapter: what it does to each tensor of the base, and what of it cannot be folded."""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file

from tunemill.stages.errors import UserError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunemill.stages.models.rounded_body import rounding_of, through_bits

PREFIX = "base_model.model."
LORA_PART = re.compile(r"(?P<module>.+)\.(?:lora_(?P<kind>A|B)\.weight|lora_embedding_(?P<embedding>A|B))")
# What of a LoRA config folding reads, or what has done its work when training ends.
FOLDED = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "modules_to_save",
    "peft_type", "peft_version", "r", "rank_pattern", "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
# What PEFT merges in the loaded model.
BY_PEFT = (
    "ensure_weight_tying",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
)
# These starts leave the base as it is, or say how it is rounded; pissa and its like take the adapter out of it first.
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "mica", "loftq")


@dataclass(frozen=True)
class Change:
    """What the adapter does to one tensor: W + scaling * B @ A (transposed if `transposed`), or `replacement`.

    A: [r, in], B: [out, r]. W is rounded through `bits` first, where the adapter was trained beside it so.
    """

    names: tuple[str, ...]
    a: Any = None
    b: Any = None
    scaling: float = 0.0
    transposed: bool = False
    replacement: Any = None
    bits: int | None = None

    def apply(self, weight: Any) -> Any:
        """The changed tensor, computed in float32 and cast back to the type of `weight`."""
        if self.replacement is not None:
            assert self.replacement.shape == weight.shape, f"{self.names}: {self.replacement.shape}"
            return self.replacement.to(weight.dtype)
        left, right = (self.a.T, self.b.T) if self.transposed else (self.b, self.a)
        shape = (left.shape[0], right.shape[1])
        assert weight.shape == shape, f"{self.names}: {shape} against {tuple(weight.shape)}"
        held = weight if self.bits is None else through_bits(weight, self.bits)
        return torch.addmm(held.float(), left.float(), right.float(), alpha=self.scaling).to(weight.dtype)


def read_changes(folder: Path, turned: Collection[str]) -> dict[str, Change] | None:
    """Tensor of the base -> its change; None where each is more than two factors of one tensor, as DoRA's.

    `turned`: names of weights that the base holds as (in, out). Raises UserError for what cannot be merged at all.
    """
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    _refuse_unfoldable(config)
    if _beyond_plain(config):
        return None
    stored: dict[str, Any] = load_file(folder / ADAPTER_WEIGHTS)
    factors: dict[str, dict[str, str]] = {}
    changes: dict[str, Change] = {}
    for name in sorted(stored):
        if not name.startswith(PREFIX):
            raise UserError(
                f"adapter: {name}: not a tensor of a LoRA adapter (its name does not start with {PREFIX})"
            )
        part = LORA_PART.fullmatch(name.removeprefix(PREFIX))
        if part is None:
            changes[name.removeprefix(PREFIX)] = Change((name,), replacement=stored[name])
        else:
            factors.setdefault(part["module"], {})[part["kind"] or f"embedding_{part['embedding']}"] = name
    for module, names in factors.items():
        changes[f"{module}.weight"] = _low_rank(module, names, stored, config, turned)
    return changes


def _low_rank(
    module: str,
    names: Mapping[str, str],
    stored: Mapping[str, Any],
    config: Mapping[str, Any],
    turned: Collection[str],
) -> Change:
    embedding = "embedding_A" in names
    keys = ("embedding_A", "embedding_B") if embedding else ("A", "B")
    if set(names) != set(keys):
        raise UserError(
            f"adapter: {module}: only {', '.join(names.values())} of its two factors. It is incomplete."
        )
    a, b = (stored[names[key]] for key in keys)
    if a.ndim != 2 or b.ndim != 2:
        raise UserError(f"adapter: {module}: a convolution's adapter cannot be folded in yet.")
    rank = a.shape[0]
    alpha = _of_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    scaling = alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank
    # An embedding's factors are stored for rows by tokens, its weight as tokens by rows.
    transposed = embedding or f"{module}.weight" in turned
    found = (names[keys[0]], names[keys[1]])
    return Change(found, a=a, b=b, scaling=scaling, transposed=transposed, bits=rounding_of(config))


def _of_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return default


def _beyond_plain(config: Mapping[str, Any]) -> list[str]:
    """Settings of the adapter that make it more than plain LoRA. PEFT writes empty lists for those that are unset."""
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
    odd = [key for key in _beyond_plain(config) if key not in BY_PEFT]
    if odd:
        raise UserError(
            f"adapter: {', '.join(sorted(odd))}: cannot be folded in yet. Without it LoRA and DoRA can be."
        )
