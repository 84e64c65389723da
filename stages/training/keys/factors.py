"""The keys of how the factors of an adapter start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, StringConstraints, model_validator

from tunemill.stages.declaration import ConflictError, Fault, Idle, Settings, StageConfig, YamlMark

# Starts that look at the training data before the first step.
FROM_DATA = ("corda", "eva", "lora_ga")
# Starts that take the first factors out of the base, so that the model begins where it was.
TAKEN_OUT = ("pissa", "olora", "corda", "lora_ga")
# Starts that are drawn at random, with a product of zero.
PLAIN_STARTS = ("gaussian", "orthogonal")
# Starts of PEFT that bare parameters have too.
OF_PARAMETERS = (True, False, "gaussian")
# Start -> its group below `peft`.
GROUPS = {
    "loftq": "loftq_config",
    "eva": "eva_config",
    "corda": "corda_config",
    "lora_ga": "lora_ga_config",
}
BITS = ("load_in_4bit", "load_in_8bit")
# What was found in the data, in a checkpoint.
FILE = "first_factors.safetensors"
Start = Annotated[
    str,
    StringConstraints(
        pattern=r"^(gaussian|orthogonal|olora|pissa|pissa_niter_[1-9]\d?|loftq|eva|corda|lora_ga|mica)$"
    ),
]


class LoftqSettings(Settings):
    """`peft.loftq_config`."""

    loftq_bits: Literal[4, 8] = Field(
        4, description="bits that the weights below the adapter are rounded through: 4 (NF4), or 8"
    )


class EvaSettings(Settings):
    """`peft.eva_config`, as PEFT calls it."""

    rho: float = Field(
        2.0, ge=1, description="a module's rank is at most lora_r times this; 1: every module keeps lora_r"
    )
    tau: float = Field(
        0.99, ge=0, lt=1, description="how alike the vectors of two batches must be (cosine) to be final"
    )
    whiten: bool = Field(False, description="divide each vector by the root of its singular value")
    adjust_scaling_factors: bool = Field(
        True, description="alpha grows and shrinks with the rank, so that alpha / rank stays as it is"
    )


class CordaSettings(Settings):
    """`peft.corda_config`, as PEFT calls it."""

    corda_method: Literal["ipm", "kpm"] = Field(
        "ipm",
        description="ipm: train the directions that matter most for the data; kpm: those that matter least, so that "
        "what the data is about is kept",
    )


class LoraGaSettings(Settings):
    """`peft.lora_ga_config`, as PEFT calls it."""

    direction: Literal["ArBr", "A2rBr", "ArB2r", "random"] = Field(
        "ArB2r", description="which of the gradient's singular vectors either factor gets"
    )
    scale: Literal["stable", "weight_svd", "gd_scale", "unit"] = Field(
        "stable", description="how the factors are scaled"
    )
    stable_gamma: PositiveInt = Field(16, description="gamma of scale: stable")


class PeftSettings(Settings):
    """`peft`: what some starts can be told."""

    loftq_config: LoftqSettings | None = Field(
        None,
        description="start as loftq: round the weights below the adapter, and begin with what rounding lost",
    )
    eva_config: EvaSettings | None = Field(None, description="of peft_init_lora_weights: eva")
    corda_config: CordaSettings | None = Field(None, description="of peft_init_lora_weights: corda")
    lora_ga_config: LoraGaSettings | None = Field(None, description="of peft_init_lora_weights: lora_ga")


class FactorKeys(StageConfig):
    """How the factors of an adapter start."""

    peft_init_lora_weights: bool | Start = Field(
        True,
        description="how adapter weights start; true: the first factor random, the second zero; gaussian, orthogonal, "
        "mica, pissa, pissa_niter_<n>, olora, loftq; from training data: eva, corda, lora_ga",
    )
    peft: PeftSettings | None = Field(None, description="settings of a start")
    start_sequences: Annotated[PositiveInt, YamlMark("pipeline.start_sequences")] = Field(
        256,
        description="how many sequences of training data eva, corda and lora_ga look at: the first ones, in training "
        "order",
    )

    @property
    def start_settings(self) -> PeftSettings:
        """What the start is told."""
        return self.peft or PeftSettings()

    @property
    def factor_start(self) -> bool | str:
        """How the factors start; `peft.loftq_config` alone says loftq, as in Axolotl."""
        if self.start_settings.loftq_config is not None and self.peft_init_lora_weights is True:
            return "loftq"
        return self.peft_init_lora_weights

    @property
    def takes_start_out(self) -> bool:
        """Whether the first factors are taken out of the base before training."""
        return str(self.factor_start).startswith(TAKEN_OUT)

    @property
    def looks_at_data(self) -> bool:
        """Whether the start looks at training data."""
        return self.factor_start in FROM_DATA

    @property
    def rounds_base(self) -> int | None:
        """The bits that weights below the adapter are rounded through before training."""
        return (
            (self.start_settings.loftq_config or LoftqSettings()).loftq_bits
            if self.factor_start == "loftq"
            else None
        )

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        asked: dict[str, Any] = {
            key: getattr(self, key, None)
            for key in ("adapter", "lora_target_parameters", "peft_layer_replication", "peft_use_dora", *BITS)
        }
        if asked["adapter"] is None:
            return self
        start = str(self.factor_start).lower()
        key = "peft_init_lora_weights" if self.is_set("peft_init_lora_weights") else "peft"
        for owner, group in GROUPS.items():
            if getattr(self.start_settings, group) is not None and start != owner:
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
        if asked["peft_use_dora"] and start == "mica":
            raise ConflictError(
                "peft_init_lora_weights: mica keeps the second factors as they start, and DoRA trains both and a "
                "magnitude. Remove one",
                "peft_init_lora_weights",
                "peft_use_dora",
            )
        bits = next((name for name in BITS if asked[name]), None)
        if bits and (reason := next(self._against_bits(start, bits), None)):
            raise ConflictError(
                f"peft_init_lora_weights: {start} {reason}. Remove {bits}, or start otherwise", key, bits
            )
        return self

    def _against_bits(self, start: str, bits: str) -> Iterator[str]:
        """Why a start does not go with a base in few bits."""
        if self.takes_start_out:
            yield "takes the first factors out of the base, and one in 4 or 8 bits cannot hold what is left"
        if self.rounds_base:
            yield (
                f"begins with what rounding takes from the weights, and with {bits} training has the rounded ones "
                "alone: it rounds them itself, and holds them in 16 bits"
            )
        if start == "mica":
            yield "takes the smallest singular vectors of the weights, which rounding to few bits has changed most"

    def faults(self) -> Iterator[Fault]:
        """A checkpoint of another run whose base is not the one that it would be given."""
        yield from super().faults()
        named = getattr(self, "resume_from_checkpoint", None)
        if named is None or not Path(named).is_dir() or (Path(named) / FILE).is_file() == self.looks_at_data:
            return
        yield Fault(
            "resume_from_checkpoint",
            f"{named} has no {FILE}: its adapter did not start with {self.factor_start}. Start as that run did"
            if self.looks_at_data
            else f"{named} has a {FILE}: its adapter started from data. Set peft_init_lora_weights as that run did",
        )

    def idle(self) -> Iterator[Idle]:
        """A number of sequences that nothing looks at."""
        yield from super().idle()
        if self.is_set("start_sequences") and not self.looks_at_data:
            yield Idle("start_sequences", f"of {', '.join(FROM_DATA)}, and the adapter starts otherwise")
