"""The keys of how a policy learns from what its completions are worth: those of `rl: grpo` and `rl: gdpo`."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.online.keys import OnlineKeys, below_trl

Scale = Literal["group", "batch", "none"]
Aggregation = Literal["sum_then_normalize", "normalize_then_sum"]
LossName = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]
# Those that bound how far a token's probability may move on both sides.
CLIPPED = frozenset({"grpo", "bnpo", "dr_grpo", "dapo", "luspo"})
NO_BOUNDS = frozenset({"sapo", "vespo"})


class PolicyKeys(OnlineKeys):
    """How good a completion is among those of its prompt, and how far the policy moves for it. Defaults are TRL's."""

    usual_aggregation: ClassVar[Aggregation] = "sum_then_normalize"

    loss_type: Annotated[LossName, below_trl("loss_type")] = Field(
        "dapo", description="what is minimized, and what it is the mean over; docs/online-rl.md has the table"
    )
    epsilon: Annotated[PositiveFloat, below_trl("epsilon")] = Field(
        0.2, description="how far a token's probability may fall by a step, as a share of it"
    )
    epsilon_high: Annotated[PositiveFloat | None, below_trl("epsilon_high")] = Field(
        None, description="how far it may rise; unset: as far"
    )
    delta: Annotated[PositiveFloat | None, below_trl("delta")] = Field(
        None,
        description="most that the ratio of probabilities counts, where it is no gain either; unset: no bound",
    )
    importance_sampling_level: Annotated[
        Literal["token", "sequence"], below_trl("importance_sampling_level")
    ] = Field(
        "token", description="ratios of tokens, or with `sequence` their mean over the completion (GSPO)"
    )
    scale_rewards: Annotated[Scale, below_trl("scale_rewards")] = Field(
        "group", description="what advantages are divided by: the spread within their group (true), of all that is "
        "sampled at a time (batch), or nothing (false, none)",
    )  # fmt: skip
    multi_objective_aggregation: Annotated[Aggregation | None, below_trl("multi_objective_aggregation")] = (
        Field(
            None,
            description="whether rewards of several functions are added up before they are compared within a group "
            "(sum_then_normalize, what rl: grpo does), or each is compared by itself (normalize_then_sum: rl: gdpo)",
        )
    )
    top_entropy_quantile: Annotated[float, below_trl("top_entropy_quantile")] = Field(
        1.0,
        gt=0,
        le=1,
        description="learn only from this share of the tokens of a micro batch, the least certain ones",
    )
    entropy_coef: Annotated[NonNegativeFloat, below_trl("entropy_coef")] = Field(
        0.0, description="how much the entropy of the policy is wanted; 0: not at all"
    )
    off_policy_mask_threshold: Annotated[PositiveFloat | None, below_trl("off_policy_mask_threshold")] = (
        Field(
            None,
            description="leave out completions that are worse than their group and by so many nats a token less likely "
            "than when they were sampled",
        )
    )
    use_bias_correction_kl: Annotated[bool, below_trl("use_bias_correction_kl")] = Field(
        True, description="with beta: weight the divergence by the ratio of probabilities"
    )

    @field_validator("scale_rewards", mode="before")
    @classmethod
    def _true_means_group(cls, value: Any) -> Any:
        return {True: "group", False: "none"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("multi_objective_aggregation", mode="after")
    @classmethod
    def _usual_means_unset(cls, value: Aggregation | None) -> Aggregation | None:
        return None if value == cls.usual_aggregation else value

    @property
    def aggregation(self) -> Aggregation:
        """How rewards of several functions become one advantage."""
        return self.multi_objective_aggregation or self.usual_aggregation

    def semantic(self) -> dict[str, Any]:
        """Without a bound that is written out as it would be unset; cispo has no other one."""
        found = super().semantic()
        if self.loss_type != "cispo" and found.get("epsilon_high") == self.epsilon:
            del found["epsilon_high"]
        return found

    @model_validator(mode="after")
    def _check_policy(self) -> Self:
        if self.loss_type == "cispo" and self.epsilon_high is None:
            raise ConflictError(
                "trl.loss_type: cispo bounds the ratio of probabilities by trl.epsilon_high alone, which is unset. Its "
                "paper uses 5.0",
                "loss_type",
                "epsilon_high",
            )
        if self.aggregation == "normalize_then_sum" and self.scale_rewards != "group":
            raise ConflictError(
                "trl.scale_rewards: with normalize_then_sum each reward is divided by its spread within the group. "
                "Remove scale_rewards",
                "scale_rewards",
                "multi_objective_aggregation",
            )
        if self.loss_type == "luspo" and self.importance_sampling_level == "token":
            raise ConflictError(
                "trl.loss_type: luspo is of whole completions. Set trl.importance_sampling_level: sequence",
                "loss_type",
                "importance_sampling_level",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """Bounds that the loss does not read, and what is asked of a divergence that is not computed."""
        yield from super().idle()
        for key, read in (
            ("epsilon", self.loss_type not in {*NO_BOUNDS, "cispo"}),
            ("epsilon_high", self.loss_type not in NO_BOUNDS),
            ("delta", self.loss_type in CLIPPED),
        ):
            if self.is_set(key) and not read:
                yield Idle(key, f"trl.loss_type: {self.loss_type} does not read it")
        if self.is_set("use_bias_correction_kl") and not self.beta:
            yield Idle("use_bias_correction_kl", "trl.beta is 0, so no divergence is computed")
