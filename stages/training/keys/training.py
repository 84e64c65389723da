"""The groups of keys that every method of training reads."""

from collections.abc import Iterator
from typing import Self

from pydantic import model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.adapter import AdapterKeys
from tunemill.stages.training.keys.batches import BatchKeys
from tunemill.stages.training.keys.devices import DeviceKeys
from tunemill.stages.training.keys.kernels import LORA, KernelChoice, KernelKeys
from tunemill.stages.training.keys.machine import MachineKeys
from tunemill.stages.training.keys.optimizer import OptimizerKeys
from tunemill.stages.training.keys.rhythm import RhythmKeys
from tunemill.stages.training.keys.schedule import ScheduleKeys


class TrainingKeys(
    AdapterKeys, BatchKeys, ScheduleKeys, OptimizerKeys, MachineKeys, DeviceKeys, KernelKeys, RhythmKeys
):
    """What the loop reads, whatever the method; and what these groups say of each other."""

    @property
    def kernel_choice(self) -> KernelChoice:
        """Which kernels go into the model, from where, and which are insisted on."""
        return self.choose_kernels(has_adapter=self.adapter is not None, compiles=bool(self.torch_compile))

    @model_validator(mode="after")
    def _check_adapter_kernels(self) -> Self:
        chosen = sorted(set(self.named_kernels) & set(LORA))
        if self.adapter is None and chosen:
            raise ConflictError(
                f"kernels: {', '.join(chosen)}: a kernel for adapters, but adapter is unset, so every parameter is "
                f"trained. Set adapter: lora, or remove it",
                "kernels",
                "adapter",
            )
        return self

    def needs_gpu(self) -> Iterator[Idle]:
        """Kernels that are insisted on and run on a GPU only."""
        yield from super().needs_gpu()
        for asked in self.kernel_choice.needing_gpu():
            key, _, setting = asked.partition(": ")
            given = key if key in self.model_fields_set else "plugins"
            yield Idle(given, f"{setting}: needs a GPU; without one remove it, or use kernels: auto")

    def idle(self) -> Iterator[Idle]:
        """Kernels for an adapter that is not trained."""
        yield from super().idle()
        if self.adapter is None:
            for key in (f"{name}_kernel" for name in LORA):
                if getattr(self, key):
                    yield Idle(key, "a kernel for adapters, and adapter is unset: every parameter is trained")
