"""Settings of the `trained` slice that exclude or need each other."""

import re
from typing import TYPE_CHECKING

from tunemill.stages.declaration import ConflictError
from tunemill.stages.trained.kernel_choice import check_kernels

if TYPE_CHECKING:
    from tunemill.stages.trained.config import TrainedConfig

# What each optimizer of transformers takes from optim_args; it ignores every other name without a word.
OPTIM_ARGS = {
    "sgd": {"momentum", "dampening", "nesterov"},
    "adagrad": {"lr_decay", "eps"},
    "rmsprop": {"momentum", "alpha", "eps", "centered"},
}
LORA_KEYS = (
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_modules_to_save",
    "lora_fan_in_fan_out", "peft_use_rslora", "peft_layers_to_transform", "peft_init_lora_weights",
)  # fmt: skip
SCHEDULERS_WITHOUT_WARMUP = {"constant"}
# transformers drops lr_scheduler_kwargs for these without a word.
SCHEDULERS_WITHOUT_KWARGS = {"constant", "constant_with_warmup"}


def check_conflicts(config: "TrainedConfig") -> None:
    """Raise ConflictError with the names of the keys at fault."""
    _check_adapter(config)
    _check_batches(config)
    _check_learning_rate(config)
    _check_optimizer(config)
    _check_machine(config)
    _check_rhythm(config)
    check_kernels(config)


def _check_adapter(config: "TrainedConfig") -> None:
    if config.adapter is None:
        fields = type(config).model_fields
        chosen = [key for key in LORA_KEYS if getattr(config, key) != fields[key].default]
        if chosen:
            raise ConflictError(
                f"{', '.join(chosen)}: settings of an adapter, but adapter is unset, so every parameter is trained. "
                f"Set adapter: lora, or remove them",
                "adapter",
                *chosen,
            )
        return
    missing = [key for key in ("lora_r", "lora_alpha") if getattr(config, key) is None]
    if missing:
        raise ConflictError(f"adapter: lora needs {' and '.join(missing)}", "adapter", *missing)
    if config.lora_target_modules in (None, [], "") and not config.lora_target_linear:
        raise ConflictError(
            "adapter: lora needs lora_target_modules (names of modules) or lora_target_linear: true",
            "lora_target_modules",
            "lora_target_linear",
        )
    if config.tokens and not config.lora_modules_to_save:
        raise ConflictError(
            "tokens adds rows to the embeddings, which adapter: lora does not train. Set lora_modules_to_save to the "
            "names of embeddings and output head, for most models [embed_tokens, lm_head]",
            "lora_modules_to_save",
            "tokens",
        )
    if isinstance(config.lora_target_modules, str) and config.lora_target_linear:
        raise ConflictError(
            "lora_target_modules as a regular expression and lora_target_linear: true exclude each other",
            "lora_target_modules",
            "lora_target_linear",
        )
    if isinstance(config.lora_target_modules, str):
        _check_expression(config.lora_target_modules)


def _check_expression(given: str) -> None:
    try:
        re.compile(given)
    except re.error as error:
        raise ConflictError(
            f"lora_target_modules: {given!r} is a text, so a regular expression, but no valid one: {error}. "
            f"Correct it, or give a list of module names",
            "lora_target_modules",
        ) from None


def _check_batches(config: "TrainedConfig") -> None:
    if config.group_by_length and config.sample_packing:
        raise ConflictError(
            "group_by_length sorts rows by length; with sample_packing every sequence is full. Choose one",
            "group_by_length",
            "sample_packing",
        )
    if config.group_by_length and config.curriculum_sampling:
        raise ConflictError(
            "group_by_length sorts rows by length, and curriculum_sampling keeps their order. Choose one",
            "group_by_length",
            "curriculum_sampling",
        )
    if config.batch_flattening is True:
        for key, given in (
            ("sample_packing", config.sample_packing),
            ("pad_to_sequence_len", config.pad_to_sequence_len),
        ):
            if given:
                raise ConflictError(
                    f"batch_flattening puts rows one behind the other without padding, which {key}: true does not "
                    f"allow. Choose one",
                    "batch_flattening",
                    key,
                )
    if config.multipack_real_batches and not config.sample_packing:
        raise ConflictError(
            "multipack_real_batches is only read with sample_packing: true. Set that, or remove it",
            "multipack_real_batches",
        )
    if config.pad_to_multiple_of is not None and config.pads_to_sequence_len:
        raise ConflictError(
            "pad_to_multiple_of: every sequence is padded to sequence_len. Remove it, or set pad_to_sequence_len: "
            "false",
            "pad_to_multiple_of",
            "pad_to_sequence_len",
        )
    if config.dataloader_prefetch_factor is not None and not config.dataloader_num_workers:
        raise ConflictError(
            "dataloader_prefetch_factor needs dataloader_num_workers of 1 or more",
            "dataloader_prefetch_factor",
            "dataloader_num_workers",
        )


