"""Going on from a checkpoint that another number of processes wrote, or processes that shared the model otherwise.

Processes that share a model by FSDP write it in parts (torch.distributed.checkpoint), one alone writes it whole. Both
are read by either.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin, load_fsdp_model, load_fsdp_optimizer
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from tunemill.stages.errors import SettingError
from tunemill.stages.models.adapter_folder import ADAPTER_WEIGHTS
from tunemill.stages.models.files import weight_files
from tunemill.stages.models.sharded_weights import METADATA, PARTS
from tunemill.stages.training.gathered_body import named_tensors
from tunemill.stages.training.keys.in_parts import DEEPSPEED_EXTRA
from tunemill.stages.training.sharding import Sharding, Zero

OPTIMIZER, WHOLE_OPTIMIZER, SCHEDULE = "optimizer_0", "optimizer.pt", "scheduler.pt"
# What DeepSpeed calls the folder of a checkpoint, inside of the Trainer's.
ZERO_FOLDERS = "global_step*"
# What DeepSpeed's tool reads the state of.
ADAMW = ("adamw_torch", "adamw_torch_fused")


def is_in_parts(checkpoint: Path) -> bool:
    """Whether processes that shared the model by FSDP wrote it."""
    return (checkpoint / PARTS / METADATA).is_file()


def is_zeros(checkpoint: Path) -> bool:
    """Whether DeepSpeed wrote it."""
    return any(checkpoint.glob(ZERO_FOLDERS))


def zero_processes(checkpoint: Path) -> int:
    """How many processes wrote a checkpoint of DeepSpeed's."""
    return len(list(checkpoint.glob("rng_state_*.pth"))) or 1


def is_of_stage_3(checkpoint: Path) -> bool:
    """Whether DeepSpeed wrote it with weights in parts."""
    return any(checkpoint.glob(f"{ZERO_FOLDERS}/zero_pp_rank_*_model_states.pt"))


def is_zeros_own(sharding: Sharding, checkpoint: Path) -> bool:
    """Whether DeepSpeed itself can go on from there: it wrote it on as many processes, and shares out as much."""
    return (
        sharding.zero is not None
        and is_zeros(checkpoint)
        and zero_processes(checkpoint) == sharding.processes
        and is_of_stage_3(checkpoint) == (sharding.zero.stage == 3)
    )


def check_readable(start: str | None, sharding: Sharding, optimizer: str, asked: str | None = None) -> None:
    """Raise SettingError where these processes cannot go on from a checkpoint.

    `asked`: the checkpoint of another run that the YAML asks to go on from.
    """
    if start is None or is_zeros_own(sharding, Path(start)):
        return
    checkpoint = Path(start)
    reason = _unreadable(checkpoint, sharding, optimizer)
    if reason is None:
        return
    if asked is not None and checkpoint == Path(asked):
        raise SettingError(
            f"resume_from_checkpoint: {checkpoint}: {reason}. Train as the run that wrote it did, give another "
            f"checkpoint, or take the key out to begin with the base model."
        )
    raise SettingError(
        f"{checkpoint}: {reason}. Start the training as before, or delete {checkpoint.parent} to begin anew."
    )


def _unreadable(checkpoint: Path, sharding: Sharding, optimizer: str) -> str | None:
    zero = sharding.zero
    if not is_zeros(checkpoint):
        if zero is None:
            return None
        if is_in_parts(checkpoint):
            return "processes that shared the model by FSDP wrote it, and DeepSpeed cannot go on from there"
        return _other_numbers(zero)
    here = f"this training runs {'without' if zero is None else 'with'} DeepSpeed on {sharding.processes}"
    wrote = f"DeepSpeed wrote it on {zero_processes(checkpoint)} processes, and {here}"
    if find_spec("deepspeed") is None:
        return f"{wrote}. To read it {DEEPSPEED_EXTRA.removeprefix('deepspeed: ')}"
    if not any(checkpoint.glob(f"{ZERO_FOLDERS}/*_optim_states.pt")):
        return f"{wrote}. With ZeRO stage 0 it goes on with as many only"
    if optimizer not in ADAMW:
        return f"{wrote}. Of {optimizer} its state goes on with as many only; of others with {' and '.join(ADAMW)}"
    return None if zero is None else _other_numbers(zero)


def _other_numbers(zero: Zero) -> str | None:
    """Why DeepSpeed can go on only from what it wrote with as many processes."""
    if zero.stage == 0:
        return "with ZeRO stage 0 DeepSpeed goes on from what it wrote on as many processes only"
    offload = zero.settings.get("zero_optimization", {}).get("offload_optimizer") or {}
    if offload.get("device") == "nvme":
        return "with offload_optimizer to nvme DeepSpeed goes on from what it wrote on as many processes only"
    return None


def plugin_of_parts() -> FullyShardedDataParallelPlugin:
    """What accelerate has to be told to read parts into a model that is in one piece."""
    return FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT")


def load_parts(trainer: Any, checkpoint: Path) -> None:
    """Weights in parts into a model in one piece."""
    load_fsdp_model(plugin_of_parts(), trainer.accelerator, trainer.model, str(checkpoint), adapter_only=True)


def load_optimizer_parts(trainer: Any, checkpoint: Path) -> None:
    """The state of an optimizer in parts into one over a model in one piece."""
    load_fsdp_optimizer(
        plugin_of_parts(), trainer.accelerator, trainer.optimizer, trainer.model, str(checkpoint),
        adapter_only=True,
    )  # fmt: skip


def load_whole(model: Any, checkpoint: Path) -> None:
    """Weights in one piece into a model in parts: each process takes its own out of the files."""
    if isinstance(model, PeftModel):
        held = get_peft_model_state_dict(model, state_dict=named_tensors(model), save_embedding_layers=False)
        stored = load_file(checkpoint / ADAPTER_WEIGHTS)
    else:
        held = named_tensors(model)
        stored = {name: one for path in weight_files(checkpoint) for name, one in load_file(path).items()}
    with torch.no_grad():
        for name, tensor in stored.items():
            held[name].copy_(part_of(tensor, held[name]))


def load_schedule(scheduler: Any, checkpoint: Path) -> None:
    """Where the schedule stood."""
    scheduler.load_state_dict(torch.load(checkpoint / SCHEDULE, weights_only=True))


def save_schedule(scheduler: Any, checkpoint: Path) -> None:
    """Where the schedule stands."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    torch.save(scheduler.state_dict(), checkpoint / SCHEDULE)


def load_whole_optimizer(trainer: Any, checkpoint: Path) -> None:
    """The state of an optimizer in one piece into one over parameters in parts."""
    optimizer = trainer.optimizer
    stored = torch.load(checkpoint / WHOLE_OPTIMIZER, map_location="cpu", weights_only=True)
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    numbers = [number for group in stored["param_groups"] for number in group["params"]]
    held = dict(zip(numbers, parameters, strict=True))
    for number, state in stored["state"].items():
        stored["state"][number] = {
            name: part_of(value, held[number]) if _is_like(value, held[number]) else value
            for name, value in state.items()
        }
    optimizer.load_state_dict(stored)


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """What of a whole tensor this process holds where another one is in parts; it is asked of no other process."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    local = tensor.to(like.device)
    return distribute_tensor(local, like.device_mesh, like.placements, src_data_rank=None)
