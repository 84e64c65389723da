"""Valid settings of `grpo`, for the tests of keys."""

from support.samples import TESTS, Samples, load

from tunemill.stages.training.online.vllm_keys import VllmKeys

FULL = dict.fromkeys(("lora_r", "lora_alpha", "lora_target_linear", "adapter"))
COUNTER = {"environment_factory": "counting.Counter", "environment_code": ["/counting.py"]}
SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    smallest={
        "reward_funcs": ["letters.right"],
        "reward_code": ["/letters.py"],
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 1,
    },
    beside={
        **{name: {"use_vllm": True} for name in VllmKeys.model_fields},
        "vllm_server_base_url": {"use_vllm": True, "vllm_server_base_url": "http://here:8000"},
        "vllm_server_host": {"use_vllm": True, "vllm_server_port": 9000},
        "vllm_server_port": {"use_vllm": True, "vllm_server_host": "there"},
        "sync_ref_model": {"beta": 0.1, **FULL},
        "ref_model_mixup_alpha": {"beta": 0.1, "sync_ref_model": True, **FULL},
        "ref_model_sync_steps": {"beta": 0.1, "sync_ref_model": True, **FULL},
        "reward_funcs": {"reward_funcs": ["/models/one"], "reward_code": None},
        "num_generations_eval": {"eval_steps": 1},
        "environment_factory": COUNTER,
        "environment_code": COUNTER,
        "tools": {"tools": ["counting.double"], "tools_code": ["/counting.py"]},
        "tools_code": {"tools": ["counting.double"], "tools_code": ["/counting.py"]},
        "max_tool_calling_iterations": COUNTER,
        "environment_reward": {"environment_factory": "http://there:8000"},
        "rollout_func": {"rollout_func": "letters.play", "rollout_code": ["/letters.py"]},
        "rollout_code": {"rollout_func": "letters.play", "rollout_code": ["/letters.py"]},
        "use_bias_correction_kl": {"beta": 0.1},
        "num_completions_to_print": {"log_completions": True},
        "prefetch_depth": {"async_prefetch": True},
        "max_staleness": {"async_prefetch": True},
        "streaming_min_groups": {"streaming_partial_batch": True},
        "replay_recompute_logps": {"replay_buffer_size": 8},
        "reroll_max_groups": {"reroll_start_fraction": 0.5},
    },
    values={
        "reward_funcs": [["/models/other"]],
        "reward_code": [["/letters.py", "/others.py"]],
        "environment_factory": ["counting.Other"],
        "environment_code": [["/counting.py", "/others.py"]],
        "tools": [["counting.triple"]],
        "rollout_func": ["letters.other"],
        "rollout_code": [["/letters.py", "/others.py"]],
        "tools_code": [["/counting.py", "/others.py"]],
        "reward_weights": [[0.5]],
        "metric_for_best_model": ["reward"],
        "generation_kwargs": [{"stop_token_ids": [5]}],
        "micro_batch_size": [16],
        "prefetch_depth": [2],
        "max_staleness": [1],
        "reroll_start_fraction": [0.5],
        "num_generations": [4],
        "generation_batch_size": [16],
        "steps_per_generation": [2],
        "gradient_accumulation_steps": [2],
        "loss_type": ["grpo"],
        "scale_rewards": ["batch", "none"],
        "vllm_server_base_url": ["http://there:8000"],
        "vllm_max_model_len": [1024],
        "vllm_python": ["/there/bin/python"],
    },
    # It becomes beta.
    refused=frozenset({"rl_beta"}),
)  # fmt: skip