def _check_learning_rate(config: "TrainedConfig") -> None:
    if config.warmup_steps is not None and config.warmup_ratio is not None:
        raise ConflictError(
            "warmup_steps and warmup_ratio both say how long to warm up. Keep one",
            "warmup_steps",
            "warmup_ratio",
        )
    warms_up = bool(config.warmup_steps or config.warmup_ratio)
    if warms_up and config.lr_scheduler in SCHEDULERS_WITHOUT_WARMUP:
        raise ConflictError(
            f"lr_scheduler: {config.lr_scheduler} has no warmup. Use constant_with_warmup, or remove the warmup",
            "lr_scheduler",
            "warmup_steps" if config.warmup_steps else "warmup_ratio",
        )
    if config.lr_scheduler_kwargs and config.lr_scheduler in SCHEDULERS_WITHOUT_KWARGS:
        raise ConflictError(
            f"lr_scheduler: {config.lr_scheduler} takes no lr_scheduler_kwargs. Remove them, or choose another "
            f"scheduler",
            "lr_scheduler_kwargs",
            "lr_scheduler",
        )
    if config.cosine_min_lr_ratio is not None and config.lr_scheduler != "cosine":
        raise ConflictError(
            f"cosine_min_lr_ratio needs lr_scheduler: cosine, not {config.lr_scheduler}",
            "cosine_min_lr_ratio",
            "lr_scheduler",
        )
    if config.cosine_min_lr_ratio is not None and config.lr_scheduler_kwargs:
        raise ConflictError(
            "cosine_min_lr_ratio and lr_scheduler_kwargs both shape the schedule. Keep one",
            "cosine_min_lr_ratio",
            "lr_scheduler_kwargs",
        )


def _check_optimizer(config: "TrainedConfig") -> None:
    is_adam = config.optimizer.startswith("adamw")
    adam_keys = [
        key for key in ("adam_beta1", "adam_beta2", "adam_epsilon") if getattr(config, key) is not None
    ]
    if adam_keys and not is_adam:
        raise ConflictError(
            f"{', '.join(adam_keys)}: only AdamW has these, and optimizer is {config.optimizer}. Remove them",
            "optimizer",
            *adam_keys,
        )
    taken = OPTIM_ARGS.get(config.optimizer, set())
    unknown = sorted(set(config.optim_args or {}) - taken)
    if unknown:
        raise ConflictError(
            f"optim_args: {', '.join(unknown)}: optimizer {config.optimizer} takes "
            f"{', '.join(sorted(taken)) or 'none'} there",
            "optim_args",
            "optimizer",
        )


def _check_machine(config: "TrainedConfig") -> None:
    chosen = [key for key in ("fp16", "float32") if getattr(config, key)]
    if config.bf16 in (True, "full"):
        chosen.insert(0, "bf16")
    if len(chosen) > 1:
        raise ConflictError(f"{' and '.join(chosen)}: choose one precision", *chosen)
    legacy = ("sdp_attention", "flash_attention", "eager_attention", "flex_attention")
    attention = [key for key in legacy if getattr(config, key)]
    if config.attn_implementation is not None:
        attention.append("attn_implementation")
    if len(attention) > 1:
        raise ConflictError(f"{' and '.join(attention)}: choose one attention", *attention)
    if config.gradient_checkpointing_kwargs and not config.gradient_checkpointing:
        raise ConflictError(
            "gradient_checkpointing_kwargs without gradient_checkpointing: true has no effect",
            "gradient_checkpointing_kwargs",
            "gradient_checkpointing",
        )


def _check_rhythm(config: "TrainedConfig") -> None:
    for steps_key, epoch_key, strategy_key in (
        ("save_steps", "saves_per_epoch", "save_strategy"),
        ("eval_steps", "evals_per_epoch", "eval_strategy"),
    ):
        steps, per_epoch = getattr(config, steps_key), getattr(config, epoch_key)
        strategy = getattr(config, strategy_key)
        if steps is not None and per_epoch is not None:
            raise ConflictError(
                f"{steps_key} and {epoch_key} exclude each other. Keep one", steps_key, epoch_key
            )
        if steps is not None and steps > 1 and steps != int(steps):
            raise ConflictError(
                f"{steps_key}: {steps}: give whole steps, or a share of all steps below 1", steps_key
            )
        given = steps_key if steps is not None else epoch_key if per_epoch is not None else None
        if strategy in ("no", "epoch") and given:
            raise ConflictError(
                f"{strategy_key}: {strategy} and {given} exclude each other. Keep one", strategy_key, given
            )
        if strategy == "steps" and not given:
            raise ConflictError(f"{strategy_key}: steps needs {steps_key}", strategy_key, steps_key)
