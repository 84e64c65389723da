"""The keys of several devices. Where one process trains they ask for nothing: it computes what several would.

Where several do (`pipeline.launcher`), each holds the whole model and they exchange gradients (DDP), or they share it
out: stages/training/sharding.py.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import (
    ConflictError,
    Fault,
    GraphMark,
    Idle,
    Runtime,
    RuntimeMark,
    StageConfig,
    TextMark,
)
from tunemill.stages.training.deepspeed import check, precision_blocks, settings_of
from tunemill.stages.training.device_settings import OLDER, AcceleratorSettings, FsdpSettings
from tunemill.stages.training.keys.in_parts import DEEPSPEED_EXTRA, lacks_deepspeed
from tunemill.stages.training.sharding import FSDP1_ONLY, Fsdp, Sharding, sharding_of

ONE = "one device trains"
SAME = "the result is that of one with this micro_batch_size and gradient_accumulation_steps"
SHARED = "what processes share out, and how, changes no result"
SHARDS = f"{ONE}, so nothing is sharded; {SAME}"
SPLITS = f"{ONE}, so no layer and no sequence is split among several, which would compute the same"
PLACES = f"{ONE}, and the whole model goes to it"
SPEAKS = f"{ONE}, so it exchanges nothing with others"
COPIES = f"{ONE}, so there are no copies of it; {SAME}"
LOADS_BITS = "each process reads the weights in 4 bits by itself, and keeps its part of them"
PRECISION = "the precision is that of the keys bf16 and fp16, under autocast, with float32 weights"
READS = f"{ONE} process, and reads every batch itself"
LIMITS = f"it limits what of the model goes where; {PLACES}"
RECOMPUTES = "for activations that are computed twice write gradient_checkpointing: true"
INSTEAD = "Take it out, or set pipeline.launcher: {kind: python} to train in one process"
WHOLE = "each process that trains has a device of its own, and the whole model goes to it"
AMONG_SEVERAL = {
    READS: "each process reads its own part of each step, and no row twice",
    PLACES: WHOLE,
    LIMITS: WHOLE,
}
NO_WAY_ON = "when a model is loaded have no checkpoint to go on from in transformers"
# Sizes that are refused where several processes train, and why.
UNPROVEN_SIZES = {
    "tensor_parallel_size": f"layers that are split {NO_WAY_ON}; fsdp_version: 2 shares them out",
    "expert_parallel_size": f"experts that are split {NO_WAY_ON}; fsdp_version: 2 shares them out as any weight",
}
WRITTEN_BY_FSDP = "PyTorch writes so what FSDP2 shares out; the training waits for other checkpoints"
ONE_WAY = "PyTorch splits attention in one way, in which the keys of all heads are exchanged at once"
# What a model in parts leaves nothing to ask for; ddp_timeout counts for every group of processes.
OF_DDP = ("ddp", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters")
FLOAT8 = "fp8_enable_fsdp_float8_all_gather"
ROUNDS_GATHERED = (
    f"{FLOAT8}: true rounds the weights that processes gather, and a result may not depend on how many"
)


class DeviceKeys(StageConfig):
    """How the work is shared among devices and processes; each is checked, and noted where one process trains."""

    processes: Annotated[Runtime[int], GraphMark()] = Field(
        1, description="how many processes train together: the same steps, shared out"
    )
    fsdp: Runtime[str | list[str] | None] = Field(None, description=f"how FSDP shards: {SHARED}")
    fsdp_version: Runtime[Literal[1, 2] | None] = Field(None, description=f"FSDP 1 or 2: {SHARED}")
    fsdp_config: Runtime[FsdpSettings | None] = Field(None, description=f"settings of FSDP: {SHARED}")
    deepspeed: Annotated[str | dict[str, Any] | None, RuntimeMark(), TextMark()] = Field(
        None, description=f"DeepSpeed's settings, or their file: {SHARED}"
    )
    deepcompile: Runtime[bool] = Field(False, description=f"DeepSpeed's compiler: {SHARED}")
    fp8_enable_fsdp_float8_all_gather: Runtime[bool] = Field(
        False, description=f"gather shards as float8: {SHARED}"
    )
    qlora_sharded_model_loading: Runtime[bool] = Field(
        False, description=f"load 4-bit weights on one process, and shard them: {SHARED}"
    )
    asynchronous_checkpoints: Runtime[bool | None] = Field(
        None,
        description="write checkpoints while training goes on, from a copy in main memory, unset where FSDP shares the "
        "model: for resuming only",
    )
    dp_shard_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share one copy of the model: {SHARED}"
    )
    dp_replicate_size: Runtime[PositiveInt | None] = Field(None, description=f"copies of the model: {SHARED}")
    context_parallel_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share a sequence: {SHARED}"
    )
    tensor_parallel_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share a layer: {SPLITS}"
    )
    expert_parallel_size: Runtime[PositiveInt | None] = Field(
        None, description=f"devices that share the experts of a layer: {SPLITS}"
    )
    heads_k_stride: Runtime[PositiveInt | None] = Field(
        None, description=f"heads that are exchanged at a time: {SHARED}"
    )
    ring_attn_func: Runtime[Literal["varlen_llama3", "batch_ring"] | None] = Field(
        None, description=f"attention over a shared sequence: {SHARED}"
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
    def _leaves_the_result_alone(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        settings = settings_of(value)
        if settings is not None:
            check(settings)
        return value

    @property
    def ranks(self) -> int:
        """How many processes run the stage's body together."""
        return self.processes

    @property
    def may_be_spread(self) -> bool:
        """Whether several processes can run the stage's body together."""
        return True

    @property
    def loads_bits(self) -> bool:
        """Whether the base is asked to be in 4 bits."""
        return False

    @property
    def asks_for_fsdp(self) -> tuple[str, ...]:
        """The keys that ask for FSDP."""
        shards = self.deepspeed is None and (self.dp_shard_size or 1) > 1
        asked = {
            "fsdp_version": self.fsdp_version,
            "fsdp": self.fsdp,
            "fsdp_config": self.fsdp_config,
            "dp_shard_size": shards,
        }
        return tuple(key for key, value in asked.items() if value)

    @property
    def fsdp_words(self) -> list[str]:
        """What the older key `fsdp` lists."""
        return self.fsdp.split() if isinstance(self.fsdp, str) else list(self.fsdp or ())

    @property
    def fsdp_settings(self) -> dict[str, Any]:
        """What `fsdp_config` sets, by the newer names."""
        return {} if self.fsdp_config is None else self.fsdp_config.by_newer_names()

    @property
    def sharding(self) -> Sharding:
        """How the processes share the model. Raises ConflictError for what contradicts itself, or their number."""
        return sharding_of(self, self.processes)

    @model_validator(mode="after")
    def _check_sharding(self) -> Self:
        plan = self.sharding
        for key, reason in UNPROVEN_SIZES.items():
            if self.processes > 1 and (getattr(self, key) or 1) > 1:
                raise ConflictError(f"{key}: {reason}. {INSTEAD}", key)
        if self.fp8_enable_fsdp_float8_all_gather and plan.fsdp is not None:
            raise ConflictError(f"{ROUNDS_GATHERED}. Take it out", FLOAT8)
        return self

    def faults(self) -> Iterator[Fault]:
        """A package that is not there."""
        yield from super().faults()
        if lacks_deepspeed(self):
            yield Fault("deepspeed", DEEPSPEED_EXTRA)

    def idle(self) -> Iterator[Idle]:
        """What several devices would be asked for, where one trains; and what Tunemill decides by itself."""
        yield from super().idle()
        alone = self.processes == 1
        sizes = {
            "dp_shard_size": (self.dp_shard_size, SHARDS),
            "dp_replicate_size": (self.dp_replicate_size, COPIES),
            "context_parallel_size": (self.context_parallel_size, SPLITS),
            "tensor_parallel_size": (self.tensor_parallel_size, SPLITS),
            "expert_parallel_size": (self.expert_parallel_size, SPLITS),
        }
        yield from (Idle(key, reason) for key, (size, reason) in sizes.items() if alone and (size or 1) > 1)
        exchanged = {
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
        }
        if self.asynchronous_checkpoints and self.sharding.fsdp is None:
            yield Idle("asynchronous_checkpoints", WRITTEN_BY_FSDP)
        others = {
            "accelerator_config": (self.accelerator_config, READS),
            "device_map": (self.device_map, PLACES),
            "max_memory": (self.max_memory, LIMITS),
            "gpu_memory_limit": (self.gpu_memory_limit, LIMITS),
            "experimental_skip_move_to_device": (self.experimental_skip_move_to_device, PLACES),
        }
        if not alone:
            yield from self._idle_in_parts()
        for key, (value, reason) in ({**exchanged, **others} if alone else others).items():
            if value not in (None, False, "", [], {}):
                recomputes = isinstance(value, FsdpSettings) and value.recomputes
                said = reason if alone else AMONG_SEVERAL[reason]
                yield Idle(key, f"{said}; {RECOMPUTES}" if recomputes else said)

    def _idle_in_parts(self) -> Iterator[Idle]:
        """What FSDP2, checkpoints in parts and a result in one piece leave nothing to ask for."""
        plan = self.sharding
        if plan.fsdp is not None and self.fsdp_config is not None:
            reasons = {**FSDP1_ONLY, **self._idle_of_fsdp(plan.fsdp)}
            for name in self.fsdp_config.model_dump(exclude_none=True):
                if reason := reasons.get(name.removeprefix(OLDER)):
                    yield Idle(f"fsdp_config.{name}", reason)
        if plan.zero is not None and (blocks := precision_blocks(plan.zero.settings)):
            yield Idle("deepspeed", f"its {' and '.join(blocks)}: {PRECISION}")
        if not plan.in_parts and self.ddp is False:
            yield Idle(
                "ddp", "processes that each hold the whole model exchange gradients by DDP, or not at all"
            )
        if plan.in_parts:
            for name in OF_DDP:
                if getattr(self, name):
                    yield Idle(name, "it is of DDP; FSDP and DeepSpeed exchange gradients in their own ways")
        exchanges = ONE_WAY if plan.context > 1 else "no sequence is split among processes"
        unused = {
            FLOAT8: (plan.fsdp is None and self.fp8_enable_fsdp_float8_all_gather, "FSDP shares nothing out"),
            "heads_k_stride": (self.heads_k_stride, exchanges),
            "ring_attn_func": (self.ring_attn_func, exchanges),
            "qlora_sharded_model_loading": (
                self.qlora_sharded_model_loading,
                LOADS_BITS if plan.splits else "each process has the whole model",
            ),
        }
        yield from (Idle(key, reason) for key, (value, reason) in unused.items() if value)

    def _idle_of_fsdp(self, fsdp: Fsdp) -> dict[str, str]:
        """Settings of `fsdp_config` that others leave nothing to ask for, and why."""
        found = {} if fsdp.offloads else {"cpu_offload_pin_memory": "offload_params is off"}
        return {**found, "cpu_ram_efficient_loading": LOADS_BITS} if self.loads_bits else found
