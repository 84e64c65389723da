"""The keys of methods that learn from what the model itself samples, by the names of TRL and Axolotl."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from tunemill.stages.declaration import ConflictError, Idle, Runtime, YamlMark
from tunemill.stages.training.keys.following import SYNC, FollowedKeys
from tunemill.stages.training.keys.several import ALONE
from tunemill.stages.training.online.ahead_keys import AheadKeys
from tunemill.stages.training.online.engine import SamplingSettings
from tunemill.stages.training.online.generation_keys import OWN, GenerationKeys, conflicts
from tunemill.stages.training.online.held_out_keys import HeldOutKeys
from tunemill.stages.training.online.plan import Plan
from tunemill.stages.training.online.reuse_keys import ReuseKeys
from tunemill.stages.training.online.reward_calls import KEY
from tunemill.stages.training.online.reward_keys import RewardKeys
from tunemill.stages.training.online.vllm_keys import VllmKeys


def below_trl(name: str) -> YamlMark:
    """The mark of a key that stands below `trl`."""
    return YamlMark(f"trl.{name}")


class SamplingKeys(GenerationKeys, FollowedKeys):
    """What is sampled, and how."""

    num_generations: Annotated[PositiveInt, below_trl("num_generations")] = Field(
        8, ge=2, description="completions of each prompt, which are compared with each other"
    )
    max_completion_length: Annotated[PositiveInt, below_trl("max_completion_length")] = Field(
        256, description="most tokens of a completion"
    )
    temperature: Annotated[PositiveFloat, below_trl("temperature")] = Field(
        1.0,
        description="what logits are divided by, when completions are sampled and when they are learned from",
    )
    top_p: Annotated[float, below_trl("top_p")] = Field(
        1.0, gt=0, le=1, description="sample of the fewest tokens that have this share of the probability"
    )
    top_k: Annotated[NonNegativeInt | None, below_trl("top_k")] = Field(
        None, description="sample of so many of the likeliest tokens; unset or 0: of all"
    )
    min_p: Annotated[float | None, below_trl("min_p")] = Field(
        None,
        ge=0,
        le=1,
        description="sample of tokens with at least this share of the likeliest one's probability",
    )
    repetition_penalty: Annotated[PositiveFloat, below_trl("repetition_penalty")] = Field(
        1.0, description="above 1: tokens that are there already are sampled less often"
    )
    generation_batch_size: Annotated[PositiveInt | None, below_trl("generation_batch_size")] = Field(
        None,
        description="completions that are sampled of the same weights; unset: as many as a step learns from",
    )
    steps_per_generation: Annotated[PositiveInt | None, below_trl("steps_per_generation")] = Field(
        None, description="the same as micro batches: a multiple of gradient_accumulation_steps, the default"
    )
    num_iterations: Annotated[PositiveInt, below_trl("num_iterations")] = Field(
        1, description="how often a completion is learned from"
    )
    completions_at_once: Annotated[PositiveInt, YamlMark("pipeline.completions_at_once")] = Field(
        64,
        description="most completions that are sampled side by side, in whole groups, and kept at once; rounding "
        "differs between sizes",
    )
    sequence_len: Runtime[PositiveInt] = Field(
        512, description="most tokens of a prompt: longer ones are left out before"
    )

    @field_validator("top_k", "min_p", mode="after")
    @classmethod
    def _none_is_of_all(cls, value: float | None) -> float | None:
        """So that both ways to ask for nothing make one key."""
        return value or None

    @property
    def sampling(self) -> SamplingSettings:
        """How an engine draws."""
        return SamplingSettings(
            max_new_tokens=self.max_completion_length,
            temperature=self.temperature,
            top_p=None if self.top_p == 1 else self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )

    @property
    def per_step(self) -> int:
        """Completions that a step learns from."""
        return self.micro_batch_size * self.gradient_accumulation_steps

    @property
    def per_round(self) -> int:
        """Completions that are sampled of the same weights."""
        if self.generation_batch_size is not None:
            return self.generation_batch_size
        return self.micro_batch_size * (self.steps_per_generation or self.gradient_accumulation_steps)

    @property
    def groups_at_once(self) -> int:
        """Groups that are sampled side by side."""
        return max(1, self.completions_at_once // self.num_generations)

    def plan(self, prompts: int) -> Plan:
        """Rounds and steps over so many prompts."""
        return Plan(
            prompts,
            self.num_generations,
            self.per_step,
            self.per_round,
            self.num_iterations,
            self.seed,
            self.curriculum_sampling,
        )

    @model_validator(mode="after")
    def _check_generation(self) -> Self:
        own = {key: getattr(self, key) for key in set(OWN.values())}
        for _, reason in conflicts(self.generation_kwargs, own):
            raise ConflictError(reason, "generation_kwargs")
        return self

    @property
    def samples_groups(self) -> bool:
        """Whether a round is whole groups of `num_generations` completions."""
        return True

    @model_validator(mode="after")
    def _check_rounds(self) -> Self:
        if not self.samples_groups:
            return self
        if self.generation_batch_size is not None and self.steps_per_generation is not None:
            raise ConflictError(
                "trl.generation_batch_size and trl.steps_per_generation say the same. Keep one",
                "generation_batch_size",
                "steps_per_generation",
            )
        named = "generation_batch_size" if self.generation_batch_size else "steps_per_generation"
        if self.per_round % self.per_step:
            raise ConflictError(
                f"trl.{named}: {self.per_round} completions would be sampled at a time, and a step learns from "
                f"{self.per_step} (micro_batch_size times gradient_accumulation_steps). Use a multiple of that",
                named,
                "gradient_accumulation_steps",
            )
        if self.per_round % self.num_generations:
            raise ConflictError(
                f"trl.num_generations: {self.num_generations} completions of a prompt do not divide the "
                f"{self.per_round} that are sampled at a time: micro_batch_size times gradient_accumulation_steps, or "
                f"trl.generation_batch_size. Change one of them",
                "num_generations",
                "micro_batch_size",
            )
        return self


FROM_ZERO: TypeAdapter[float] = TypeAdapter(NonNegativeFloat)
# Keys that leave tokens out, or make them less likely.
WARPING = ("top_p", "top_k", "min_p", "repetition_penalty")


class OnlineKeys(HeldOutKeys, SamplingKeys, AheadKeys, ReuseKeys, RewardKeys, VllmKeys):
    """What is sampled, what it is worth, and what it is compared with."""

    beta: Annotated[NonNegativeFloat, below_trl("beta")] = Field(
        0.0, description="how strongly the model is held to the one that training starts from; 0: not at all"
    )
    rl_beta: NonNegativeFloat | None = Field(None, description="another name of trl.beta")
    mask_truncated_completions: Annotated[bool, below_trl("mask_truncated_completions")] = Field(
        False, description="learn nothing from completions that were cut off at max_completion_length"
    )
    skip_zero_advantage_batches: Annotated[Runtime[bool], below_trl("skip_zero_advantage_batches")] = Field(
        True,
        description="do not compute micro batches in which no completion is better or worse than its group: their "
        "gradient is 0",
    )
    log_completions: Annotated[Runtime[bool], below_trl("log_completions")] = Field(
        False,
        description="show completions of each round, with their rewards: looks, and changes nothing",
    )
    num_completions_to_print: Annotated[
        Runtime[PositiveInt | None], below_trl("num_completions_to_print")
    ] = Field(None, description="with log_completions: how many are shown; unset: 4")
    keep_rollouts: Annotated[Runtime[NonNegativeInt], YamlMark("pipeline.keep_rollouts")] = Field(
        10_000,
        description="most completions that are kept beside the model: whole rounds, evenly spread over the training",
    )
    lora_dropout: Runtime[float] = Field(
        0.0, ge=0, lt=1, description="asks for nothing: what is sampled is learned from without dropout"
    )

    @model_validator(mode="after")
    def _check_whole_model(self) -> Self:
        if self.processes > 1 and self.sharding.in_parts:
            keys = self.asks_for_fsdp or ("deepspeed",)
            raise ConflictError(
                f"{keys[0]}: each process samples of the whole model, and a part of it samples nothing. Take it out: "
                f"then the {self.processes} processes are copies that exchange gradients",
                *keys,
            )
        if self.processes > 1 and self.torch_compile:
            raise ConflictError(
                f"torch_compile: a compiled model that samples has not been proven with {self.processes} processes. "
                f"Take it out. {ALONE}",
                "torch_compile",
            )
        return self

    @model_validator(mode="after")
    def _check_what_vllm_draws(self) -> Self:
        usual = SamplingSettings(self.max_completion_length)
        for name in WARPING:
            if self.use_vllm and getattr(self.sampling, name) != getattr(usual, name):
                raise ConflictError(
                    f"trl.{name}: with trl.use_vllm a token would have another probability than the model gives it, "
                    f"and what vLLM tells could not be compared with the trainer. Remove {name}, or use_vllm",
                    name,
                    "use_vllm",
                )
        return self

    @model_validator(mode="after")
    def _check_who_samples(self) -> Self:
        if self.rollout_func is not None and self.use_vllm and self.async_prefetch:
            raise ConflictError(
                "trl.async_prefetch: with trl.use_vllm rounds are sampled while steps are taken, and trl.rollout_func "
                "is given the model that they change. Remove one",
                "async_prefetch",
                "rollout_func",
            )
        return self

    @model_validator(mode="after")
    def _check_room(self) -> Self:
        room = self.vllm_max_model_len
        if self.starts_vllm and room is not None and room <= self.max_completion_length:
            raise ConflictError(
                f"trl.vllm_max_model_len: {room} tokens leave no room for a prompt beside trl.max_completion_length: "
                f"{self.max_completion_length}. Raise it, or take it out: then it is as much as is needed",
                "vllm_max_model_len",
                "max_completion_length",
            )
        return self

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        if not self.reward_funcs and not self.environment_rewards:
            raise ConflictError(
                f"{KEY}: nothing says how good a completion is. Name a function in a Python file beside the YAML: "
                f"my_rewards.my_function",
                "reward_funcs",
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _two_names_of_beta(cls, given: dict[str, Any]) -> dict[str, Any]:
        """One of them is left, so that either makes the same key; what is no number is told of by its own name."""
        found = {name: _number(given.get(name)) for name in ("rl_beta", "beta")}
        other, beta = found["rl_beta"], found["beta"]
        if other is None or (beta is None and given.get("beta") is not None):
            return given
        if beta is not None and beta != other:
            raise ConflictError(
                f"rl_beta: {other} is another name of trl.beta, which is {beta}. Remove one",
                "rl_beta",
                "beta",
            )
        return {**{name: value for name, value in given.items() if name != "rl_beta"}, "beta": other}

    @model_validator(mode="after")
    def _check_reference(self) -> Self:
        if self.sync_ref_model and not self.beta:
            raise ConflictError(
                "trl.sync_ref_model: with trl.beta: 0 nothing is compared with a reference. Set beta, or remove it",
                "sync_ref_model",
                "beta",
            )
        if self.sync_ref_model and self.adapter is not None:
            raise ConflictError(
                "trl.sync_ref_model: beside an adapter the reference is the base without it, and there is no copy that "
                "could follow. Remove it, or remove adapter",
                "sync_ref_model",
                "adapter",
            )
        if self.beta and self.goes_on_with_adapter:
            raise ConflictError(
                "trl.beta: with lora_model_dir the reference would be the base without the adapter that training "
                "starts from. Merge that adapter first, or use beta: 0",
                "beta",
                "lora_model_dir",
            )
        if self.beta and self.relora:
            raise ConflictError(
                "relora: with trl.beta the reference is the base without the adapter, and relora changes that base. "
                "Remove one",
                "relora",
                "beta",
            )
        return self

    @property
    def figures(self) -> tuple[str, ...]:
        """What held-out prompts are scored by, by whole names."""
        rewards = (f"rewards/{name}" for name in self.reward_names)
        return tuple(f"eval_{name}" for name in ("reward", *rewards, "completion_length", "truncated"))

    @property
    def evaluates(self) -> bool:
        """Whether held-out prompts are answered while the model is trained."""
        return self.has_held_out_rows and "evaluation_data" not in self.unused_inputs()

    @property
    def held_out_generations(self) -> int:
        """Completions of each held-out prompt."""
        return self.num_generations_eval or self.num_generations

    @property
    def held_out_at_once(self) -> int:
        """Held-out prompts that are answered side by side."""
        return self.eval_batch_size or max(1, self.completions_at_once // self.held_out_generations)

    @property
    def steps_of_round(self) -> int:
        """Steps that are taken with what is sampled at a time."""
        return self.per_round // self.per_step * self.num_iterations

    @property
    def rounds_ahead(self) -> int:
        """Rounds that are sampled before the steps of the rounds before them are taken."""
        return self.depth(self.steps_of_round)

    @property
    def sync_interval(self) -> int:
        """Steps after which vLLM is given the weights again, so that none of its completions is too old."""
        if self.max_staleness is None:
            return self.vllm_sync_interval
        left = self.max_staleness - self.rounds_ahead * self.steps_of_round
        return min(self.vllm_sync_interval, left + 1)

    def longest_prompt(self, tokens: int) -> int:
        """Most tokens of a prompt, where the longest has so many as it was rendered before."""
        return self.sequence_len if self.samples_otherwise else tokens

    @property
    def is_off_policy(self) -> bool:
        """Whether what is learned from may be of another policy than the one that learns."""
        return self.use_vllm or self.rounds_ahead > 0 or self.replays or self.rollout_func is not None

    @property
    def replays(self) -> bool:
        """Whether groups are learned from again: none is where all would be too old."""
        return self.replay_buffer_size > 0 and self.oldest_round(1) == 0

    def oldest_round(self, number: int) -> int:
        """The first round whose completions are young enough to be learned from in this one."""
        if self.max_staleness is None:
            return 0
        lag = self.sync_interval - 1 if self.use_vllm else 0
        rounds = (self.max_staleness - lag) // self.steps_of_round
        # Of the rounds that are sampled ahead the first ones are all of the policy that training starts from.
        return 0 if number <= rounds else number - rounds + self.rounds_ahead

    @property
    def goes_on_with_adapter(self) -> bool:
        """Whether an adapter is trained further."""
        return bool(self.lora_model_dir or self.has_stored_adapter)

    @property
    def holds_a_copy(self) -> bool:
        """Whether the reference is a second model beside the one that is trained."""
        return bool(self.beta) and self.adapter is None

    def idle(self) -> Iterator[Idle]:
        """How to follow where nothing follows, what to show where nothing is shown, dropout that is left out."""
        yield from super().idle()
        if not self.sync_ref_model:
            for key in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
                if self.is_set(key):
                    yield Idle(key, f"{SYNC} is off")
        if self.max_staleness is not None:
            yield from self._idle_by_staleness()
        if self.num_completions_to_print is not None and not self.log_completions:
            yield Idle("num_completions_to_print", "trl.log_completions is off")
        if self.lora_dropout:
            yield Idle("lora_dropout", "what is sampled is learned from without dropout")

    def _idle_by_staleness(self) -> Iterator[Idle]:
        bound, steps = f"trl.max_staleness: {self.max_staleness}", self.steps_of_round
        room = f"{bound} has room for {self.rounds_ahead} rounds of {steps} steps"
        if not (self.use_vllm or self.async_prefetch or self.replay_buffer_size):
            yield Idle("max_staleness", "nothing is sampled ahead, or learned from again")
        if self.async_prefetch and not self.rounds_ahead:
            yield Idle("async_prefetch", room)
        elif self.rounds_ahead == 1 < (self.prefetch_depth or 1):
            # Where it is cut to more than what is usual, it is heard.
            yield Idle("prefetch_depth", room)
        if self.replay_buffer_size and not self.replays:
            yield Idle("replay_buffer_size", f"{bound} is less than the {steps} steps of a round")
        if self.use_vllm and self.sync_interval == 1 < self.vllm_sync_interval:
            yield Idle("vllm_sync_interval", f"{bound} asks for weights after every step")


def _number(value: Any) -> float | None:
    """What a key is read as that takes a number from 0; None where it refuses the value, or is not set."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return FROM_ZERO.validate_python(value)
    except ValidationError:
        return None
