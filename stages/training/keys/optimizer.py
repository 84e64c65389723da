"""The keys of the optimizer, and of what is done to gradients and embeddings."""

from collections.abc import Iterator
from typing import Any, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from tunemill.stages.choices import nearest
from tunemill.stages.declaration import ConflictError, Idle, StageConfig
from tunemill.stages.training.arguments import Kinds, read_arguments, split_text
from tunemill.stages.training.optimizers.table import OPTIMIZERS, OUT_OF_REACH, Optimizer

OptimizerName = Literal[
    "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "muon", "adamw_bnb_8bit",
    "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "lion_32bit", "lion_8bit", "paged_lion_32bit",
    "paged_lion_8bit", "ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit",
    "rmsprop_bnb", "rmsprop_bnb_32bit", "rmsprop_bnb_8bit", "adamw_torch_4bit", "adamw_torch_8bit",
    "ao_adamw_4bit", "ao_adamw_8bit", "ao_adamw_fp8", "galore_adamw", "galore_adamw_8bit", "galore_adafactor",
    "galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "apollo_adamw",
    "apollo_adamw_layerwise", "lomo", "adalomo", "grokadamw", "schedule_free_adamw", "schedule_free_radam",
    "schedule_free_sgd", "stable_adamw", "optimi_adamw", "came_pytorch", "adopt_adamw", "adamc", "flash_adamw",
    "flash_adam", "flash_sgd", "flash_sgdw", "flash_lion",
]  # fmt: skip
assert set(get_args(OptimizerName)) == set(OPTIMIZERS), "the names and the table say the same"
BETA_KEYS = ("adam_beta1", "adam_beta2", "adam_beta3")
EPSILON_KEYS = ("adam_epsilon", "adam_epsilon2")


