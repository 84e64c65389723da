"""The keys of several devices. One trains, so they ask for nothing: it computes what several would, only slower."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from tunemill.stages.declaration import Idle, Runtime, RuntimeMark, StageConfig, TextMark
from tunemill.stages.training.device_settings import AcceleratorSettings, FsdpSettings

ONE = "one device trains"
SAME = "the result is that of one with this micro_batch_size and gradient_accumulation_steps"
SHARDS = f"{ONE}, so nothing is sharded; {SAME}"
SPLITS = f"{ONE}, so no layer and no sequence is split among several, which would compute the same"
PLACES = f"{ONE}, and the whole model goes to it"
SPEAKS = f"{ONE}, so it exchanges nothing with others"
COPIES = f"{ONE}, so there are no copies of it; {SAME}"
READS = f"{ONE} process, and reads every batch itself"
STARTS = f"{ONE}, so there are no workers to start; {SAME}"
LIMITS = f"it limits what of the model goes where; {PLACES}"
RECOMPUTES = "for activations that are computed twice write gradient_checkpointing: true"
# What a DeepSpeed config may hold that would replace keys of the YAML, and those keys.
DEEPSPEED_REPLACES = {
    "optimizer": "optimizer, learning_rate, optim_args",
    "scheduler": "lr_scheduler, warmup_steps",
}


class DeviceKeys(StageConfig):
    """How the work is shared among devices and processes; each is checked, and noted."""

    fsdp: Runtime[str | list[str] | None] = Field(None, description=f"how FSDP shards: {SHARDS}")
    fsdp_version: Runtime[Literal[1, 2] | None] = Field(None, description=f"FSDP 1 or 2: {SHARDS}")
    fsdp_config: Runtime[FsdpSettings | None] = Field(None, description=f"settings of FSDP: {SHARDS}")
    deepspeed: Annotated[str | dict[str, Any] | None, RuntimeMark(), TextMark()] = Field(
        None, description=f"DeepSpeed's settings, or their file: {SHARDS}"
    )
    deepcompile: Runtime[bool] = Field(False, description=f"DeepSpeed's compiler: {SHARDS}")
    fp8_enable_fsdp_float8_all_gather: Runtime[bool] = Field(
        False, description=f"gather shards as float8: {SHARDS}"
    )
    qlora_sharded_model_loading: Runtime[bool] = Field(
        False, description=f"load 4-bit weights on one process, and shard them: {SHARDS}"
    )
    dp_shard_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share one copy of the model: {SHARDS}"
    )
    dp_replicate_size: Runtime[PositiveInt | None] = Field(None, description=f"copies of the model: {COPIES}")
    context_parallel_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share a sequence: {SPLITS}"
    )
    tensor_parallel_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share a layer: {SPLITS}"
    )
    expert_parallel_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share the experts of a layer: {SPLITS}"
    )
    heads_k_stride: Runtime[PositiveInt | None] = Field(
        None, description=f"heads that are exchanged at a time: {SPLITS}"
    )
    ring_attn_func: Runtime[Literal["varlen_llama3", "batch_ring"] | None] = Field(
        None, description=f"attention over a shared sequence: {SPLITS}"
    )
    ddp: Runtime[bool | None] = Field(None, description=f"copies that exchange gradients: {SPEAKS}")
    ddp_timeout: Runtime[PositiveInt | None] = Field(
        None, description=f"seconds to wait for others: {SPEAKS}"
    )
    ddp_bucket_cap_mb: Runtime[PositiveInt | None] = Field(
        None, description=f"megabytes exchanged at a time: {SPEAKS}"
    )
    ddp_broadcast_buffers: Runtime[bool | None] = Field(
        None, description=f"send buffers to the others: {SPEAKS}"
    )
    ddp_find_unused_parameters: Runtime[bool | None] = Field(
        None, description=f"find what has no gradient before exchanging it: {SPEAKS}"
    )
    accelerator_config: Runtime[AcceleratorSettings | None] = Field(
        None, description=f"how processes share batches: {READS}"
    )
    use_ray: Runtime[bool] = Field(False, description=f"start the workers with Ray Train: {STARTS}")
    ray_num_workers: Runtime[PositiveInt | None] = Field(None, description=f"how many workers: {STARTS}")
    ray_run_name: Runtime[str | None] = Field(None, description=f"name of the run in Ray: {STARTS}")
    resources_per_worker: Runtime[dict[str, int | float] | None] = Field(
        None, description=f"what Ray sets aside for a worker: {STARTS}"
    )
    device_map: Runtime[str | dict[str, str | int] | None] = Field(
        None, description=f"which part of the model goes to which device: {PLACES}"
    )
    max_memory: Runtime[dict[int | Literal["cpu", "disk"], int | str] | None] = Field(
        None, description=f"memory of each device that weights may take: {PLACES}"
    )
    gpu_memory_limit: Runtime[NonNegativeInt | str | None] = Field(
        None, description=f"memory of each GPU that weights may take, in GiB or as text: {PLACES}"
    )
    experimental_skip_move_to_device: Runtime[bool] = Field(
        False, description=f"shard weights before they are moved: {PLACES}"
    )

    @field_validator("deepspeed", mode="after")
    @classmethod
    def _replaces_nothing(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        settings = value
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                settings = json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"the file is no valid JSON: {error}") from None
        for name in DEEPSPEED_REPLACES:
            if isinstance(settings, dict) and name in settings:
                raise ValueError(
                    f"its {name} would go before the keys of this file; take it out there, and write "
                    f"{DEEPSPEED_REPLACES[name]} here"
                )
        return value

    def idle(self) -> Iterator[Idle]:
        """What several devices would be asked for."""
        yield from super().idle()
        sizes = {
            "dp_shard_size": (self.dp_shard_size, SHARDS),
            "dp_replicate_size": (self.dp_replicate_size, COPIES),
            "context_parallel_size": (self.context_parallel_size, SPLITS),
            "tensor_parallel_size": (self.tensor_parallel_size, SPLITS),
            "expert_parallel_size": (self.expert_parallel_size, SPLITS),
        }
        yield from (Idle(key, reason) for key, (size, reason) in sizes.items() if (size or 1) > 1)
        others = {
            "fsdp": (self.fsdp, SHARDS),
            "fsdp_version": (self.fsdp_version, SHARDS),
            "fsdp_config": (self.fsdp_config, SHARDS),
            "deepspeed": (self.deepspeed, SHARDS),
            "deepcompile": (self.deepcompile, SHARDS),
            "fp8_enable_fsdp_float8_all_gather": (self.fp8_enable_fsdp_float8_all_gather, SHARDS),
            "qlora_sharded_model_loading": (self.qlora_sharded_model_loading, SHARDS),
            "heads_k_stride": (self.heads_k_stride, SPLITS),
            "ring_attn_func": (self.ring_attn_func, SPLITS),
            "ddp": (self.ddp, SPEAKS),
            "ddp_timeout": (self.ddp_timeout, SPEAKS),
            "ddp_bucket_cap_mb": (self.ddp_bucket_cap_mb, SPEAKS),
            "ddp_broadcast_buffers": (self.ddp_broadcast_buffers, SPEAKS),
            "ddp_find_unused_parameters": (self.ddp_find_unused_parameters, SPEAKS),
            "accelerator_config": (self.accelerator_config, READS),
            "use_ray": (self.use_ray, STARTS),
            "ray_num_workers": (self.ray_num_workers, STARTS),
            "ray_run_name": (self.ray_run_name, STARTS),
            "resources_per_worker": (self.resources_per_worker, STARTS),
            "device_map": (self.device_map, PLACES),
            "max_memory": (self.max_memory, LIMITS),
            "gpu_memory_limit": (self.gpu_memory_limit, LIMITS),
            "experimental_skip_move_to_device": (self.experimental_skip_move_to_device, PLACES),
        }
        for key, (value, reason) in others.items():
            if value not in (None, False, "", [], {}):
                recomputes = isinstance(value, FsdpSettings) and value.recomputes
                yield Idle(key, f"{reason}; {RECOMPUTES}" if recomputes else reason)
