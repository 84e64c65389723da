"""What is proven where processes share a model in parts, by FSDP2 or DeepSpeed; the rest is refused."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

# Optimizers that compute each number from what stands in its place alone: a part is stepped as the whole would be.
ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
UNPROVEN = "has not been proven with a model in parts (FSDP2, DeepSpeed)"
# Settings that are off at these values.
OFF: dict[str, tuple[Any, ...]] = {
    "adapter": (None, "lora", "qlora"),
    "peft_use_dora": (False,),
    "relora": (False,),
    "lora_target_parameters": (None,),
    "peft_layer_replication": (None,),
    "peft_trainable_token_indices": (None,),
    "unfrozen_parameters": (None,),
    "load_best_model_at_end": (False, None),
    "fp16": (False, None),
    "float16": (False, None),
    "liger_rope": (False,),
    "liger_rms_norm": (False,),
    "liger_glu_activation": (False,),
    "liger_layer_norm": (False,),
    "lora_mlp_kernel": (False, None),
    "lora_qkv_kernel": (False, None),
    "lora_o_kernel": (False, None),
    "neftune_noise_alpha": (None,),
    "load_in_8bit": (False,),
    "quantize_moe_experts": (False, None),
    "activation_offloading": (False,),
}
STARTS = (True, "gaussian")
DEEPSPEED_EXTRA = (
    "deepspeed: needs the package deepspeed, which is not installed. pip install 'tunemill[deepspeed]'"
)


def unproven_in_parts(config: Any) -> Iterator[tuple[str, str]]:
    """The keys that ask for something unproven with a model in parts, and what is said of each."""
    sharding = config.sharding
    if not sharding.in_parts:
        return
    for key, off in OFF.items():
        value = getattr(config, key, off[0])
        if value not in off:
            yield key, f"{value if isinstance(value, str | int | float) else 'this'} {UNPROVEN}"
    if config.optimizer not in ELEMENTWISE:
        yield "optimizer", f"{config.optimizer} {_why_not(config)}; these are: {', '.join(ELEMENTWISE)}"
    if config.has_adapter and config.peft_init_lora_weights not in STARTS:
        yield "peft_init_lora_weights", f"{config.peft_init_lora_weights} {UNPROVEN}"
    if getattr(config, "holds_a_copy", False):
        key = "sync_ref_model" if config.sync_ref_model else "precompute_ref_log_probs"
        yield key, f"a copy of the model, as reference, {UNPROVEN}"
    if config.grokfast:
        yield "plugins", f"Grokfast {UNPROVEN}"
    if config.named_kernels:
        yield "kernels", f"this {UNPROVEN}; write auto or off"
    if sharding.zero is not None and sharding.zero.compiles and config.torch_compile:
        yield "torch_compile", "deepcompile compiles the model already; keep one"
    if sharding.zero is not None and sharding.zero.stage == 3 and config.qat is not None:
        yield "qat", "has not been proven with ZeRO-3; use fsdp_version: 2, or ZeRO-2"
    if sharding.zero is not None and config.is_pure_bfloat16:
        yield "bfloat16", "DeepSpeed would keep a second copy of the weights in float32; use bf16: true"


def _why_not(config: Any) -> str:
    """What is known of an optimizer beside a model in parts."""
    chosen = config.chosen_optimizer
    if chosen.library != "bitsandbytes":
        return UNPROVEN
    if config.sharding.fsdp is not None:
        return f"{UNPROVEN}: bitsandbytes steps no tensors that FSDP2 has in parts"
    if chosen.fixed.get("optim_bits") == 8:
        return f"{UNPROVEN}: it rounds its state block by block, and DeepSpeed's parts have other blocks"
    return UNPROVEN


def lacks_deepspeed(config: Any) -> bool:
    """Whether DeepSpeed is asked for, and not installed."""
    return config.sharding.zero is not None and find_spec("deepspeed") is None
