"""Cases of the keys of online training, where they reach what samples, judges and learns."""

from typing import Any

from stages.training.keys.case import Case

from stages.training.keys import observations as see

BESIDE: dict[str, Any] = {
    "reward_funcs": ["letters.right"],
    "reward_code": ["/letters.py"],
    "micro_batch_size": 8,
}

COUNTER: dict[str, Any] = {"environment_factory": "counting.Counter"}
COUNTER_CODE: dict[str, Any] = {"environment_code": ["/counting.py"]}


def of(values: tuple[Any, ...], observe: see.Observe, method: str = "grpo", **beside: Any) -> list[Case]:
    """A case of these values."""
    return [Case(values, observe, {**BESIDE, **beside}, method=method)]


def of_ebft(values: tuple[Any, ...], **beside: Any) -> list[Case]:
    """A case of these values of a key that `ebft` has alone."""
    return [Case(values, see.featured, {"micro_batch_size": 8, **beside}, method="ebft")]


ONLINE: dict[str, list[Case]] = {
    "num_generations": of((8, 4), see.sampled),
    "max_completion_length": of((256, 8), see.sampled),
    "temperature": of((1.0, 0.5), see.sampled),
    "top_p": of((1.0, 0.9), see.sampled),
    "top_k": of((None, 5), see.sampled),
    "min_p": of((None, 0.1), see.sampled),
    "repetition_penalty": of((1.0, 1.2), see.sampled),
    "generation_kwargs": of(({}, {"stop_token_ids": [5]}, {"eos_token_id": 6}), see.sampled),
    "generation_batch_size": of((None, 16), see.sampled),
    "steps_per_generation": of((None, 2), see.sampled),
    "num_iterations": of((1, 2), see.sampled),
    "num_generations_eval": of((None, 2), see.held_out, eval_steps=1),
    "completions_at_once": of((64, 8), see.sampled),
    "beta": of((0.0, 0.1), see.learned),
    "rl_beta": of((None, 0.1), see.learned),
    "mask_truncated_completions": of((False, True), see.learned),
    "skip_zero_advantage_batches": of((True, False), see.learned),
    "log_completions": of((False, True), see.learned),
    "num_completions_to_print": of((None, 2), see.learned, log_completions=True),
    "keep_rollouts": of((10_000, 0), see.learned),
    "loss_type": of(("dapo", "grpo", "dr_grpo"), see.learned),
    "epsilon": of((0.2, 0.1), see.learned),
    "epsilon_high": of((None, 0.3), see.learned),
    "delta": of((None, 2.0), see.learned),
    "importance_sampling_level": of(("token", "sequence"), see.learned),
    "scale_rewards": of(("group", "batch", False), see.learned),
    "multi_objective_aggregation": of((None, "normalize_then_sum"), see.learned),
    "top_entropy_quantile": of((1.0, 0.2), see.learned),
    "entropy_coef": of((0.0, 0.1), see.learned),
    "off_policy_mask_threshold": of((None, 0.5), see.learned),
    "use_bias_correction_kl": of((True, False), see.learned, beta=0.1),
    "reward_funcs": of((["letters.right"], ["letters.short"]), see.judged),
    "reward_code": of((["/letters.py"], ["/letters.py", "/others.py"]), see.judged),
    "reward_weights": of((None, [0.5]), see.judged),
    "reward_num_workers": of((1, 2), see.judged),
    "reward_timeout": of((300.0, 1.0), see.judged),
    "failed_rewards": of((0.25, 0.5), see.judged),
    "environment_factory": of((None, "counting.Counter"), see.called, environment_code=["/counting.py"]),
    "environment_code": of((["/counting.py"], ["/counting.py", "/b.py"]), see.called, **COUNTER),
    "environment_reward": of(("sum", "last"), see.called, environment_factory="http://there:8000"),
    "tools": of(([], ["counting.double"]), see.called, tools_code=["/counting.py"]),
    "tools_code": of((["/counting.py"], ["/counting.py", "/b.py"]), see.called, tools=["counting.double"]),
    "rollout_func": of((None, "letters.play"), see.called, rollout_code=["/letters.py"]),
    "rollout_code": of((["/letters.py"], ["/letters.py", "/b.py"]), see.called, rollout_func="letters.play"),
    "max_tool_calling_iterations": of((None, 2), see.called, **COUNTER, **COUNTER_CODE),
    "chat_template_kwargs": of(({}, {"a": 1}), see.called, **COUNTER, **COUNTER_CODE),
    "rewards_chat_template_kwargs": of(({}, {"a": 1}), see.called, **COUNTER, **COUNTER_CODE),
    "use_vllm": of((False, True), see.engine),
    "vllm_mode": of(("server", "colocate"), see.engine, use_vllm=True),
    "vllm_tensor_parallel_size": of((None, 2), see.engine, use_vllm=True),
    "vllm_share_of_block": of((None, 0.5), see.engine, use_vllm=True, vllm_mode="colocate"),
    "vllm_gpus_of_block": of((None, 2), see.engine, use_vllm=True, vllm_mode="colocate"),
    "vllm_enable_sleep_mode": of((False, True), see.idle_keys, use_vllm=True),
    "vllm_server_base_url": of((None, "http://there:1"), see.engine, use_vllm=True),
    "vllm_server_host": of((None, "there"), see.engine, use_vllm=True),
    "vllm_server_port": of((None, 9000), see.engine, use_vllm=True),
    "vllm_server_timeout": of((900.0, 10.0), see.engine, use_vllm=True),
    "vllm_gpu_memory_utilization": of((None, 0.5), see.engine, use_vllm=True),
    "vllm_max_model_len": of((None, 4096), see.engine, use_vllm=True),
    "vllm_dtype": of((None, "float32"), see.engine, use_vllm=True),
    "vllm_lora_sync": of((None, True), see.engine, use_vllm=True),
    "vllm_sync_interval": of((1, 2), see.engine, use_vllm=True),
    "vllm_importance_sampling_correction": of((True, False), see.learned, use_vllm=True),
    "vllm_importance_sampling_mode": of(("sequence_mask", "token_mask"), see.learned, use_vllm=True),
    "vllm_importance_sampling_clip_max": of((3.0, 2.0), see.learned, use_vllm=True),
    "vllm_importance_sampling_clip_min": of((None, 0.1), see.learned, use_vllm=True),
    "vllm_importance_sampling_cap": of((None, 2.0), see.learned, use_vllm=True),
    "use_data_producer": of((False, True), see.idle_keys),
    "async_prefetch": of((False, True), see.older),
    "prefetch_depth": of((None, 2), see.older, async_prefetch=True),
    "max_staleness": of((None, 2), see.older, async_prefetch=True, prefetch_depth=3),
    "streaming_partial_batch": of((False, True), see.judged),
    "streaming_min_groups": of((None, 2), see.judged, streaming_partial_batch=True),
    "replay_buffer_size": of((0, 4), see.older),
    "replay_recompute_logps": of((True, False), see.older, replay_buffer_size=4),
    "reroll_start_fraction": of((1.0, 0.5), see.older),
    "reroll_max_groups": of((1, 2), see.older, reroll_start_fraction=0.5),
    "vllm_python": of((None, "/there/bin/python"), see.engine, use_vllm=True),
    "mode": of_ebft(("structured", "strided")),
    "feature_layers": of_ebft(([0.25, 0.5, 0.75], [0.5])),
    "embed_method": of_ebft(("last_token", "mean_pooling", "completion_mean", "concat")),
    "use_whitening": of_ebft((False, True)),
    "alignment_coef": of_ebft((1.0, 0.5)),
    "diversity_coef": of_ebft((1.0, 0.0)),
    "ce_coef": of_ebft((0.0, 0.03)),
    "adaptive_max_tokens": of_ebft((True, False)),
    "stride": of_ebft((8, 4)),
    "context_length": of_ebft((8, 4)),
    "generate_max_len": of_ebft((8, 4)),
    "n_samples_per_prompt": of_ebft((4, 2)),
    "strided_temperature": of_ebft((0.6, 1.0)),
    "strided_top_p": of_ebft((1.0, 0.9)),
    "rl_coef": of_ebft((1.0, 0.5)),
    "advantage_estimator": of_ebft(("rloo", "group_norm", "reinforce")),
    "min_completion_prefix": of_ebft((0, 3)),
    "sequence_len": of_ebft((512, 64)),
    "gt_length_multiplier": of_ebft((1.5, 2.0)),
}
