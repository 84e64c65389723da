"""The groups of keys that every method of training reads."""

from collections.abc import Iterator
from typing import Self

from pydantic import model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.adapter import AdapterKeys
from tunemill.stages.training.keys.attention import AttentionKeys
from tunemill.stages.training.keys.batches import BatchKeys
from tunemill.stages.training.keys.best import BestKeys
from tunemill.stages.training.keys.devices import DeviceKeys
from tunemill.stages.training.keys.frozen import FrozenKeys
from tunemill.stages.training.keys.fused import FusedKeys
from tunemill.stages.training.keys.in_parts import unproven_in_parts
from tunemill.stages.training.keys.kernels import LORA, KernelChoice, KernelKeys
from tunemill.stages.training.keys.machine import MachineKeys
from tunemill.stages.training.keys.memory import MemoryKeys
from tunemill.stages.training.keys.optimizer import OptimizerKeys
from tunemill.stages.training.keys.plugins import CUT_PLUGINS, SPECTRUM_PLUGINS
from tunemill.stages.training.keys.pruned import PrunedKeys
from tunemill.stages.training.keys.quantization import QuantizationAwareKeys
from tunemill.stages.training.keys.rates import GROKFAST_ALPHA, GROKFAST_LAMB, GROKFAST_PLUGINS, RateKeys
from tunemill.stages.training.keys.relora import ReloraKeys
from tunemill.stages.training.keys.schedule import ScheduleKeys
from tunemill.stages.training.keys.several import ALONE, unproven
from tunemill.stages.training.keys.split_sequences import unproven_beside_splitting
from tunemill.stages.training.keys.start import StartKeys
from tunemill.stages.training.keys.trace import TraceKeys
from tunemill.stages.training.keys.watch import WatchKeys

AGAIN = "a training that is interrupted begins anew"


