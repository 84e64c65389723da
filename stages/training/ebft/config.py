"""What the `ebft` stage reads from the YAML."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from tunemill.stages.declaration import ConflictError, Idle, YamlMark
from tunemill.stages.training.keys.several import ALONE
from tunemill.stages.training.online.engine import SamplingSettings
from tunemill.stages.training.online.plan import Plan
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.reward_calls import KEY

# What is asked of rewards by functions and models, of which there are none.
OF_CALLS = ("reward_num_workers", "reward_timeout", "failed_rewards")
# Of a completion's most tokens, however short its answer is.
FEWEST = 64
OF_STRUCTURED = ("adaptive_max_tokens", "gt_length_multiplier", "completions_at_once")
OF_STRIDED = (
    "stride", "context_length", "generate_max_len", "n_samples_per_prompt", "strided_temperature", "strided_top_p",
    "rl_coef", "advantage_estimator", "min_completion_prefix",
)  # fmt: skip


def below_ebft(name: str) -> YamlMark:
    """The mark of a key that stands below `ebft`."""
    return YamlMark(f"ebft.{name}")


class EbftConfig(PolicyKeys):
    """Energy-based fine-tuning: what a frozen model makes of completions, full or LoRA."""

    mode: Annotated[Literal["structured", "strided"], below_ebft("mode")] = Field(
        "structured",
        description="structured: completions of prompts, each compared with the row's ground_truth",
    )
    feature_layers: Annotated[list[float], below_ebft("feature_layers")] = Field(
        [0.25, 0.5, 0.75],
        min_length=1,
        description="layers of the frozen model whose hidden states are compared, as shares of its depth",
    )
    embed_method: Annotated[
        Literal["last_token", "mean_pooling", "completion_mean", "concat"], below_ebft("embed_method")
    ] = Field(
        "last_token",
        description="what stands for a sequence: its last token, the mean of all, of the completion's, or those at a "
        "quarter, half and three quarters side by side",
    )
    use_whitening: Annotated[bool, below_ebft("use_whitening")] = Field(
        False, description="weigh all directions in which a prompt's completions differ alike"
    )
    alignment_coef: Annotated[NonNegativeFloat, below_ebft("alignment_coef")] = Field(
        1.0, description="how much likeness to the answer is rewarded"
    )
    diversity_coef: Annotated[NonNegativeFloat, below_ebft("diversity_coef")] = Field(
        1.0, description="how much likeness to the prompt's other completions costs"
    )
    ce_coef: Annotated[NonNegativeFloat, below_ebft("ce_coef")] = Field(
        0.0, description="weight of the cross entropy of the answers beside it; 0: it is not computed"
    )
    adaptive_max_tokens: Annotated[bool, below_ebft("adaptive_max_tokens")] = Field(
        True,
        description="end completions of a short answer's prompt sooner: after gt_length_multiplier times its tokens, "
        f"and {FEWEST} at least",
    )
    gt_length_multiplier: Annotated[float, below_ebft("gt_length_multiplier")] = Field(
        1.5, ge=0.1, description="with adaptive_max_tokens: how many times as long as the answer"
    )

    stride: Annotated[PositiveInt, below_ebft("stride")] = Field(
        8, description="strided: tokens from one anchor to the next"
    )
    context_length: Annotated[PositiveInt, below_ebft("context_length")] = Field(
        8, description="strided: tokens of the document before an anchor that its block sees"
    )
    generate_max_len: Annotated[PositiveInt, below_ebft("generate_max_len")] = Field(
        8, description="strided: tokens of a block"
    )
    n_samples_per_prompt: Annotated[PositiveInt, below_ebft("n_samples_per_prompt")] = Field(
        4, description="strided: completions of each anchor, which are compared with each other"
    )
    strided_temperature: Annotated[PositiveFloat, below_ebft("temperature")] = Field(
        0.6,
        description="strided: what logits are divided by, when blocks are drawn and when they are learned from",
    )
    strided_top_p: Annotated[float, below_ebft("top_p")] = Field(
        1.0,
        gt=0,
        le=1,
        description="strided: draw of the fewest tokens that have this share of the probability",
    )
    rl_coef: Annotated[NonNegativeFloat, below_ebft("rl_coef")] = Field(
        1.0, description="strided: weight of what is learned from rewards"
    )
    advantage_estimator: Annotated[
        Literal["rloo", "group_norm", "reinforce"], below_ebft("advantage_estimator")
    ] = Field(
        "rloo",
        description="strided: rewards less the mean of the anchor's others, over their spread around their mean, or as "
        "they are; of one completion as they are",
    )
    min_completion_prefix: Annotated[NonNegativeInt, below_ebft("min_completion_prefix")] = Field(
        0, description="strided: tokens of the answer before its first anchor"
    )
    sequence_len: PositiveInt = Field(
        512, description="most tokens of a prompt: longer ones are left out before; strided: of a document"
    )

    @field_validator("feature_layers")
    @classmethod
    def _are_shares(cls, value: list[float]) -> list[float]:
        wrong = [one for one in value if not 0 <= one <= 1]
        if wrong:
            raise ValueError(f"{wrong[0]}: a layer is a share of the model's depth, from 0 (embeddings) to 1")
        return value

    @property
    def is_strided(self) -> bool:
        """Whether completions are blocks inside of documents."""
        return self.mode == "strided"

    @property
    def samples_groups(self) -> bool:
        """Whether a round is whole groups of `trl.num_generations` completions."""
        return not self.is_strided

    @property
    def attention(self) -> str | None:
        """Blocks are attended to under a mask of their own, which is sdpa's."""
        return "sdpa" if self.is_strided else super().attention

    @property
    def strided_sampling(self) -> SamplingSettings:
        """How tokens of blocks are drawn."""
        top_p = None if self.strided_top_p == 1 else self.strided_top_p
        return SamplingSettings(self.generate_max_len, temperature=self.strided_temperature, top_p=top_p)

    def strided_plan(self, documents: int) -> Plan:
        """Steps over so many documents, each of which is a round."""
        return Plan(documents, 1, self.per_step, self.per_step, 1, self.seed, self.curriculum_sampling)

    @property
    def reward_names(self) -> list[str]:
        """What is said of each completion."""
        return ["alignment", "diversity"]

    @property
    def weights(self) -> list[float]:
        """What each of them counts: twice its coefficient, as the squared distance has it."""
        return [2 * self.alignment_coef, -2 * self.diversity_coef]

    @property
    def figures(self) -> tuple[str, ...]:
        """What held-out prompts, or documents, are scored by."""
        lengths = () if self.is_strided else ("eval_completion_length", "eval_truncated")
        rewards = (f"eval_rewards/{name}" for name in self.reward_names)
        return ("eval_reward", *rewards, "eval_logged/cfm_loss", *lengths)

    @property
    def holds_a_copy(self) -> bool:
        """Whether the frozen model is a second one beside the one that is trained; relora changes an adapter's base."""
        return self.adapter is None or self.relora

    def longest_for(self, answer_tokens: int) -> int:
        """Most tokens of a completion whose answer has so many."""
        if not self.adaptive_max_tokens:
            return self.max_completion_length
        return min(self.max_completion_length, max(FEWEST, int(answer_tokens * self.gt_length_multiplier)))

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        if self.reward_funcs:
            raise ConflictError(
                f"{KEY}: rl: ebft rewards likeness to the row's ground_truth, and asks nothing else. Take it out, or "
                f"use rl: grpo",
                "reward_funcs",
            )
        for name in ("environment_factory", "tools", "rollout_func"):
            if getattr(self, name):
                raise ConflictError(
                    f"trl.{name}: rl: ebft compares an answer with completions that are sampled here. Take it out, or "
                    f"use rl: grpo",
                    name,
                )
        for name in ("streaming_partial_batch", "streaming_min_groups"):
            if getattr(self, name):
                raise ConflictError(
                    f"trl.{name}: rl: ebft rewards a round at once, by the frozen model on the same device. Remove it",
                    name,
                )
        if not self.ce_coef and (not any(self.weights) or (self.is_strided and not self.rl_coef)):
            raise ConflictError(
                "ebft.alignment_coef: nothing is learned where it and ebft.diversity_coef are 0, or ebft.rl_coef, and "
                "ebft.ce_coef as well. Give one of them",
                "alignment_coef",
                "diversity_coef",
                "rl_coef",
                "ce_coef",
            )
        if self.aggregation != self.usual_aggregation:
            raise ConflictError(
                "trl.multi_objective_aggregation: alignment and diversity are one distance, and added up. Remove it",
                "multi_objective_aggregation",
            )
        return self

    @model_validator(mode="after")
    def _check_blocks(self) -> Self:
        if self.is_strided and self.processes > 1:
            raise ConflictError(
                f"ebft.mode: strided: documents of a round are not shared out among processes. {ALONE}, or use "
                f"ebft.mode: structured",
                "mode",
            )
        if self.is_strided and self.torch_compile:
            raise ConflictError(
                "torch_compile: with ebft.mode: strided every document has other shapes, for which the model would be "
                "compiled again. Take it out",
                "torch_compile",
                "mode",
            )
        # No block begins before the second token, or with less context than is asked for.
        first = max(self.min_completion_prefix + 1, self.context_length)
        if self.is_strided and first + self.generate_max_len > self.sequence_len:
            raise ConflictError(
                f"sequence_len: {self.sequence_len} tokens of a document have no room for a block of "
                f"ebft.generate_max_len: {self.generate_max_len}. Raise it",
                "sequence_len",
                "generate_max_len",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """What the mode does not read, how functions are asked, and lengths where each may be as long."""
        found = {one.key: one for one in (*self._of_mode(), *super().idle())}
        yield from found.values()
        for key in OF_CALLS:
            if self.is_set(key):
                yield Idle(key, "rl: ebft asks no function and no reward model")
        if self.is_set("gt_length_multiplier") and not self.adaptive_max_tokens:
            yield Idle("gt_length_multiplier", "ebft.adaptive_max_tokens is off")

    def _of_mode(self) -> Iterator[Idle]:
        if not self.is_strided:
            for key in OF_STRIDED:
                if self.is_set(key):
                    yield Idle(key, "ebft.mode: structured does not read it")
            return
        for key, field in type(self).model_fields.items():
            below = any(
                isinstance(mark, YamlMark) and mark.path.startswith("trl.") for mark in field.metadata
            )
            if (below or key in OF_STRUCTURED) and self.is_set(key):
                yield Idle(key, "ebft.mode: strided draws blocks by the keys below ebft alone")
        if self.eval_batch_size is not None:
            yield Idle("eval_batch_size", "ebft.mode: strided draws blocks in one document at a time")
        asked = super().attention
        if asked not in (None, "sdpa"):
            yield Idle(self.attention_key, "blocks are attended to by sdpa, under a mask of their own")
