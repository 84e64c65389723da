"""The command line of vLLM's server, made of the `vllm` block of a YAML and of a model's folders."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.use_config import VllmSettings
from tunemill.stages.errors import SettingError

# Key of `vllm` -> option of `vllm serve` that has a value.
VALUES = {
    "dtype": "--dtype",
    "tensor_parallel_size": "--tensor-parallel-size",
    "data_parallel_size": "--data-parallel-size",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "max_model_len": "--max-model-len",
    "reasoning_parser": "--reasoning-parser",
    "worker_extension_cls": "--worker-extension-cls",
}
# Key -> what is said where it is true, and where it is false.
SWITCHES: dict[str, tuple[str | None, str | None]] = {
    "enable_prefix_caching": ("--enable-prefix-caching", "--no-enable-prefix-caching"),
    "enforce_eager": ("--enforce-eager", None),
}
# Ranks that vLLM has room for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
MERGED_INSTEAD = "Serve the merged model: --of merged"


def vllm_arguments(
    settings: VllmSettings, name: str, model: Path, adapter: Path | None, host: str, port: int
) -> list[str]:
    """What follows `vllm serve`. Raises SettingError for an adapter that vLLM cannot take beside its base."""
    words = [str(model), "--host", host, "--port", str(port)]
    words += ["--served-model-name", name if adapter is None else f"base-of-{name}"]
    for key, option in VALUES.items():
        value = getattr(settings, key)
        if value is not None:
            words += [option, str(value)]
    for key, (on, off) in SWITCHES.items():
        said = {True: on, False: off, None: None}[getattr(settings, key)]
        words += [] if said is None else [said]
    return [*words, *([] if adapter is None else _beside(name, adapter))]


def _beside(name: str, adapter: Path) -> Sequence[str]:
    stored: Mapping[str, Any] = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if stored.get("peft_type") != "LORA":
        raise SettingError(
            f"vLLM takes LoRA beside a base, and this is {stored.get('peft_type')}. {MERGED_INSTEAD}"
        )
    for key in ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters"):
        if stored.get(key):
            raise SettingError(f"vLLM takes no adapter with {key} beside its base. {MERGED_INSTEAD}")
    if stored.get("init_lora_weights") == "loftq":
        raise SettingError(
            f"the base of an adapter by LoftQ is a rounded one, and vLLM rounds none. {MERGED_INSTEAD}"
        )
    rank = max([int(stored["r"]), *(int(one) for one in (stored.get("rank_pattern") or {}).values())])
    room = next((one for one in RANKS if one >= rank), None)
    if room is None:
        raise SettingError(
            f"vLLM takes ranks up to {RANKS[-1]}, and this adapter has {rank}. {MERGED_INSTEAD}"
        )
    return ["--enable-lora", "--max-lora-rank", str(room), "--lora-modules", f"{name}={adapter}"]
