"""What the `sft` stage reads from the YAML."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.kernels import KernelName
from tunemill.stages.training.keys.pose import PoseKeys
from tunemill.stages.training.keys.texts import TextKeys
from tunemill.stages.training.keys.trainer_class import TrainerClassKeys


class SftConfig(TextKeys, PoseKeys, TrainerClassKeys):
    """Supervised fine-tuning, full or LoRA. Names and defaults are Axolotl's."""

    use_eaft: bool | None = Field(
        None, description="EAFT: a token counts as much as the model is undecided there (its entropy)"
    )
    eaft_alpha: NonNegativeFloat = Field(
        1.0, description="EAFT: exponent of the entropy; 0 is plain training"
    )
    eaft_k: PositiveInt = Field(20, description="EAFT: the entropy is that of so many largest logits")

    @property
    def splits_sequences(self) -> bool:
        """The model's loss is a sum over tokens."""
        return True

    @property
    def automatic_losses(self) -> tuple[KernelName, ...]:
        """None beside EAFT, which weighs tokens by logits that a fused loss never makes."""
        return () if self.use_eaft else super().automatic_losses

    @model_validator(mode="after")
    def _check_one_loss(self) -> Self:
        if not self.use_eaft:
            return self
        others = [one.key.partition(":")[0] for one in self.loss_kernels]
        others += ["kernels"] if "linear_cross_entropy" in self.named_kernels else []
        others += ["trainer_cls"] if self.trainer_cls else []
        if others:
            # A plugin is enough for Cut Cross Entropy.
            key = others[0] if others[0] in self.model_fields_set else "plugins"
            raise ConflictError(
                f"use_eaft weighs the loss of each token, and {others[0]} computes another loss. Keep one",
                "use_eaft",
                key,
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """Settings of EAFT without it."""
        yield from super().idle()
        for key in ("eaft_alpha", "eaft_k"):
            if self.is_set(key) and not self.use_eaft:
                yield Idle(key, "use_eaft is off")
