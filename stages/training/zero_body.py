"""Going on from DeepSpeed's checkpoints with other processes, and with DeepSpeed from those of others.

A checkpoint of ZeRO is made into whole tensors by DeepSpeed's own tool (ds_to_universal), a file of each. DeepSpeed's
own loader of them is not used: it gives all parameters the weight decay of the first group.
"""

import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.parts_body import (
    SCHEDULE,
    WHOLE_OPTIMIZER,
    ZERO_FOLDERS,
    load_whole,
    part_of,
)

UNIVERSAL = "universal"
# What an optimizer holds of each parameter, by its name: tensors of its shape, and how many steps it has taken.
States = Callable[[str], dict[str, Tensor]]


@dataclass(frozen=True)
class Stretch:
    """What of a parameter stands where in a tensor in which a process keeps its parts of many."""

    parameter: Tensor
    at: int
    start: int
    count: int


def universal_of(checkpoint: Path) -> Path:
    """A folder with each tensor of a checkpoint of ZeRO whole, beside it. All processes call this; the first writes."""
    folder = checkpoint.parent / UNIVERSAL / checkpoint.name
    with ranks.first_before_others():
        if ranks.is_first() and not folder.is_dir():
            # Only where DeepSpeed was used: it takes seconds to import.
            from deepspeed.checkpoint import ds_to_universal

            begun = folder.with_name(f"{checkpoint.name}.part")
            shutil.rmtree(folder.parent, ignore_errors=True)
            begun.mkdir(parents=True)
            (written,) = checkpoint.glob(ZERO_FOLDERS)
            ds_to_universal.main(
                Namespace(
                    input_folder=str(written), output_folder=str(begun), num_extract_workers=1, num_merge_workers=1,
                    keep_temp_folder=False, strict=True, inject_missing_state=True,
                )
            )  # fmt: skip
            begun.rename(folder)
    return folder / "zero"


def forget_universal(checkpoint: Path) -> None:
    """Remove what `universal_of` has written, once all processes have read it."""
    ranks.wait_for_all()
    if ranks.is_first():
        shutil.rmtree(checkpoint.parent / UNIVERSAL)


def _stored(folder: Path, name: str, what: str) -> Tensor:
    found = torch.load(folder / name / f"{what}.pt", map_location="cpu", weights_only=False)
    tensor: Tensor = found["param"] if isinstance(found, Mapping) else found
    return tensor


def load_zero_weights(model: Any, checkpoint: Path) -> None:
    """The weights that a checkpoint of ZeRO holds, into a model of which this process has all, or FSDP's parts."""
    folder = universal_of(checkpoint)
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(part_of(_stored(folder, name, "fp32").view(parameter.shape), parameter))


def load_zero_optimizer(trainer: Any, checkpoint: Path, steps: int) -> None:
    """The state that a checkpoint of ZeRO holds, into an optimizer over such a model; and where the schedule stood."""
    states = states_of_zero(checkpoint, steps)
    for name, parameter in trained(trainer.model).items():
        trainer.optimizer.state[parameter] = {
            key: part_of(value.view(parameter.shape), parameter) if value.dim() else value
            for key, value in states(name).items()
        }
    resume_schedule(trainer.lr_scheduler, checkpoint, filled_groups(trainer.optimizer))
    forget_universal(checkpoint)


def states_of_zero(checkpoint: Path, steps: int) -> States:
    """What AdamW held of each parameter in a checkpoint of ZeRO that was written after so many `steps`."""
    folder = universal_of(checkpoint)

    def states(name: str) -> dict[str, Tensor]:
        moments = {key: _stored(folder, name, key) for key in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.tensor(float(steps)), **moments}

    return states