class TrainingKeys(
    FrozenKeys,
    PrunedKeys,
    ReloraKeys,
    BestKeys,
    AdapterKeys,
    BatchKeys,
    ScheduleKeys,
    OptimizerKeys,
    RateKeys,
    MachineKeys,
    AttentionKeys,
    MemoryKeys,
    DeviceKeys,
    QuantizationAwareKeys,
    FusedKeys,
    KernelKeys,
    StartKeys,
    WatchKeys,
    TraceKeys,
):
    """What the loop reads, whatever the method; and what these groups say of each other."""

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained, in place of the model's own weights."""
        return self.adapter is not None

    @property
    def loads_bits(self) -> bool:
        """Whether the base is asked to be in 4 bits."""
        return self.load_in_4bit

    @model_validator(mode="after")
    def _spectrum_has_a_share(self) -> Self:
        if SPECTRUM_PLUGINS & set(self.plugins) and self.spectrum_top_fraction is None:
            raise ConflictError(
                "plugins: Spectrum trains a share of the linear modules; say which with spectrum_top_fraction, such as "
                "0.5",
                "spectrum_top_fraction",
                "plugins",
            )
        return self

    @property
    def kernel_choice(self) -> KernelChoice:
        """Which kernels go into the model, from where, and which are insisted on."""
        return self.choose_kernels(has_adapter=self.has_factors, compiles=bool(self.torch_compile))

    @property
    def grokfast(self) -> tuple[float, float] | None:
        """What Grokfast filters gradients with, where its plugin is named: what of the mean stays, and its weight."""
        if not GROKFAST_PLUGINS & set(self.plugins):
            return None
        alpha = GROKFAST_ALPHA if self.grokfast_alpha is None else self.grokfast_alpha
        return alpha, GROKFAST_LAMB if self.grokfast_lamb is None else self.grokfast_lamb

    @property
    def optimizers_warmup(self) -> bool:
        """Whether the optimizer warms up by itself: then a scheduler without warmup is no contradiction."""
        return self.chosen_optimizer.warms_up and not self.chosen_scheduler.warms_up

    @model_validator(mode="after")
    def _check_who_warms_up(self) -> Self:
        key = "warmup_steps" if self.warmup_steps else "warmup_ratio"
        if getattr(self, key) and not self.chosen_scheduler.warms_up and not self.optimizers_warmup:
            instead = "constant_with_warmup" if self.lr_scheduler == "constant" else "another scheduler"
            raise ConflictError(
                f"lr_scheduler: {self.lr_scheduler} has no warmup. Use {instead}, or remove the warmup",
                "lr_scheduler",
                key,
            )
        return self

    @model_validator(mode="after")
    def _check_what_an_optimizer_can(self) -> Self:
        if self.varies_rates and self.chosen_optimizer.one_rate:
            raise ConflictError(
                f"{self.varies_rates}: {self.optimizer} has one learning rate for all. Remove it, or change it",
                self.varies_rates,
                "optimizer",
            )
        if self.lr_scheduler == "greedy" and self.chosen_optimizer.made_by.startswith("torchao."):
            raise ConflictError(
                f"lr_scheduler: greedy replaces learning rates, and {self.optimizer} of torchao wants them changed in "
                f"place. Use reduce_lr_on_plateau, or another optimizer",
                "lr_scheduler",
                "optimizer",
            )
        if self.grokfast and self.chosen_optimizer.in_backward:
            raise ConflictError(
                f"plugins: Grokfast adds to gradients, and {self.optimizer} uses each at once. Remove "
                f"the plugin, or use another optimizer",
                "plugins",
                "optimizer",
            )
        return self

    @property
    def fault_of_layer_offloading(self) -> tuple[str, str] | None:
        """The key beside which frozen layers cannot wait in main memory, and why."""
        if not self.has_factors:
            reason = f"what waits is frozen but for low-rank factors, and {self.trained_otherwise}. Set adapter: lora"
            return "adapter", reason
        if self.relora:
            return "relora", "relora folds the adapter into weights that would wait elsewhere. Remove one"
        if self.load_in_8bit:
            return (
                "load_in_8bit",
                "a layer of 8 bits holds its weights beside its parameters. Use load_in_4bit",
            )
        if self.load_in_4bit and not self.gradient_checkpointing:
            reason = (
                "what a layer of 4 bits needs for the backward pass is its weights, which would stay on the device. "
                "Set gradient_checkpointing: true"
            )
            return "gradient_checkpointing", reason
        if self.torch_compile:
            return "torch_compile", "compiled layers expect their weights where they were. Remove one"
        return None

    @model_validator(mode="after")
    def _check_layer_offloading(self) -> Self:
        fault = self.fault_of_layer_offloading if self.layer_offloading else None
        if fault:
            raise ConflictError(f"layer_offloading: true: {fault[1]}", "layer_offloading", fault[0])
        return self

    @model_validator(mode="after")
    def _check_several_processes(self) -> Self:
        found = list(unproven(self)) if self.processes > 1 else []
        if found:
            said = "; ".join(reason for _, reason in found)
            raise ConflictError(
                f"with {self.processes} processes: {said}. {ALONE}", *dict.fromkeys(key for key, _ in found)
            )
        return self

    @property
    def splits_sequences(self) -> bool:
        """Whether processes may have a part of each sequence: where the loss is a sum over tokens, by themselves."""
        return False

    @model_validator(mode="after")
    def _check_model_in_parts(self) -> Self:
        for keys, reason in unproven_beside_splitting(self):
            raise ConflictError(reason, *keys)
        for key, reason in unproven_in_parts(self):
            raise ConflictError(reason, key)
        return self

    @model_validator(mode="after")
    def _check_relora_without_grokfast(self) -> Self:
        if self.relora and self.grokfast:
            raise ConflictError(
                "relora: Grokfast adds the mean of older gradients, and those of factors that were folded in say "
                "nothing of the new ones. Remove one",
                "relora",
                "plugins",
            )
        return self

    @model_validator(mode="after")
    def _check_steps_in_backward(self) -> Self:
        key = "fp16" if self.fp16 else "gradient_accumulation_steps"
        if self.processes > 1:
            # A step of theirs has several micro batches by itself, and who refuses that says so.
            return self
        if self.chosen_optimizer.in_backward and (self.fp16 or self.gradient_accumulation_steps > 1):
            why = "scaled for float16" if self.fp16 else "added up over micro batches"
            instead = "bf16: true" if self.fp16 else "1, with a larger micro_batch_size"
            raise ConflictError(
                f"{key}: {self.optimizer} uses each gradient as soon as it is computed, so gradients cannot be {why}. "
                f"Use {instead}, or another optimizer",
                key,
                "optimizer",
            )
        return self

    @model_validator(mode="after")
    def _check_adapter_precision(self) -> Self:
        if self.float16 and not self.has_factors:
            raise ConflictError(
                f"float16: true, and {self.trained_otherwise}, in float16, where AdamW's epsilon of 1e-8 is 0 and its "
                f"steps are not finite. Use fp16: true (float32 weights under autocast), bf16: true, or adapter: lora",
                "float16",
                "adapter",
            )
        if self.fp8 and self.adapter is not None:
            raise ConflictError(
                "fp8: true computes with weights that are trained, and with an adapter they are not. Use bf16: true",
                "fp8",
                "adapter",
            )
        return self

    @model_validator(mode="after")
    def _check_rounding(self) -> Self:
        if self.qat is not None and self.adapter is not None:
            raise ConflictError(
                "qat: an adapter's product is added beside the rounded weights and is in none of them, so what is "
                "trained would not be what is quantized. Remove adapter, or quantize the merged model with "
                "quantization",
                "qat",
                "adapter",
            )
        if self.qat is not None and self.fp8:
            raise ConflictError(
                "qat and fp8: each rounds what goes into linear modules. Remove one", "qat", "fp8"
            )
        return self

    @model_validator(mode="after")
    def _check_adapter_kernels(self) -> Self:
        chosen = sorted(set(self.named_kernels) & set(LORA))
        if not self.has_factors and chosen:
            raise ConflictError(
                f"kernels: {', '.join(chosen)}: a kernel for low-rank factors, but {self.trained_otherwise}. Set "
                f"adapter: lora, or remove it",
                "kernels",
                "adapter",
            )
        return self

    def needs_gpu(self) -> Iterator[Idle]:
        """Kernels that are insisted on and run on a GPU only."""
        yield from super().needs_gpu()
        for asked in self.kernel_choice.needing_gpu():
            key, _, setting = asked.partition(": ")
            if key not in self.model_fields_set:
                # A plugin that stands for the key.
                key, setting = "plugins", next(name for name in self.plugins if name in CUT_PLUGINS)
            yield Idle(key, f"{setting}: needs a GPU; without one remove it, or use kernels: auto")

    def idle(self) -> Iterator[Idle]:
        """Checkpoints that could not be resumed from, and kernels for an adapter that is not trained."""
        yield from super().idle()
        for key in ("grokfast_alpha", "grokfast_lamb"):
            if self.is_set(key) and not self.grokfast:
                yield Idle(key, "the plugin Grokfast is not named in plugins")
        if self.loraplus_lr_ratio and not self.has_factors:
            yield Idle("loraplus_lr_ratio", f"of low-rank factors, but {self.trained_otherwise}")
        if not self.chosen_optimizer.keeps_state:
            for key in ("save_steps", "saves_per_epoch", "save_strategy"):
                if self.is_set(key) and getattr(self, key) not in (0, "no"):
                    yield Idle(
                        key, f"{self.optimizer} keeps its state in no checkpoint, so none is written: {AGAIN}"
                    )
        if not self.has_factors:
            for key in (f"{name}_kernel" for name in LORA):
                if getattr(self, key):
                    yield Idle(key, f"a kernel for low-rank factors, but {self.trained_otherwise}")
