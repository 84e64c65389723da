"""Where activations wait for the backward pass, and what happens when memory runs out."""

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tunemill.stages.errors import UserError
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.keys.training import TrainingKeys

# What is smaller stays where it is: a copy would cost more than its place.
SMALLEST_BYTES = 1024
CPU_ALLOCATOR = "can't allocate memory"


class Offloading:
    """Copies what a forward pass keeps for the backward pass to main memory, or into files, and back.

    Parameters stay: they are there anyway.
    """

    def __init__(self, to: Literal["memory", "disk"], folder: Path) -> None:
        self.to = to
        self._folder = folder
        self.moved = 0
        """Tensors that were copied away."""

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """While open, what is kept goes away; it may come back later."""
        with saved_tensors_hooks(*self.hooks(model)):
            yield

    def hooks(self, model: Any) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
        """What moves a tensor away, and what brings it back, for one pass."""
        stays = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        # Files go with the last tensor that points at them.
        folder = tempfile.TemporaryDirectory(dir=self._folder) if self.to == "disk" else None
        names = iter(range(1 << 62))

        def pack(tensor: Tensor) -> Any:
            small = tensor.numel() * tensor.element_size() < SMALLEST_BYTES
            if small or tensor.untyped_storage().data_ptr() in stays:
                return tensor
            if folder is not None:
                self.moved += 1
                file = Path(folder.name) / f"{next(names)}.pt"
                torch.save(tensor.detach().cpu().clone(), file)
                return tensor.device, file, folder
            if tensor.device.type == "cpu":
                return tensor
            self.moved += 1
            there = torch.empty(tensor.size(), dtype=tensor.dtype, layout=tensor.layout, pin_memory=True)
            there.copy_(tensor)
            return tensor.device, there, None

        def unpack(packed: Any) -> Tensor:
            if isinstance(packed, Tensor):
                return packed
            device, kept, _ = packed
            tensor: Tensor = torch.load(kept, weights_only=True) if isinstance(kept, Path) else kept
            return tensor.to(device, non_blocking=True)

        return pack, unpack


def offloading_of(config: TrainingKeys, out: Workspace) -> Offloading | None:
    """Where activations wait; None: where they are."""
    if not config.activation_offloading:
        return None
    return Offloading("disk" if config.activation_offloading == "disk" else "memory", out.checkpoints)


def fitting_memory(attempt: Callable[[TrainingKeys], None], config: TrainingKeys, report: Report) -> None:
    """Train; where memory runs out, again with smaller micro batches if `auto_find_batch_size` asks for that.

    Raises UserError that names what to turn. Checkpoints and data stay.
    """
    while (reason := _out_of_memory(attempt, config)) is not None:
        smaller = halved(config) if config.auto_find_batch_size else None
        if smaller is None:
            raise UserError(f"memory ran out: {reason}. {advice(config)}")
        # What the failed attempt held goes before the next one begins.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        config = smaller
        report.log(
            f"memory ran out; going on with micro_batch_size: {config.micro_batch_size} and "
            f"gradient_accumulation_steps: {config.gradient_accumulation_steps}: the same sequences in a step, "
            f"added up in another order, so that its last bits are those of this machine"
        )
    if config.auto_find_batch_size:
        report.summary(
            micro_batch_size=config.micro_batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
        )


def _out_of_memory(attempt: Callable[[TrainingKeys], None], config: TrainingKeys) -> str | None:
    """How memory ran out in an attempt, in one line; None where it did not."""
    try:
        attempt(config)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        return (str(error).strip().splitlines() or ["no more main memory"])[0].rstrip(".")
    return None


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, on a device or beside it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or CPU_ALLOCATOR in str(error)


def halved(config: TrainingKeys) -> TrainingKeys | None:
    """The same steps in micro batches of half the size, or of the next size that divides it; None below one."""
    size = config.micro_batch_size
    smaller = next((part for part in range(size // 2, 0, -1) if size % part == 0), None)
    if smaller is None:
        return None
    steps = config.gradient_accumulation_steps * (size // smaller)
    return config.model_copy(update={"micro_batch_size": smaller, "gradient_accumulation_steps": steps})


def advice(config: TrainingKeys) -> str:
    """What spares memory and is not set yet, what costs least first."""
    smaller = halved(config)
    settings = vars(config)
    turns = [
        smaller
        and f"micro_batch_size: {smaller.micro_batch_size} with gradient_accumulation_steps: "
        f"{smaller.gradient_accumulation_steps} (the same steps)",
        not config.gradient_checkpointing and "gradient_checkpointing: true",
        settings.get("chunked_cross_entropy") is False
        and not settings.get("cut_cross_entropy")
        and not torch.cuda.is_available()
        and "chunked_cross_entropy: true",
        config.gradient_checkpointing and not config.activation_offloading and "activation_offloading: true",
        config.adapter is not None
        and not config.layer_offloading
        and config.fault_of_layer_offloading is None
        and torch.cuda.is_available()
        and "layer_offloading: true",
        not (config.is_pure_bfloat16 or config.bf16 is True or config.fp8 or config.fp16) and "bf16: true",
        settings.get("use_vllm")
        and torch.cuda.is_available()
        and "a smaller trl.vllm_gpu_memory_utilization, where vLLM is on the same GPU",
        "8bit" not in config.optimizer and config.optimizer != "adafactor" and "optimizer: adafactor",
        "sequence_len" in settings and f"a smaller sequence_len than {settings['sequence_len']}",
        config.adapter is None and "adapter: lora",
    ]
    listed = "; ".join(f"{number}. {turn}" for number, turn in enumerate(filter(None, turns), 1))
    return f"Turn, in this order: {listed}. Checkpoints and data are kept." if listed else ""
