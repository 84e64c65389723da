"""Valid settings of what every method of training reads, for the tests of keys."""

from support.samples import Samples

FULL = {"lora_r": None, "lora_alpha": None, "lora_target_linear": None, "adapter": None}

SAMPLES = Samples(
    smallest={
        "learning_rate": 0.001,
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_target_linear": True,
    },
    beside={
        "plugins": {"liger_rope": True},
        "save_strategy": {"save_steps": 4},
        "eval_strategy": {"eval_steps": 4},
        "gradient_checkpointing_kwargs": {"gradient_checkpointing": True},
        "optim_args": {"optimizer": "sgd"},
        "loraplus_lr_embedding": {"loraplus_lr_ratio": 2.0},
        "grokfast_alpha": {"plugins": ["grokfast"]},
        "grokfast_lamb": {"plugins": ["grokfast"]},
        "cosine_constant_lr_ratio": {"cosine_min_lr_ratio": 0.1},
        "jagged_restart_warmup_steps": {"jagged_restart_steps": 50},
        "jagged_restart_anneal_steps": {"jagged_restart_steps": 50},
        "relora": {"jagged_restart_steps": 50},
        "relora_prune_method": {"relora": True, "jagged_restart_steps": 50},
        "relora_prune_ratio": {"relora": True, "jagged_restart_steps": 50},
        "relora_cpu_offload": {"relora": True, "jagged_restart_steps": 50},
        "optim_target_modules": {"optimizer": "galore_adamw", "optim_target_modules": ["k_proj"]},
        "adam_beta3": {"optimizer": "ademamix"},
        "adam_epsilon2": {"optimizer": "came_pytorch"},
        "dataloader_prefetch_factor": {"dataloader_num_workers": 2},
        "adapter": FULL,
        "unfrozen_parameters": FULL,
        "spectrum_top_fraction": FULL,
        "lisa_n_layers": {**FULL, "lisa_n_layers": 1, "lisa_step_interval": 1},
        "lisa_step_interval": {**FULL, "lisa_n_layers": 1, "lisa_step_interval": 1},
        "lisa_layers_attribute": {**FULL, "lisa_n_layers": 1, "lisa_step_interval": 1},
        "lora_target_linear": {"lora_target_modules": ["q_proj"]},
        "peft_layers_pattern": {"peft_layers_to_transform": [0]},
        "quantize_moe_experts": {"load_in_4bit": True},
        "fp8": FULL,
        "qat": FULL,
        "loss_watchdog_patience": {"loss_watchdog_threshold": 5.0},
        "metric_for_best_model": {"load_best_model_at_end": True},
        "greater_is_better": {"load_best_model_at_end": True},
        **{
            name: {"generate_samples": True, "eval_steps": 2}
            for name in ("num_generation_samples", "generation_max_new_tokens", "generation_temperature")
        },
        "tiled_mlp_num_shards": {"tiled_mlp": True},
        "torch_compile_backend": {"torch_compile": True},
        "torch_compile_mode": {"torch_compile": True},
        "torch_compile_options": {"torch_compile": True},
        "tokens": {"lora_modules_to_save": ["lm_head"]},
    },
    values={
        "plugins": [["liger"]],
        "qat": [{}, {"weight_dtype": "int4", "activation_dtype": "int8"}],
        "plugin_code": [["/own_plugin.py"]],
        "optim_args": [{"momentum": 0.5}],
        "adapter": ["lora"],
        "lora_model_dir": ["/other"],
        "resume_from_checkpoint": ["/other"],
        "peft_layer_replication": [[(0, 2), (1, 2)]],
        "optim_target_modules": ["q_proj"],
        "lr_groups": [[{"name": "a", "modules": ["q_proj"], "lr": 0.5}]],
        "lr_scheduler_kwargs": [{"num_cycles": 1.5}],
        "attn_implementation": ["eager"],
        "metric_for_best_model": ["loss"],
    },
)
