"""The keys of how the factors of an adapter start."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Settings, StageConfig

# Starts that take the first factors out of the base, so that the model begins where it was.
TAKEN_OUT = ("pissa", "olora")
# Starts that are drawn at random, with a product of zero.
PLAIN_STARTS = ("gaussian", "orthogonal")
# Starts of PEFT that bare parameters have too.
OF_PARAMETERS = (True, False, "gaussian")
# Starts that look at data or gradients before the first step.
FROM_DATA = {
    "corda": "the covariance of each module's inputs",
    "eva": "the singular vectors of each module's inputs",
    "lora_ga": "the gradients of a few batches",
}
# Start -> its group below `peft`.
GROUPS = {"loftq": "loftq_config"}
BITS = ("load_in_4bit", "load_in_8bit")
Start = Annotated[
    str, StringConstraints(pattern=r"^(gaussian|orthogonal|olora|pissa|pissa_niter_[1-9]\d?|loftq)$")
]


class LoftqSettings(Settings):
    """`peft.loftq_config`."""

    loftq_bits: Literal[4, 8] = Field(
        4, description="bits that the weights below the adapter are rounded through: 4 (NF4), or 8"
    )


class PeftSettings(Settings):
    """`peft`: what some starts can be told."""

    loftq_config: LoftqSettings | None = Field(
        None,
        description="start as loftq: round the weights below the adapter, and begin with what rounding lost",
    )


class FactorKeys(StageConfig):
    """How the factors of an adapter start."""

    peft_init_lora_weights: bool | Start = Field(
        True,
        description="how adapter weights start; true: the first factor random, the second zero; gaussian, orthogonal, "
        "pissa, pissa_niter_<n>, olora, loftq",
    )
    peft: PeftSettings = Field(PeftSettings(), description="settings of a start")

    @field_validator("peft_init_lora_weights", mode="before")
    @classmethod
    def _start_needs_no_data(cls, value: object) -> object:
        if isinstance(value, str) and value in FROM_DATA:
            raise ValueError(
                f"{value} needs {FROM_DATA[value]} before the first step, which is not supported yet; use pissa, olora "
                f"or orthogonal, which look at the weights alone"
            )
        return value

    @property
    def factor_start(self) -> bool | str:
        """How the factors start; `peft.loftq_config` alone says loftq, as in Axolotl."""
        if self.peft.loftq_config is not None and self.peft_init_lora_weights is True:
            return "loftq"
        return self.peft_init_lora_weights

    @property
    def takes_start_out(self) -> bool:
        """Whether the first factors are taken out of the base before training."""
        return str(self.factor_start).startswith(TAKEN_OUT)

    @property
    def rounds_base(self) -> int | None:
        """The bits that weights below the adapter are rounded through before training."""
        return (
            (self.peft.loftq_config or LoftqSettings()).loftq_bits if self.factor_start == "loftq" else None
        )

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        asked: dict[str, Any] = {
            key: getattr(self, key, None)
            for key in ("adapter", "lora_target_parameters", "peft_layer_replication", *BITS)
        }
        if asked["adapter"] is None:
            return self
        start = str(self.factor_start).lower()
        key = "peft_init_lora_weights" if self.is_set("peft_init_lora_weights") else "peft"
        for owner, group in GROUPS.items():
            if getattr(self.peft, group) is not None and start != owner:
                raise ConflictError(
                    f"peft.{group} is of peft_init_lora_weights: {owner}, and the adapter starts with {start}. Remove "
                    "one",
                    "peft",
                    "peft_init_lora_weights",
                )
        if asked["lora_target_parameters"] and self.factor_start not in OF_PARAMETERS:
            raise ConflictError(
                f"peft_init_lora_weights: {start} looks at the weights of linear modules; with lora_target_parameters "
                "use true or gaussian",
                key,
                "lora_target_parameters",
            )
        if asked["peft_layer_replication"] and (self.takes_start_out or self.rounds_base):
            raise ConflictError(
                f"peft_init_lora_weights: {start} changes the base, and with peft_layer_replication several layers "
                "share their weights. Remove one",
                key,
                "peft_layer_replication",
            )
        bits = next((name for name in BITS if asked[name]), None)
        if bits and (reason := next(self._against_bits(bits), None)):
            raise ConflictError(
                f"peft_init_lora_weights: {start} {reason}. Remove {bits}, or start otherwise", key, bits
            )
        return self

    def _against_bits(self, bits: str) -> Iterator[str]:
        """Why a start does not go with a base in few bits."""
        if self.takes_start_out:
            yield "takes the first factors out of the base, and one in 4 or 8 bits cannot hold what is left"
        if self.rounds_base:
            yield (
                f"begins with what rounding takes from the weights, and with {bits} training has the rounded ones "
                "alone: it rounds them itself, and holds them in 16 bits"
            )