class OptimizerKeys(StageConfig):
    """How gradients become weights."""

    optimizer: OptimizerName = Field("adamw_torch_fused", description="optimizer, by its name in Axolotl")
    optim_args: dict[str, Any] | str | None = Field(None, description='more arguments, also as "a=1,b=2"')
    optim_target_modules: list[str] | str | None = Field(
        None,
        description="galore_*, apollo_*: the linear layers of low rank, by name, by regular expression, or all_linear",
    )
    adam_beta1: float | None = Field(None, ge=0, lt=1, description="Adam and its kind; unset: 0.9")
    adam_beta2: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Adam and its kind; unset: 0.999, or what the optimizer prefers",
    )
    adam_beta3: float | None = Field(None, ge=0, lt=1, description="came_pytorch, ademamix; unset: 0.9999")
    adam_epsilon: PositiveFloat | None = Field(
        None, description="Adam and its kind; unset: 1e-8, or what the optimizer prefers"
    )
    adam_epsilon2: PositiveFloat | None = Field(None, description="came_pytorch; unset: 1e-16")
    weight_decay: NonNegativeFloat = Field(0.0, description="decay of weights, not of biases and norms")
    max_grad_norm: NonNegativeFloat = Field(
        1.0, description="longer gradients are shortened to this; 0: never"
    )
    neftune_noise_alpha: PositiveFloat | None = Field(None, description="NEFTune noise on the embeddings")

    @property
    def chosen_optimizer(self) -> Optimizer:
        """What the optimizer's name stands for."""
        return OPTIMIZERS[self.optimizer]

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """`optim_args`, whichever way it is written, as values of the types that the optimizer takes."""
        return read_arguments("optim_args", split_text(self.optim_args), self.chosen_optimizer.kinds)

    def used_libraries(self) -> tuple[str, ...]:
        """The optimizer's own; those that every training counts are not named again."""
        library = self.chosen_optimizer.library
        return (*super().used_libraries(), *({library} - {"torch", "transformers"}))

    @field_validator("optimizer", mode="before")
    @classmethod
    def _within_reach(cls, value: object) -> object:
        if isinstance(value, str) and value in OUT_OF_REACH:
            raise ValueError(f"{value} cannot be had: {OUT_OF_REACH[value]}")
        return value

    @field_validator("optim_args", mode="after")
    @classmethod
    def _as_mapping(cls, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
        return value if value is None else split_text(value)

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        chosen = self.chosen_optimizer
        known = {*BETA_KEYS[: len(chosen.betas)], *EPSILON_KEYS[: len(chosen.eps)]}
        given = [key for key in (*BETA_KEYS, *EPSILON_KEYS) if getattr(self, key) is not None]
        foreign = [key for key in given if key not in known]
        if foreign:
            raise ConflictError(
                f"{', '.join(foreign)}: optimizer {self.optimizer} has no such setting. Remove it",
                *foreign,
                "optimizer",
            )
        return self

    @model_validator(mode="after")
    def _check_optim_args(self) -> Self:
        kinds, given = self.chosen_optimizer.kinds, split_text(self.optim_args)
        for name in sorted(set(given) - set(kinds)):
            raise ConflictError(
                f"optim_args: {name}: optimizer {self.optimizer} takes {', '.join(sorted(kinds)) or 'none'} there"
                f"{_instead(name, kinds)}",
                "optim_args",
                "optimizer",
            )
        try:
            read_arguments("optim_args", given, kinds)
        except ValueError as error:
            raise ConflictError(str(error), "optim_args") from None
        for name, key in {
            "beta1": "adam_beta1",
            "beta2": "adam_beta2",
            "beta3": "adam_beta3",
            "eps": "adam_epsilon",
        }.items():
            if name in given and key.startswith("adam") and getattr(self, key) is not None:
                raise ConflictError(
                    f"{key} and {name} in optim_args are one setting. Keep one", key, "optim_args"
                )
        return self

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if self.chosen_optimizer.targets and not self.optim_target_modules:
            raise ConflictError(
                f"optimizer: {self.optimizer} needs optim_target_modules: the linear layers whose gradients it "
                f"projects, such as [self_attn, mlp], or all_linear",
                "optimizer",
                "optim_target_modules",
            )
        return self

    @model_validator(mode="after")
    def _check_clipping(self) -> Self:
        if (
            self.chosen_optimizer.in_backward
            and self.max_grad_norm
            and "max_grad_norm" in self.model_fields_set
        ):
            raise ConflictError(
                f"max_grad_norm: {self.max_grad_norm:g}: {self.optimizer} uses each gradient as soon as it is "
                f"computed, so that none is left to shorten. Remove it, or set it to 0",
                "max_grad_norm",
                "optimizer",
            )
        return self

    def needs_gpu(self) -> Iterator[Idle]:
        """Optimizers that run on a GPU only."""
        yield from super().needs_gpu()
        if self.chosen_optimizer.needs_gpu:
            yield Idle("optimizer", f"{self.optimizer} needs a GPU; without one use adamw_bnb_8bit")

    def idle(self) -> Iterator[Idle]:
        """Target modules for an optimizer that treats all alike."""
        yield from super().idle()
        if self.optim_target_modules and not self.chosen_optimizer.targets:
            yield Idle(
                "optim_target_modules",
                f"only galore_* and apollo_* read it, and optimizer is {self.optimizer}",
            )


OWN_KEYS = {
    "lr": "learning_rate", "weight_decay": "weight_decay", "beta1": "adam_beta1", "beta2": "adam_beta2",
    "beta3": "adam_beta3", "eps": "adam_epsilon", "warmup_steps": "warmup_steps",
}  # fmt: skip


def _instead(name: str, kinds: Kinds) -> str:
    """What may have been meant by an argument that the optimizer does not take."""
    if name in OWN_KEYS:
        return f". The key for it is {OWN_KEYS[name]}"
    near = nearest(name, sorted(kinds))
    return f". Did you mean {near[0]}?" if near else ""
