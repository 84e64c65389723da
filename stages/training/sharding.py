"""How a model is shared among several processes: what the keys ask for, read as one plan and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunemill.stages.declaration import ConflictError
from tunemill.stages.training.deepspeed import zero_of

# What FSDP1 called its strategies, and whether FSDP2 then frees gathered weights after the forward pass.
STRATEGIES = {"FULL_SHARD": True, "1": True, "SHARD_GRAD_OP": False, "2": False}
ELSEWHERE = {
    "NO_SHARD": "it shards nothing: take the FSDP keys out, and each process has a copy (DDP)",
    "HYBRID_SHARD": "FSDP2 has sizes in its place: write dp_replicate_size and dp_shard_size",
    "HYBRID_SHARD_ZERO2": "FSDP2 has sizes in its place: write dp_replicate_size, dp_shard_size and "
    "fsdp_config.reshard_after_forward: false",
}
NUMBERED = {"3": "NO_SHARD", "4": "HYBRID_SHARD", "5": "HYBRID_SHARD_ZERO2"}
BY_SIZE = (
    "SIZE_BASED_WRAP: by size a list of layers would be chosen, and PyTorch's FSDP2 shards no list. Write "
    "TRANSFORMER_BASED_WRAP, and name layers with transformer_layer_cls_to_wrap"
)
# What the older key `fsdp` may list beside a strategy; layers are wrapped either way.
WORDS = frozenset({"auto_wrap", "offload"})
PARTS = "checkpoints are always in parts, and the result in one piece"
FSDP2_HAS_NONE = "FSDP2 has no such setting"
# Settings of fsdp_config that ask for nothing, and why.
FSDP1_ONLY = {
    **dict.fromkeys(("state_dict_type", "final_state_dict_type"), PARTS),
    **dict.fromkeys(
        (
            "sync_module_states",
            "use_orig_params",
            "limit_all_gathers",
            "backward_prefetch",
            "forward_prefetch",
        ),
        FSDP2_HAS_NONE,
    ),
    "min_num_params": "it is for SIZE_BASED_WRAP, which FSDP2 cannot do",
    "mixed_precision_policy": "numbers have the precision that bf16 asks for, however many processes share them",
}
MIGRATE = (
    "FSDP1 is on its way out of transformers, and is not run here. Write version 2; take the prefix fsdp_ from the "
    "names in fsdp_config, where fsdp_sharding_strategy: FULL_SHARD becomes reshard_after_forward: true and "
    "SHARD_GRAD_OP false, and sync_module_states, use_orig_params, limit_all_gathers and prefetching go"
)


@dataclass(frozen=True)
class Fsdp:
    """FSDP2's settings. `layers`: classes of modules that are sharded together; none are those the model names."""

    policy: str = "TRANSFORMER_BASED_WRAP"
    layers: tuple[str, ...] = ()
    reshards: bool = True
    offloads: bool = False
    pins: bool = True
    recomputes: bool = False
    loads_on_first: bool = False


@dataclass(frozen=True)
class Zero:
    """DeepSpeed's settings: a ZeRO stage of 0 to 3, and what its config holds beside."""

    stage: int
    settings: Mapping[str, Any]
    compiles: bool = False


@dataclass(frozen=True)
class Sharding:
    """`copies` x `shards` x `context` processes. Without FSDP and ZeRO every process has a whole copy.

    `context` processes have a part of each sequence, and the same rows.
    """

    processes: int = 1
    copies: int = 1
    shards: int = 1
    context: int = 1
    fsdp: Fsdp | None = None
    zero: Zero | None = None

    @property
    def replicas(self) -> int:
        """How many processes, or groups of them, read rows of their own."""
        return self.processes // self.context

    @property
    def stretches(self) -> int:
        """Into how many stretches of one length a sequence is cut: two for each of the processes that split it."""
        return 1 if self.context == 1 else 2 * self.context

    @property
    def in_parts(self) -> bool:
        """Whether checkpoints are written in parts, by FSDP or DeepSpeed, in place of a whole model and optimizer."""
        return self.fsdp is not None or self.zero is not None

    @property
    def splits(self) -> bool:
        """Whether no process has the whole model."""
        return self.fsdp is not None or (self.zero is not None and self.zero.stage == 3)


