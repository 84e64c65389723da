"""What the `dpo` stage reads from the YAML."""

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Runtime
from tunemill.stages.training.keys.pairs import COMPARED
from tunemill.stages.training.keys.reference import ReferenceKeys

LossType = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
# Those that read the share of pairs which are the wrong way round.
SMOOTHED = frozenset({"exo_pair", "robust", "aot", "aot_unpaired"})
# Those that sort the pairs of a micro batch, so that no pair has a loss of its own.
SORTED = frozenset({"aot", "aot_unpaired"})
SFT: LossType = "sft"


class DpoConfig(ReferenceKeys):
    """Direct preference optimization, full or LoRA."""

    own_figures: ClassVar[tuple[str, ...]] = (*COMPARED, "nll_loss")

    dpo_loss_type: list[LossType] = Field(
        ["sigmoid"], min_length=1, description="the loss by TRL's names; several are added up"
    )
    dpo_loss_weights: list[float] | None = Field(
        None, description="a weight for each of dpo_loss_type; unset: 1"
    )
    dpo_label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of pairs that are the wrong way round, for the losses that read it",
    )
    dpo_use_weighting: bool = Field(
        False, description="WPO: a pair counts as much as the model would say its answers by itself"
    )
    dpo_norm_loss: Runtime[bool | None] = Field(
        None, description="gone in TRL, so it is refused: write dpo_loss_type: [sigmoid_norm]"
    )
    rpo_alpha: float | None = Field(
        None, ge=0, description="older way to add sft to dpo_loss_type, with this weight"
    )
    dpo_padding_free: bool = Field(
        False, description="sequences of a batch in one line, kept apart by position ids, in place of padding"
    )
    dpo_use_logits_to_keep: Runtime[bool | None] = Field(
        None, description="asks for nothing: logits are computed from the first answer on where the model can"
    )

    dpo_use_liger_kernel: Runtime[bool | None] = Field(
        None,
        description="asks for nothing: a loss that is fused by Liger Kernel is the same but for its memory",
    )

    @field_validator("dpo_loss_type", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @property
    def flattens(self) -> bool:
        """As `dpo_padding_free` says."""
        return self.dpo_padding_free

    @property
    def losses(self) -> list[tuple[LossType, float]]:
        """The losses that are added up, with their weights."""
        weights = self.dpo_loss_weights or [1.0] * len(self.dpo_loss_type)
        added: list[tuple[LossType, float]] = [(SFT, self.rpo_alpha)] if self.rpo_alpha else []
        return [*zip(self.dpo_loss_type, weights, strict=True), *added]

    @model_validator(mode="after")
    def _check_losses(self) -> Self:
        types = self.dpo_loss_type
        if self.dpo_loss_weights is not None and len(self.dpo_loss_weights) != len(types):
            raise ConflictError(
                f"dpo_loss_weights: {len(self.dpo_loss_weights)} weights for {len(types)} losses. Give one for each of "
                f"dpo_loss_type",
                "dpo_loss_weights",
                "dpo_loss_type",
            )
        if len(set(types)) < len(types) or (self.rpo_alpha and SFT in types):
            key = "rpo_alpha" if self.rpo_alpha and SFT in types else "dpo_loss_type"
            raise ConflictError("dpo_loss_type: a loss stands there twice. Add up its weights", key)
        if "exo_pair" in types and not self.dpo_label_smoothing:
            raise ConflictError(
                "dpo_loss_type: exo_pair needs dpo_label_smoothing above 0; its paper recommends 0.001",
                "dpo_label_smoothing",
                "dpo_loss_type",
            )
        if "robust" in types and self.dpo_label_smoothing >= 0.5:
            raise ConflictError(
                f"dpo_label_smoothing: {self.dpo_label_smoothing}: of robust it must be below 0.5, as with more wrong "
                f"pairs than right ones nothing can be learned",
                "dpo_label_smoothing",
                "dpo_loss_type",
            )
        if self.dpo_use_weighting and (chosen := SORTED & set(types)):
            raise ConflictError(
                f"dpo_use_weighting: {sorted(chosen)[0]} sorts the pairs of a batch, so that no pair has a loss that "
                f"could be weighted. Remove one",
                "dpo_use_weighting",
                "dpo_loss_type",
            )
        if self.auto_find_batch_size and (chosen := SORTED & set(types)):
            raise ConflictError(
                f"auto_find_batch_size: {sorted(chosen)[0]} sorts the pairs of a micro batch, so smaller ones have "
                f"another loss. Remove one, or set micro_batch_size to what fits",
                "auto_find_batch_size",
                "dpo_loss_type",
            )
        if self.dpo_norm_loss:
            raise ConflictError(
                "dpo_norm_loss: write dpo_loss_type: [sigmoid_norm], which is what TRL makes of it",
                "dpo_norm_loss",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """A share of wrong pairs that no loss reads, and what is done either way."""
        yield from super().idle()
        if self.dpo_label_smoothing and not SMOOTHED & set(self.dpo_loss_type):
            names = ", ".join(sorted(SMOOTHED))
            yield Idle("dpo_label_smoothing", f"only these of dpo_loss_type read it: {names}")
        if self.dpo_use_logits_to_keep is not None:
            yield Idle(
                "dpo_use_logits_to_keep", "logits are computed from the first answer on where the model can"
            )
        if self.dpo_use_liger_kernel:
            yield Idle(
                "dpo_use_liger_kernel",
                "Liger Kernel's fused loss saves logits; here only those of answers are computed, and its other "
                "kernels have keys of their own, such as liger_rms_norm",
            )
        if self.dpo_norm_loss is False:
            yield Idle(
                "dpo_norm_loss", "answers are compared by their sums unless dpo_loss_type says otherwise"
            )
