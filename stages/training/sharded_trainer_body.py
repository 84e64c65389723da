"""The Trainer where processes share the model: its checkpoints are in parts, and read whatever wrote them."""

from functools import partial
from pathlib import Path
from typing import Any

from transformers import Trainer

from tunemill.stages.training.background_body import Background
from tunemill.stages.training.parts_body import (
    is_in_parts,
    is_zeros,
    is_zeros_own,
    load_optimizer_parts,
    load_parts,
    load_schedule,
    load_whole,
    load_whole_optimizer,
    save_schedule,
)
from tunemill.stages.training.sharding import Sharding
from tunemill.stages.training.zero_body import go_on_with_zero, load_zero_optimizer, load_zero_weights


class ShardedTrainer(Trainer):  # type: ignore[misc]
    """The Trainer, whose checkpoints go on from one process to several, and back."""

    background: Background | None = None
    """What writes parts while the training goes on, if anything does."""
    sharding = Sharding()
    """How processes share the model."""

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, start: str | None) -> Any:
        prepare = partial(super()._prepare_for_training, max_steps, train_dataloader)
        if self.sharding.zero is None or start is None or is_zeros_own(self.sharding, Path(start)):
            return prepare(start)
        return go_on_with_zero(self, Path(start), partial(prepare, None), self.state.global_step)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Into a checkpoint; nothing where the model is in parts, which are written with the optimizer's."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.background is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        self.background.write(Path(output_dir), self.model, self.optimizer)
        if self.args.should_save:
            save_schedule(self.lr_scheduler, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint = Path(resume_from_checkpoint)
        if is_zeros(checkpoint):
            load_zero_weights(self.model, checkpoint)
        elif is_in_parts(checkpoint) and not self.is_fsdp_enabled:
            load_parts(self, checkpoint)
        elif self.is_fsdp_enabled and not is_in_parts(checkpoint):
            load_whole(self.model, checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and not self.is_deepspeed_enabled and is_zeros(Path(checkpoint)):
            load_zero_optimizer(self, Path(checkpoint), self.state.global_step)
            return
        parts = checkpoint is not None and is_in_parts(Path(checkpoint))
        if checkpoint is None or self.is_deepspeed_enabled or parts == self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        (load_optimizer_parts if parts else load_whole_optimizer)(self, Path(checkpoint))
        load_schedule(self.lr_scheduler, Path(checkpoint))
