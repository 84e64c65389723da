"""For each key of several devices: values that ask for something, and that a note says so."""

from stages.training.keys.case import Case

from stages.training.keys import observations as see

DEVICES: dict[str, list[Case]] = {
    "fsdp": [Case((None, ["full_shard", "auto_wrap"]), see.idle_keys)],
    "fsdp_version": [Case((None, 2), see.idle_keys)],
    "fsdp_config": [Case((None, {"reshard_after_forward": True}), see.idle_keys)],
    "deepspeed": [Case((None, {"zero_optimization": {"stage": 2}}), see.idle_keys)],
    "deepcompile": [Case((False, True), see.idle_keys)],
    "fp8_enable_fsdp_float8_all_gather": [Case((False, True), see.idle_keys)],
    "qlora_sharded_model_loading": [Case((False, True), see.idle_keys)],
    "asynchronous_checkpoints": [Case((None, True), see.idle_keys)],
    "dp_shard_size": [Case((None, 2), see.idle_keys)],
    "dp_replicate_size": [Case((None, 2), see.idle_keys)],
    "context_parallel_size": [Case((None, 2), see.idle_keys)],
    "tensor_parallel_size": [Case((None, 2), see.idle_keys)],
    "expert_parallel_size": [Case((None, 2), see.idle_keys)],
    "heads_k_stride": [Case((None, 1), see.idle_keys)],
    "ring_attn_func": [Case((None, "batch_ring"), see.idle_keys)],
    "ddp": [Case((None, True), see.idle_keys)],
    "ddp_timeout": [Case((None, 60), see.idle_keys)],
    "ddp_bucket_cap_mb": [Case((None, 25), see.idle_keys)],
    "ddp_broadcast_buffers": [Case((None, True), see.idle_keys)],
    "ddp_find_unused_parameters": [Case((None, True), see.idle_keys)],
    "accelerator_config": [Case((None, {"split_batches": True}), see.idle_keys)],
    "device_map": [Case((None, "auto"), see.idle_keys)],
    "max_memory": [Case((None, {0: "20GiB"}), see.idle_keys)],
    "gpu_memory_limit": [Case((None, 20), see.idle_keys)],
    "experimental_skip_move_to_device": [Case((False, True), see.idle_keys)],
}