def states_of_whole(checkpoint: Path, model: Any, optimizer: Any) -> States:
    """What an optimizer of one process held of each parameter, by the order of `optimizer`, made as that one was."""
    stored = torch.load(checkpoint / WHOLE_OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
    names = {id(parameter): name for name, parameter in trained(model).items()}
    order = [names[id(one)] for group in optimizer.param_groups for one in group["params"]]
    numbers = [number for group in stored["param_groups"] for number in group["params"]]
    places = dict(zip(order, numbers, strict=True))

    def states(name: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = stored["state"].get(places[name], {})
        return found

    return states


def trained(model: Any) -> dict[str, Tensor]:
    """The parameters that are trained, by their names without what wraps modules."""
    return {
        name.replace("_checkpoint_wrapped_module.", ""): one
        for name, one in model.named_parameters()
        if one.requires_grad
    }


def go_on_with_zero(trainer: Any, checkpoint: Path, prepare: Callable[[], Any], steps: int) -> Any:
    """`prepare` a Trainer for DeepSpeed with the weights of a checkpoint that is not its own, and the rest after it.

    Returns what `prepare` does.
    """
    of_zero = any(checkpoint.glob(ZERO_FOLDERS))
    model, plain = trainer.model, trainer.create_optimizer()
    (load_zero_weights if of_zero else load_whole)(model, checkpoint)
    states = states_of_zero(checkpoint, steps) if of_zero else states_of_whole(checkpoint, model, plain)
    filled = filled_groups(plain)
    prepared = prepare()
    fill(trainer.model_wrapped.optimizer, {id(one): name for name, one in trained(model).items()}, states)
    resume_schedule(trainer.lr_scheduler, checkpoint, filled)
    if of_zero:
        forget_universal(checkpoint)
    return prepared


def fill(zero: Any, names: Mapping[int, str], states: States) -> None:
    """Give the optimizer of ZeRO what was held of each parameter: of each the part that this process keeps."""
    for flat, stretches in flats(zero):
        kept: dict[str, Tensor] = {}
        for one in stretches:
            for key, value in states(names[id(one.parameter)]).items():
                if not value.dim():
                    kept[key] = value.clone()
                    continue
                held = kept.setdefault(key, torch.zeros_like(flat, dtype=torch.float32))
                held.narrow(0, one.at, one.count).copy_(value.view(-1).narrow(0, one.start, one.count))
        zero.optimizer.state[flat] = kept


def flats(zero: Any) -> Iterator[tuple[Tensor, list[Stretch]]]:
    """The tensors that ZeRO's optimizer steps, and what stands in each."""
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
            yield flat, [_stretch(zero, parameter) for parameter in group]
        return
    for flat, group in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True):
        mapped = [(one, one._hp_mapping) for one in group if one._hp_mapping is not None]
        yield (
            flat,
            [
                Stretch(one, place.hp_fragment_address.start, place.lp_fragment_address.start,
                        place.hp_fragment_address.numel)
                for one, place in mapped
            ],
        )  # fmt: skip


def _stretch(zero: Any, parameter: Any) -> Stretch:
    """Of ZeRO-3: the processes have equally much of each parameter, but for what is missing in the last."""
    _, at, size = zero.grad_position[zero.get_param_id(parameter)]
    start = min(ranks.number() * int(size), int(parameter.ds_numel))
    return Stretch(parameter, int(at), start, min(int(size), int(parameter.ds_numel) - start))


def filled_groups(optimizer: Any) -> list[int]:
    """Which groups of an optimizer have parameters: DeepSpeed keeps these alone."""
    return [number for number, group in enumerate(optimizer.param_groups) if group["params"]]


def resume_schedule(scheduler: Any, checkpoint: Path, filled: Sequence[int]) -> None:
    """Where the schedule stood, and the learning rates of then; `filled` are the groups that DeepSpeed keeps."""
    stored = torch.load(checkpoint / SCHEDULE, weights_only=True)
    for key, own in scheduler.state_dict().items():
        found = stored.get(key)
        if not isinstance(own, list) or not isinstance(found, list) or len(own) == len(found):
            continue
        if len(found) > len(own):
            stored[key] = [found[number] for number in filled]
        else:
            placed = dict(zip(filled, found, strict=True))
            stored[key] = [placed.get(number, value) for number, value in enumerate(own)]
    scheduler.load_state_dict(stored)
    for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
