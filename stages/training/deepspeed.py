"""DeepSpeed's settings: the configs that come with Tunemill, and what may stand in one of a user's own."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

AUTO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
OVERLAPS = {"overlap_comm": True, "contiguous_gradients": True}
WHOLE = {**OVERLAPS, "stage3_gather_16bit_weights_on_model_save": True}
TO_CPU = {"device": "cpu", "pin_memory": True}
BF16 = {"bf16": {"enabled": True}}
# By Axolotl's names, below deepspeed_configs/.
CONFIGS: dict[str, dict[str, Any]] = {
    "zero1.json": {"zero_optimization": {"stage": 1, "overlap_comm": True}, **AUTO},
    "zero2.json": {"zero_optimization": {"stage": 2, **OVERLAPS}, **AUTO},
    "zero3.json": {"zero_optimization": {"stage": 3, **WHOLE}, **AUTO},
    "zero3_bf16.json": {"zero_optimization": {"stage": 3, **WHOLE}, **BF16, **AUTO},
    "zero3_bf16_cpuoffload_params.json": {
        "zero_optimization": {"stage": 3, "offload_param": TO_CPU, **WHOLE}, **BF16, **AUTO,
    },
    "zero3_bf16_cpuoffload_all.json": {
        "zero_optimization": {"stage": 3, "offload_optimizer": TO_CPU, "offload_param": TO_CPU, **WHOLE},
        **BF16,
        **AUTO,
    },
}  # fmt: skip
# What a config may hold that would replace keys of the YAML, and those keys.
REPLACES = {
    "optimizer": "optimizer, learning_rate, optim_args",
    "scheduler": "lr_scheduler, warmup_steps",
}
# What the YAML says already, with the key that does.
SAID = {
    "train_batch_size": "micro_batch_size and gradient_accumulation_steps",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
}
# What says how the work is done, and changes no more than the order in which numbers are added.
HARMLESS = frozenset({
    "zero_optimization", "bf16", "fp16", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
    "steps_per_print", "wall_clock_breakdown", "dump_state", "memory_breakdown", "comms_logger", "flops_profiler",
    "aio", "activation_checkpointing", "compile", "prescale_gradients", "gradient_predivide_factor",
    "disable_allgather",
})  # fmt: skip
ROUNDS = ("zero_quantized_weights", "zero_quantized_gradients", "zero_quantized_nontrainable_weights")
STAGES = (0, 1, 2, 3)


def settings_of(given: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The settings of `deepspeed`: inline, a file's contents, or the name of a config that comes with Tunemill.

    None where there are none, or it names a file that is not there. Raises ValueError where a file is no JSON.
    """
    if given is None or isinstance(given, Mapping):
        return given or None
    if not given.lstrip().startswith("{"):
        return CONFIGS.get(PurePosixPath(given).name)
    try:
        found: Mapping[str, Any] = json.loads(given)
    except json.JSONDecodeError as error:
        raise ValueError(f"the file is no valid JSON: {error}") from None
    return found


def zero_of(given: str | Mapping[str, Any] | None) -> tuple[int, Mapping[str, Any]] | None:
    """The ZeRO stage and the settings; None where DeepSpeed is not asked for. Raises ValueError for what is wrong."""
    if not given:
        return None
    settings = settings_of(given)
    if settings is None:
        raise ValueError(
            f"{given}: no such file, and none of the configs that come with Tunemill, {', '.join(sorted(CONFIGS))}: "
            f"`tunemill fetch deepspeed_configs` writes these where you can change them"
        )
    check(settings)
    return int(settings.get("zero_optimization", {}).get("stage", 0)), settings


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for what would change what is learned, past the keys of the YAML."""
    for name, value in settings.items():
        if name in REPLACES:
            raise ValueError(
                f"its {name} would go before the keys of this file; take it out there, and write {REPLACES[name]} here"
            )
        if name in SAID:
            if value != "auto":
                raise ValueError(
                    f"its {name}: {value!r}: {SAID[name]} says it; write auto, or take it out there"
                )
        elif name not in HARMLESS:
            raise ValueError(
                f"its {name}: not known to leave the result as it is, and a result may not depend on how it was "
                f"shared among devices; take it out there"
            )
    if not isinstance(settings.get("compile", {}), Mapping):
        raise ValueError(f"its compile: {settings['compile']!r}: must hold settings, or be taken out")
    zero = settings.get("zero_optimization", {})
    if not isinstance(zero, Mapping):
        raise ValueError(f"its zero_optimization: {zero!r}: must hold settings, such as stage: 2")
    if zero.get("stage", 0) not in STAGES:
        raise ValueError(f"its zero_optimization.stage: {zero.get('stage')!r}: must be 0, 1, 2 or 3")
    for name in ROUNDS:
        if zero.get(name):
            raise ValueError(
                f"its zero_optimization.{name}: it rounds what is exchanged, which changes the result"
            )


def precision_blocks(settings: Mapping[str, Any]) -> list[str]:
    """Which of `bf16` and `fp16` say something of their own in DeepSpeed's settings."""
    return [name for name in ("bf16", "fp16") if name in settings and not _follows(settings[name])]


def _follows(block: Any) -> bool:
    """Whether it leaves to the YAML whether it is on."""
    return isinstance(block, Mapping) and block.get("enabled", "auto") == "auto"
