"""The processes of a training that shares its model, as accelerate sees them, and what the Trainer is told of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from accelerate import ParallelismConfig, PartialState
from accelerate.utils import DistributedType, convert_outputs_to_fp32, patch_environment
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from transformers import TrainingArguments

from tunemill.stages.errors import SettingError
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.sharding import Fsdp, Sharding

EFFICIENT_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"
USES_FSDP, USES_DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
DEVICE = "ACCELERATE_TORCH_DEVICE"


def join(sharding: Sharding) -> None:
    """Enter the group of processes; nothing for one, and for whole copies, which the Trainer does by itself.

    Without a GPU accelerate takes processes for plain copies (DDP), and DeepSpeed's for one each, unless they are
    told what they are.
    """
    if not needs_state(sharding):
        return
    gpu = torch.cuda.is_available()
    told = {} if gpu else {DEVICE: "cpu", "DS_ACCELERATOR": "cpu"}
    with patch_environment(**told, **({USES_DEEPSPEED: "true"} if sharding.zero else {})):
        state = PartialState(backend=None if gpu else "gloo")
    if not gpu and sharding.zero is None:
        state.distributed_type = DistributedType.MULTI_GPU
    assert state.num_processes == sharding.processes, (
        f"{state.num_processes} of {sharding.processes} processes"
    )


def needs_state(sharding: Sharding) -> bool:
    """Whether accelerate has to be told of the processes before the Trainer is."""
    return sharding.fsdp is not None or sharding.zero is not None


@contextmanager
def loading(sharding: Sharding) -> Iterator[None]:
    """While open, transformers reads weights in the first process of a machine only, where FSDP is asked for that."""
    efficient = sharding.fsdp is not None and sharding.fsdp.loads_on_first
    with patch_environment(**({EFFICIENT_LOADING: "true", USES_FSDP: "true"} if efficient else {})):
        yield


def has_weights(sharding: Sharding) -> bool:
    """Whether this process has read the weights; otherwise it gets them from the first when they are shared out."""
    if sharding.fsdp is None or not sharding.fsdp.loads_on_first:
        return True
    return bool(PartialState().is_local_main_process)


def arguments_of(sharding: Sharding, precision: Precision, **settings: Any) -> TrainingArguments:
    """What the Trainer is told; `settings` are those of one process."""
    recomputed = settings.get("gradient_checkpointing", False)
    made = TrainingArguments(**settings | _arguments(sharding, precision, recomputed))
    _finish(sharding, made)
    return made


def _arguments(sharding: Sharding, precision: Precision, recomputed: bool) -> dict[str, Any]:
    if not needs_state(sharding):
        return {}
    made: dict[str, Any] = {
        "use_cpu": False,
        "accelerator_config": {"use_configured_state": True},
    }
    if sharding.fsdp is not None:
        made |= {
            "fsdp": True,
            "fsdp_config": _fsdp_config(sharding.fsdp, recomputed),
            "parallelism_config": ParallelismConfig(
                dp_replicate_size=sharding.copies,
                dp_shard_size=sharding.shards,
                cp_size=sharding.context,
            ),
        }
    if sharding.zero is not None:
        made |= {"deepspeed": deepspeed_config(sharding, precision), "bf16": False, "fp16": False}
    return made


def _finish(sharding: Sharding, made: TrainingArguments) -> None:
    """What TrainingArguments passes on to accelerate's FSDP plugin and has no name for itself."""
    if sharding.fsdp is None:
        return
    whole = torch.float32
    made.fsdp_plugin_args |= {
        # Weights are gathered, and gradients added up, as they are: how many processes there are is no precision.
        "mixed_precision_policy": MixedPrecisionPolicy(
            param_dtype=None, reduce_dtype=whole, output_dtype=None, cast_forward_inputs=False
        ),
    }
    if sharding.fsdp.offloads:
        pins = sharding.fsdp.pins and torch.cuda.is_available()
        made.fsdp_plugin_args["cpu_offload"] = CPUOffloadPolicy(pin_memory=pins)


def _fsdp_config(fsdp: Fsdp, recomputed: bool) -> dict[str, Any]:
    """Checkpoints are always written in parts; the result is gathered by itself.

    What the model recomputes already (gradient_checkpointing) FSDP does not recompute once more.
    """
    made = {
        "version": 2,
        "auto_wrap_policy": fsdp.policy,
        "reshard_after_forward": fsdp.reshards,
        "activation_checkpointing": fsdp.recomputes and not recomputed,
        "cpu_ram_efficient_loading": fsdp.loads_on_first,
        "state_dict_type": "SHARDED_STATE_DICT",
    }
    return {**made, "transformer_layer_cls_to_wrap": list(fsdp.layers)} if fsdp.layers else made


def deepspeed_config(sharding: Sharding, precision: Precision) -> dict[str, Any]:
    """DeepSpeed's config: the user's, with what the YAML says in place of what it leaves open.

    Numbers have the precision that they have in one process: float32 weights under torch's autocast.
    """
    assert sharding.zero is not None
    config = {name: value for name, value in sharding.zero.settings.items() if name not in ("bf16", "fp16")}
    for name in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        config[name] = "auto"
    config["gradient_clipping"] = "auto"
    config["zero_allow_untested_optimizer"] = True
    config["zero_force_ds_cpu_optimizer"] = False
    if precision.autocast is not None:
        name = str(precision.autocast).removeprefix("torch.")
        config["torch_autocast"] = {"enabled": True, "dtype": name}
    if sharding.zero.compiles:
        config["compile"] = {**config.get("compile", {}), "deepcompile": True}
    return config


def compute_under_autocast(sharding: Sharding, model: Any, dtype: Any) -> None:
    """Let a model that FSDP2 shards compute as accelerate lets any other: its forward under autocast, results in
    float32.
    """
    if sharding.fsdp is None or dtype is None:
        return
    place = "cuda" if torch.cuda.is_available() else "cpu"
    forward = torch.autocast(place, dtype)(type(model).forward)
    model.forward = MethodType(convert_outputs_to_fp32(forward), model)


def check_parts(sharding: Sharding, model: Any) -> None:
    """Raise SettingError where FSDP is to shard modules of a class that the model has none of."""
    if sharding.fsdp is None:
        return
    there = {type(module).__name__ for module in model.modules()}
    for name in sharding.fsdp.layers:
        if name not in there:
            layers = getattr(model, "_no_split_modules", None) or ()
            instead = f" Its layers are {', '.join(sorted(layers))}." if layers else ""
            raise SettingError(
                f"fsdp_config.transformer_layer_cls_to_wrap: {name}: the model has no module of this class.{instead}"
            )
