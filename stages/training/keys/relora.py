"""The keys of ReLoRA: an adapter that is folded into the base and starts anew, again and again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError, Fault, Idle, Runtime
from tunemill.stages.training.keys.adapter import AdapterKeys
from tunemill.stages.training.keys.factors import PLAIN_STARTS
from tunemill.stages.training.keys.optimizer import OptimizerKeys
from tunemill.stages.training.keys.schedule import ScheduleKeys
from tunemill.stages.training.keys.start import StartKeys

# Optimizers whose moments can be pruned one by one: PyTorch's AdamW and that of bitsandbytes.
PRUNABLE = ("torch.optim:AdamW", "bitsandbytes.optim:AdamW")
# As in Axolotl, where the YAML does not say.
PRUNED, RESET = 0.9, 0.999
# What was folded in, in a checkpoint.
FILE = "relora.pt"


class ReloraKeys(AdapterKeys, ScheduleKeys, OptimizerKeys, StartKeys):
    """Many small adapters, one after the other, in place of one."""

    relora: bool = Field(
        False,
        description="ReLoRA: after each jagged_restart_steps the adapter is folded into the base in memory (in 4 or 8 "
        "bits: kept beside it) and starts anew; what is saved is one adapter, the sum of all",
    )
    relora_prune_method: Literal["magnitude", "random", "reset"] = Field(
        "magnitude",
        description="what the optimizer forgets of the factors at a restart: the entries with the smallest first "
        "moments, or random ones; reset: nearly all, at random",
    )
    relora_prune_ratio: float | None = Field(
        None,
        ge=0,
        le=1,
        description="the share of these entries; unset: 0.9, with relora_prune_method: reset 0.999",
    )
    relora_cpu_offload: Runtime[bool] = Field(
        False, description="keep what was folded in main memory: that is where it always is"
    )

    @property
    def pruned_share(self) -> float:
        """The share of the factors' entries in the optimizer that a restart forgets."""
        if self.relora_prune_ratio is not None:
            return self.relora_prune_ratio
        return RESET if self.relora_prune_method == "reset" else PRUNED

    @model_validator(mode="after")
    def _check_relora(self) -> Self:
        if not self.relora:
            return self
        if not self.has_factors:
            raise ConflictError(
                f"relora: true folds low-rank factors into the base again and again, but {self.trained_otherwise}. Set "
                f"adapter: lora, or remove relora",
                "relora",
                "adapter",
            )
        if self.jagged_restart_steps is None:
            raise ConflictError(
                "relora: true needs jagged_restart_steps: after how many steps the adapter is folded in and starts "
                "anew, with the learning rate",
                "relora",
                "jagged_restart_steps",
            )
        self._check_factors_of_relora()
        if self.chosen_optimizer.made_by not in PRUNABLE:
            raise ConflictError(
                f"relora: a restart prunes the two moments that Adam keeps of each weight, and {self.optimizer} keeps "
                f"something else. Use adamw_torch_fused or adamw_bnb_8bit",
                "relora",
                "optimizer",
            )
        return self

    def _check_factors_of_relora(self) -> None:
        if self.peft_layer_replication:
            raise ConflictError(
                "relora: with peft_layer_replication several layers share their weights, and what is folded in for one "
                "would change the others. Remove one",
                "relora",
                "peft_layer_replication",
            )
        if self.peft_use_dora:
            raise ConflictError(
                "relora: the sum of several DoRA adapters is no adapter, since each divides by the norm of the weights "
                "that it met. Remove peft_use_dora, or relora",
                "relora",
                "peft_use_dora",
            )
        start = self.factor_start
        if start is not True and start not in PLAIN_STARTS:
            shown = str(start).lower()
            raise ConflictError(
                f"relora: at each restart the model goes on from where it was, and peft_init_lora_weights: {shown} "
                f"starts with factors that are not drawn, or whose product is not zero. Use true, "
                f"{' or '.join(PLAIN_STARTS)}",
                "relora",
                "peft_init_lora_weights",
            )

    def faults(self) -> Iterator[Fault]:
        """A checkpoint of another run whose base is not the one that it would be given."""
        yield from super().faults()
        folder = self.resume_from_checkpoint and Path(self.resume_from_checkpoint)
        if not folder or not folder.is_dir() or (folder / FILE).is_file() == self.relora:
            return
        if self.relora:
            reason = f"{folder} has no {FILE}: it is of a training without relora. Remove relora, or go on from another"
        else:
            reason = (
                f"{folder} has a {FILE}: its adapter belongs to a base with more folded in. Set relora: true"
            )
        yield Fault("resume_from_checkpoint", reason)

    def idle(self) -> Iterator[Idle]:
        """What belongs to restarts that there are none of, and a place that is no choice."""
        yield from super().idle()
        if not self.relora:
            for key in ("relora_prune_method", "relora_prune_ratio", "relora_cpu_offload"):
                if self.is_set(key):
                    yield Idle(key, "relora is unset, so no adapter is folded in while training")
        elif self.relora_cpu_offload:
            yield Idle("relora_cpu_offload", "what was folded in is always kept in main memory")
