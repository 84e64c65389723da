"""The command line of vLLM's server, made of the `vllm` block of a YAML and of a model's folders."""

from pathlib import Path

from tunemill.pipelines.config.use_config import VllmSettings
from tunemill.stages.models.vllm.adapter import beside_base

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
    return [*words, *([] if adapter is None else beside_base(name, adapter, MERGED_INSTEAD))]
