"""The keys of the optimizer, and of what is done to gradients and embeddings."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, StageConfig

OptimizerName = Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"]
# What each optimizer of transformers takes from optim_args; it ignores every other name without a word.
OPTIM_ARGS = {
    "sgd": {"momentum", "dampening", "nesterov"},
    "adagrad": {"lr_decay", "eps"},
    "rmsprop": {"momentum", "alpha", "eps", "centered"},
}
ADAM_KEYS = ("adam_beta1", "adam_beta2", "adam_epsilon")


class OptimizerKeys(StageConfig):
    """How gradients become weights."""

    optimizer: OptimizerName = Field(
        "adamw_torch_fused", description="optimizer, by its name in transformers"
    )
    optim_args: dict[str, Any] | str | None = Field(None, description='more arguments, also as "a=1,b=2"')
    adam_beta1: float | None = Field(None, ge=0, lt=1, description="AdamW; unset: 0.9")
    adam_beta2: float | None = Field(None, ge=0, lt=1, description="AdamW; unset: 0.999")
    adam_epsilon: PositiveFloat | None = Field(None, description="AdamW; unset: 1e-8")
    weight_decay: NonNegativeFloat = Field(0.0, description="decay of weights, not of biases and norms")
    max_grad_norm: NonNegativeFloat = Field(
        1.0, description="longer gradients are shortened to this; 0: never"
    )
    neftune_noise_alpha: PositiveFloat | None = Field(None, description="NEFTune noise on the embeddings")

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """`optim_args`, whichever way it is written."""
        assert not isinstance(self.optim_args, str), "made a mapping when the config was read"
        return self.optim_args or {}

    @property
    def adam_arguments(self) -> dict[str, float]:
        """Those of AdamW's settings that are given, by their names in transformers."""
        values = {
            "adam_beta1": self.adam_beta1,
            "adam_beta2": self.adam_beta2,
            "adam_epsilon": self.adam_epsilon,
        }
        return {name: value for name, value in values.items() if value is not None}

    @field_validator("optim_args", mode="after")
    @classmethod
    def _as_mapping(cls, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.replace(" ", "").split(",") if part]
        if not all(name and equals and argument for name, equals, argument in pairs):
            raise ValueError(f'"{value}": write name=value, several with commas between')
        return {name: argument for name, _, argument in pairs}

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        given = list(self.adam_arguments)
        if given and not self.optimizer.startswith("adamw"):
            raise ConflictError(
                f"{', '.join(given)}: only AdamW has these, and optimizer is {self.optimizer}. Remove them",
                *given,
                "optimizer",
            )
        taken = OPTIM_ARGS.get(self.optimizer, set())
        unknown = sorted(set(self.optim_args or {}) - taken)
        if unknown:
            raise ConflictError(
                f"optim_args: {', '.join(unknown)}: optimizer {self.optimizer} takes "
                f"{', '.join(sorted(taken)) or 'none'} there",
                "optim_args",
                "optimizer",
            )
        return self
