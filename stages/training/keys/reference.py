"""The keys of methods that compare the model with a frozen one, the reference."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Runtime
from tunemill.stages.training.keys.following import SYNC, FollowedKeys
from tunemill.stages.training.keys.pairs import PairKeys


class HeldKeys(PairKeys):
    """How strongly the model is held to the reference, which is the one that training starts from."""

    rl_beta: PositiveFloat = Field(0.1, description="how strongly the model is held to the reference")
    rl_adapter_ref_model: Runtime[bool | None] = Field(
        None, description="asks for nothing: the reference is the model that training starts from either way"
    )
    lora_dropout: Runtime[float] = Field(
        0.0, ge=0, lt=1, description="asks for nothing: what is compared with a reference is without dropout"
    )

    @property
    def asks_beside_each_step(self) -> bool:
        """Whether the reference is asked beside each step, in place of a node that has stored what it says."""
        return False

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if self.has_factors and self.peft_layer_replication and not self.asks_beside_each_step:
            raise ConflictError(
                "peft_layer_replication: training starts from a model with more layers than the reference, which is "
                "asked before. Remove it; rl: dpo and rl: ipo can ask beside each step, with precompute_ref_log_probs: "
                "false",
                "peft_layer_replication",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """Dropout that is left out, and an old way to name the reference."""
        yield from super().idle()
        if self.lora_dropout:
            yield Idle(
                "lora_dropout", "what is compared with a reference is computed without dropout, as in TRL"
            )
        if self.rl_adapter_ref_model:
            yield Idle(
                "rl_adapter_ref_model",
                "the reference is the model that training starts from, with the adapter of lora_model_dir if there is "
                "one",
            )


class ReferenceKeys(HeldKeys, FollowedKeys):
    """When the reference is asked, and how it follows."""

    precompute_ref_log_probs: bool | None = Field(
        None,
        description="compute what the reference says once, as a node of its own, which is the default; false: beside "
        "each step, on an adapter's base without it, or on a copy of the model",
    )

    @property
    def asks_beside_each_step(self) -> bool:
        """As these keys say."""
        return self.sync_ref_model or self.precompute_ref_log_probs is False

    @property
    def holds_a_copy(self) -> bool:
        """Whether the reference is a second model beside the one that is trained."""
        return self.asks_beside_each_step and self.adapter is None

    @model_validator(mode="after")
    def _check_reference(self) -> Self:
        if self.sync_ref_model and self.precompute_ref_log_probs:
            raise ConflictError(
                "precompute_ref_log_probs: true: with sync_ref_model the reference changes as training goes on, so "
                "nothing can be computed before. Remove one",
                "precompute_ref_log_probs",
                "sync_ref_model",
            )
        if self.sync_ref_model and self.adapter is not None:
            raise ConflictError(
                "sync_ref_model: true: beside an adapter the reference is the base without it, and there is no copy "
                "that could follow. Remove it, or remove adapter",
                "sync_ref_model",
                "adapter",
            )
        if self.asks_beside_each_step and (self.lora_model_dir or self.has_stored_adapter):
            raise ConflictError(
                "precompute_ref_log_probs: false: with lora_model_dir the reference is the base with the stored "
                "adapter, which changes as it is trained. Remove it: what the reference says is then stored before",
                "precompute_ref_log_probs",
                "lora_model_dir",
            )
        if self.asks_beside_each_step and (key := self._key_that_changes_base):
            raise ConflictError(
                f"precompute_ref_log_probs: false: beside an adapter the reference is the base without it, and {key} "
                f"changes that base. Remove one",
                "precompute_ref_log_probs",
                key,
            )
        return self

    @property
    def _key_that_changes_base(self) -> str | None:
        if not self.has_factors:
            return None
        if self.takes_start_out or self.rounds_base:
            return "peft_init_lora_weights" if self.is_set("peft_init_lora_weights") else "peft"
        return "relora" if self.relora else None

    def idle(self) -> Iterator[Idle]:
        """How to follow where nothing follows, and what is computed before either way."""
        yield from super().idle()
        if not self.sync_ref_model:
            for key in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
                if self.is_set(key):
                    yield Idle(key, f"{SYNC} is off")
        if self.precompute_ref_log_probs:
            yield Idle(
                "precompute_ref_log_probs", "what the reference says is computed once anyway, as a node"
            )
