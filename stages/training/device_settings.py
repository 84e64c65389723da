"""What FSDP and Accelerate are told: names and types, so that a misspelled one is noticed."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import Settings

StateDict = Literal["FULL_STATE_DICT", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT"]
WrapPolicy = Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"]
Sharding = Literal["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2"]
Prefetch = Literal["BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH"]


OLDER = "fsdp_"


class FsdpSettings(Settings):
    """`fsdp_config`: each setting under its name, and under the older one that begins with fsdp_."""

    version: Literal[1, 2] | None = Field(None, description="1 or 2")
    activation_checkpointing: bool | None = Field(None, description="as gradient_checkpointing")
    offload_params: bool | None = Field(None, description="keep shards in main memory")
    sync_module_states: bool | None = Field(None, description="load on one process, send to the others")
    cpu_ram_efficient_loading: bool | None = Field(None, description="load on one process only")
    cpu_offload_pin_memory: bool | None = Field(None, description="page-locked shards")
    use_orig_params: bool | None = Field(None, description="keep parameters apart")
    limit_all_gathers: bool | None = Field(None, description="few gathers at a time")
    state_dict_type: StateDict | None = Field(None, description="how checkpoints are written")
    final_state_dict_type: StateDict | None = Field(None, description="how the result is written")
    auto_wrap_policy: WrapPolicy | None = Field(None, description="what is sharded together")
    transformer_layer_cls_to_wrap: str | list[str] | None = Field(None, description="classes of layers")
    min_num_params: PositiveInt | None = Field(None, description="smallest module that is sharded")
    reshard_after_forward: bool | None = Field(None, description="free gathered weights at once")
    mixed_precision_policy: str | None = Field(None, description="precision of what is exchanged")
    sharding_strategy: Sharding | Literal[1, 2, 3, 4, 5] | None = Field(None, description="what is sharded")
    backward_prefetch: Prefetch | None = Field(None, description="when the next weights are gathered")
    forward_prefetch: bool | None = Field(None, description="gather the next weights early")
    fsdp_version: Literal[1, 2] | None = Field(None, description="version")
    fsdp_activation_checkpointing: bool | None = Field(None, description="activation_checkpointing")
    fsdp_offload_params: bool | None = Field(None, description="offload_params")
    fsdp_sync_module_states: bool | None = Field(None, description="sync_module_states")
    fsdp_cpu_ram_efficient_loading: bool | None = Field(None, description="cpu_ram_efficient_loading")
    fsdp_cpu_offload_pin_memory: bool | None = Field(None, description="cpu_offload_pin_memory")
    fsdp_use_orig_params: bool | None = Field(None, description="use_orig_params")
    fsdp_limit_all_gathers: bool | None = Field(None, description="limit_all_gathers")
    fsdp_state_dict_type: StateDict | None = Field(None, description="state_dict_type")
    fsdp_final_state_dict_type: StateDict | None = Field(None, description="final_state_dict_type")
    fsdp_auto_wrap_policy: WrapPolicy | None = Field(None, description="auto_wrap_policy")
    fsdp_transformer_layer_cls_to_wrap: str | list[str] | None = Field(
        None, description="transformer_layer_cls_to_wrap"
    )
    fsdp_min_num_params: PositiveInt | None = Field(None, description="min_num_params")
    fsdp_reshard_after_forward: bool | None = Field(None, description="reshard_after_forward")
    fsdp_mixed_precision_policy: str | None = Field(None, description="mixed_precision_policy")
    fsdp_sharding_strategy: Sharding | Literal[1, 2, 3, 4, 5] | None = Field(
        None, description="sharding_strategy"
    )
    fsdp_backward_prefetch: Prefetch | None = Field(None, description="backward_prefetch")
    fsdp_forward_prefetch: bool | None = Field(None, description="forward_prefetch")

    def by_newer_names(self) -> dict[str, Any]:
        """What is set, without the prefix; a setting under both of its names has one value."""
        found = self.model_dump(exclude_none=True)
        return {name.removeprefix(OLDER): value for name, value in found.items()}

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        given = self.model_dump(exclude_none=True)
        for name, value in given.items():
            newer = name.removeprefix(OLDER)
            if newer != name and given.get(newer, value) != value:
                raise ValueError(f"{newer} and {name}, its older name, say different things; keep {newer}")
        return self

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed twice instead of kept."""
        return bool(self.activation_checkpointing or self.fsdp_activation_checkpointing)


class AccumulationSettings(Settings):
    """`accelerator_config.gradient_accumulation_kwargs`."""

    num_steps: None = Field(None, description="refused: gradient_accumulation_steps says it")
    adjust_scheduler: bool | None = Field(None, description="steps of the schedule: one per optimizer step")
    sync_with_dataloader: bool | None = Field(None, description="an epoch ends a step: always")
    sync_each_batch: bool | None = Field(None, description="exchange gradients in each micro batch")

    @field_validator("num_steps", mode="before")
    @classmethod
    def _said_elsewhere(cls, value: object) -> object:
        if value is not None:
            raise ValueError(f"write gradient_accumulation_steps: {value} at the top level in its place")
        return value


class AcceleratorSettings(Settings):
    """`accelerator_config`: how processes share batches."""

    split_batches: bool | None = Field(None, description="a batch is shared among processes")
    dispatch_batches: bool | None = Field(None, description="one process reads for all")
    even_batches: bool | None = Field(None, description="each process gets as many")
    use_seedable_sampler: bool | None = Field(None, description="order drawn from a seed: always")
    non_blocking: bool | None = Field(None, description="copy batches while computing")
    use_configured_state: bool | None = Field(None, description="take over a state of Accelerate")
    gradient_accumulation_kwargs: AccumulationSettings | None = Field(None, description="accumulation")