def sharding_of(config: Any, processes: int) -> Sharding:
    """The plan for so many processes. Raises ConflictError for what contradicts itself, or their number."""
    if processes == 1:
        return Sharding()
    context = config.context_parallel_size or 1
    try:
        zero = zero_of(config.deepspeed)
    except ValueError as error:
        raise ConflictError(str(error), "deepspeed") from None
    asks = config.asks_for_fsdp
    if zero is not None and asks:
        raise ConflictError("fsdp and deepspeed both shard the model; keep one of them", "deepspeed", *asks)
    # Processes that split a sequence share the model, too: accelerate knows no other way.
    fsdp = fsdp_of(config) if asks or (context > 1 and zero is None) else None
    if zero is not None:
        return _with_zero(config, processes, Zero(*zero, compiles=config.deepcompile))
    if config.deepcompile:
        raise ConflictError(
            "deepcompile compiles for DeepSpeed; name its settings with deepspeed", "deepcompile"
        )
    copies = config.dp_replicate_size or 1
    rest, left = divmod(processes, context * copies)
    if fsdp is None:
        copies, shards, left = (
            (rest * copies, 1, left) if config.dp_replicate_size is None else (copies, 1, left or rest - 1)
        )
    else:
        shards = config.dp_shard_size or rest
        left = left or rest - shards
    if left:
        raise ConflictError(_product(config, processes, fsdp is not None), *SIZES)
    if context > 1 and copies > 1 and shards == 1:
        raise ConflictError(
            f"dp_replicate_size: {copies}: beside context_parallel_size a whole copy of the model is kept by the "
            f"{context} processes that split a sequence, and accelerate has no copies of such. Take dp_replicate_size "
            f"out, and those that read other rows share the model, too",
            "dp_replicate_size",
            "context_parallel_size",
        )
    if fsdp is not None and shards == context == 1:
        raise ConflictError(
            "dp_shard_size is 1, so FSDP would shard nothing: take the FSDP keys out, and each process has a copy "
            "(DDP), or raise dp_shard_size",
            "dp_shard_size",
            "dp_replicate_size",
            *asks,
        )
    return Sharding(processes, copies, shards, context, fsdp)


SIZES = ("dp_shard_size", "dp_replicate_size", "context_parallel_size")


def _product(config: Any, processes: int, shards: bool) -> str:
    given = {name: getattr(config, name) for name in SIZES if getattr(config, name) is not None}
    product = 1
    for size in given.values():
        product *= size
    shown = " x ".join(f"{name} {size}" for name, size in given.items())
    open_one = "dp_shard_size" if shards else "dp_replicate_size"
    fills = "" if open_one in given else f"; {open_one}, which is unset, fills up what is left"
    return f"{shown} makes {product}, and {processes} processes train{fills}. The sizes must multiply to their number"


def _with_zero(config: Any, processes: int, zero: Zero) -> Sharding:
    sizes = {name: getattr(config, name) or 1 for name in SIZES[1:]}
    for name, size in sizes.items():
        if size > 1:
            raise ConflictError(
                f"{name}: {size}: DeepSpeed shards over all {processes} processes; with FSDP (fsdp_version: 2) there "
                f"are sizes",
                name,
                "deepspeed",
            )
    if config.dp_shard_size not in (None, processes):
        raise ConflictError(
            f"dp_shard_size: {config.dp_shard_size}: DeepSpeed shards over all {processes} processes",
            "dp_shard_size",
            "deepspeed",
        )
    shards = processes if zero.stage else 1
    return Sharding(processes, processes // shards, shards, zero=zero)


def fsdp_of(config: Any) -> Fsdp:
    """FSDP2's settings from its keys, under whichever of their names. Raises ConflictError for FSDP1."""
    given = config.fsdp_settings
    if (config.fsdp_version or given.get("version")) == 1:
        raise ConflictError(MIGRATE, "fsdp_version", "fsdp_config", "fsdp")
    words = {word.lower() for word in config.fsdp_words}
    unknown = sorted(words - WORDS - {name.lower() for name in (*STRATEGIES, *ELSEWHERE)})
    if unknown:
        known = ", ".join(sorted({*WORDS, "full_shard", "shard_grad_op"}))
        raise ConflictError(f"fsdp: {', '.join(unknown)}: no word of it; there are {known}", "fsdp")
    named = [word.upper() for word in config.fsdp_words if word.upper() in {*STRATEGIES, *ELSEWHERE}]
    strategy = str(given.get("sharding_strategy") or next(iter(named), "FULL_SHARD")).upper()
    strategy = NUMBERED.get(strategy, strategy)
    if strategy in ELSEWHERE:
        raise ConflictError(f"{strategy}: {ELSEWHERE[strategy]}", "fsdp_config", "fsdp")
    if given.get("auto_wrap_policy") == "SIZE_BASED_WRAP":
        raise ConflictError(BY_SIZE, "fsdp_config")
    layers = given.get("transformer_layer_cls_to_wrap") or ()
    return Fsdp(
        policy=given.get("auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
        layers=tuple(layers.split(",") if isinstance(layers, str) else layers),
        reshards=given.get("reshard_after_forward", STRATEGIES[strategy]),
        offloads=given.get("offload_params", "offload" in words),
        pins=given.get("cpu_offload_pin_memory", True),
        recomputes=given.get("activation_checkpointing", False),
        loads_on_first=given.get("cpu_ram_efficient_loading", False),
    )
