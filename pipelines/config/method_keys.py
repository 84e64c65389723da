"""The keys that say what is learned from: preferences, or what the model itself samples."""

from typing import Annotated, Any, get_args

from pydantic import Field, field_validator, model_validator

from tunemill.pipelines.config.asset_names import whole_asset
from tunemill.stages.data.preferences.config import Method, OnlineMethod
from tunemill.stages.data.rows.answers import COMPARING
from tunemill.stages.declaration import ConflictError, StageConfig, YamlMark

# The methods that learn from what the model itself samples.
ONLINE = get_args(OnlineMethod)


class MethodGraphKeys(StageConfig):
    """Which method of `rl`, what it compares with, what judges, and what is held out of it."""

    rl: Method | OnlineMethod | None = Field(
        None,
        description="learn from preferences, by this method: the datasets hold pairs or judged answers; by grpo and "
        "gdpo from what rewards say of the model's own answers: they hold prompts; by ebft from how like a "
        "ground_truth beside the prompt those are",
    )
    precompute_ref_log_probs: bool | None = Field(
        None,
        description="false: what a preference method compares with is no node, but asked beside each step",
    )
    sync_ref_model: Annotated[bool, YamlMark("trl.sync_ref_model")] = Field(
        False, description="a reference that follows the trained model is no node either"
    )
    ebft_mode: Annotated[Any, YamlMark("ebft.mode")] = Field(
        None, description="strided: whole documents are learned from, whose prompts may be empty"
    )
    reward_funcs: Annotated[list[str], YamlMark("trl.reward_funcs")] = Field(
        [], description="which of the rewards are models that other pipelines trained"
    )
    test_datasets: list[dict[str, Any]] = Field([], description="held-out datasets, only evaluated on")
    val_set_size: float = Field(
        0.0, ge=0, description="share (below 1) or number of training rows to hold out"
    )

    @field_validator("reward_funcs", mode="before")
    @classmethod
    def _one_reward_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("reward_funcs")
    @classmethod
    def _names_reward_models(cls, value: list[str]) -> list[str]:
        return [whole_asset(name, "trained") for name in value]

    @model_validator(mode="after")
    def _rewards_are_asked_for(self) -> "MethodGraphKeys":
        if self.reward_funcs and not self.learns_online:
            raise ConflictError(
                "trl.reward_funcs: rewards are asked of the model's own answers. Set rl: grpo, or take it out",
                "reward_funcs",
                "rl",
            )
        return self

    @property
    def learns_online(self) -> bool:
        """Whether the rows are prompts, which the model answers as it is trained."""
        return self.rl in ONLINE

    @property
    def compares_answers(self) -> bool:
        """Whether what the model answers is compared with an answer in the same row."""
        return self.rl in COMPARING

    @property
    def asks_prompts(self) -> bool:
        """Whether the model is asked each row's prompt, so that none may be empty."""
        return self.learns_online and not (self.compares_answers and self.ebft_mode == "strided")

    @property
    def held_out(self) -> bool:
        return bool(self.test_datasets or self.val_set_size)
