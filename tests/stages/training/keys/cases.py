"""For each key of training: values of it, and the place where a training shows the difference between them."""

from pathlib import Path

from stages.training.keys.case import (
    CONSTANT,
    CUT,
    EPOCHS,
    EVALUATING,
    LORA,
    PACKED,
    SAVING,
    SGD,
    WAITING,
    Case,
    lora,
    without,
)
from stages.training.keys.cases_of_devices import DEVICES
from stages.training.keys.cases_of_distillation import DISTILLATION
from stages.training.keys.cases_of_methods import OF_METHODS
from stages.training.keys.cases_of_online import ONLINE
from stages.training.keys.cases_of_own_code import OWN_CODE
from stages.training.keys.cases_of_references import REFERENCES
from stages.training.keys.cases_of_steps import PROCESS_REWARD
from stages.training.keys.cases_of_weights import ADAPTER, FROZEN, RESTARTED
from stages.training.keys.trainings import Settings
from support.pruned import recipe

from stages.training.keys import observations as see

BENCH = str(Path(__file__).parent / "questions.jsonl")
INT4 = {"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 8}

BATCHES: dict[str, list[Case]] = {
    "micro_batch_size": [
        Case((1, 2), see.rows_in_a_batch),
        Case((1, 2), see.steps_taken, {"max_steps": None}),
        Case((1, 2), see.rows_read, {"max_steps": None, "group_by_length": True}),
        Case((1, 2), see.held_out_rows_in_a_batch, {"eval_steps": 1}),
        Case((1, 2), see.held_out_rows_in_a_batch, {"eval_steps": 1}, method="orpo"),
    ],
    "gradient_accumulation_steps": [
        Case((1, 2), see.passes_of_a_step, {"max_steps": 1}),
        Case((1, 2), see.refusal, base="averaging llama"),
        Case((1, 2), see.steps_taken, {"max_steps": None}),
        Case((1, 2), see.rows_read, {"max_steps": None, "group_by_length": True}),
    ],
    "num_epochs": [Case((1, 1.5, 2), see.steps_taken, {"max_steps": None})],
    "max_steps": [Case((None, 1, 2), see.steps_taken)],
    "curriculum_sampling": [
        Case((False, True), see.rows_read, EPOCHS),
        Case((False, True), see.rows_read, EPOCHS, method="orpo"),
    ],
    "seed": [
        Case((42, 43), see.rows_read, EPOCHS),
        Case((42, 43), see.rows_read, EPOCHS, method="orpo"),
        Case((42, 43), see.first_factors, LORA),
        Case((42, 43), see.first_embedding, {"neftune_noise_alpha": 5}),
    ],
    "dataloader_num_workers": [
        Case((0, 1), see.loader_setting("num_workers"), {"max_steps": 1}),
        Case(
            (0, 1),
            see.argument("dataloader_prefetch_factor"),
            {"dataloader_prefetch_factor": 3, "max_steps": 1},
        ),
    ],
    "dataloader_pin_memory": [
        Case((False, True), see.argument("dataloader_pin_memory"), on_gpu=True),
    ],
    "dataloader_prefetch_factor": [
        Case((None, 3), see.loader_setting("prefetch_factor"), {"dataloader_num_workers": 1, "max_steps": 1}),
    ],
}

# Whatever the figure is, it does not get much better; and the rate moves each time.
PLATEAU: Settings = {"eval_steps": 1, "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5, "min_lr": 1e-5}}

SCHEDULE: dict[str, list[Case]] = {
    "learning_rate": [Case((1e-2, 2e-2), see.learning_rates), Case((1e-2, 2e-2), see.weights)],
    "lr_scheduler": [
        Case(("cosine", "linear", "polynomial", "constant", "inverse_sqrt"), see.learning_rates, {"max_steps": 3}),
        Case(("constant_with_warmup", "cosine_with_restarts", "linear"), see.learning_rates,
             {"warmup_steps": 1, "max_steps": 4}),
        Case(("one_cycle", "rex", "linear"), see.learning_rates, {"max_steps": 4}),
        Case(("cosine_with_min_lr", "log_sweep"), see.learning_rates,
             {"lr_scheduler_kwargs": {"min_lr": 1e-4}, "max_steps": 4}),
        Case(("cosine", "rex"), see.refusal, {"warmup_steps": 5, "max_steps": 4}),
        Case(("reduce_lr_on_plateau", "greedy"), see.learning_rates, {**PLATEAU, "max_steps": 4}),
        Case(("constant", "greedy"), see.evaluated_steps,
             {**EVALUATING, "lr_scheduler_kwargs": None, "learning_rate": 0.1}),
    ],
    "cosine_constant_lr_ratio": [
        Case((None, 0.4, 0.6), see.learning_rates, {"cosine_min_lr_ratio": 0.1, "max_steps": 5}),
    ],
    "lr_quadratic_warmup": [Case((None, True), see.learning_rates, {"warmup_steps": 2, "max_steps": 4})],
    "jagged_restart_steps": [Case((None, 2, 3), see.learning_rates, {"max_steps": 4})],
    "jagged_restart_warmup_steps": [
        Case((None, 1, 2), see.learning_rates, {"jagged_restart_steps": 3, "max_steps": 6}),
    ],
    "jagged_restart_anneal_steps": [
        Case((None, 2), see.learning_rates, {"jagged_restart_steps": 3, "max_steps": 4}),
    ],
    "lr_scheduler_kwargs": [
        Case((None, {"num_cycles": 1.5}), see.learning_rates),
        Case((PLATEAU["lr_scheduler_kwargs"], {**PLATEAU["lr_scheduler_kwargs"], "factor": 0.7}), see.learning_rates,
             {**PLATEAU, "lr_scheduler": "greedy", "max_steps": 4}),
    ],
    "cosine_min_lr_ratio": [
        Case((None, 0.2, 0.5), see.learning_rates),
        Case((None, 0.2), see.learning_rates, {"lr_scheduler": "rex"}),
        Case((None, 0.2), see.learning_rates, {"jagged_restart_steps": 3, "max_steps": 4}),
    ],
    "warmup_steps": [Case((0, 1, 2, 0.9), see.learning_rates, {"max_steps": 4})],
    "warmup_ratio": [Case((None, 0.5), see.learning_rates, {"max_steps": 6})],
}  # fmt: skip

OPTIMIZER: dict[str, list[Case]] = {
    "optimizer": [
        Case(("adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop"), see.optimizer_class),
        Case(("adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"), see.weights),
        Case(("adamw_torch", "adamw_torch_fused"), see.optimizer_setting("fused")),
        Case(("adamw_torch", "lion_32bit", "muon", "adamw_bnb_8bit"), see.optimizer_state),
        Case(("adamw_torch_fused", "lomo"), see.refusal, {"gradient_accumulation_steps": 2}),
        Case(
            ("adamw_torch_fused", "schedule_free_sgd"),
            see.refusal,
            {"lr_scheduler": "constant", "warmup_steps": 1},
        ),
    ],
    "optim_target_modules": [Case((None, ["q_proj"]), see.refusal, {"optimizer": "galore_adamw_8bit"})],
    "optim_args": [
        Case((None, {"momentum": 0.5}, "momentum=0.9"), see.optimizer_setting("momentum"), SGD),
        Case((None, {"momentum": 0.5}), see.weights, SGD),
    ],
    "adam_beta1": [Case((None, 0.5), see.optimizer_setting("betas")), Case((None, 0.5), see.weights)],
    "adam_beta2": [Case((None, 0.5), see.optimizer_setting("betas")), Case((None, 0.5), see.weights)],
    "adam_epsilon": [Case((None, 0.1), see.optimizer_setting("eps")), Case((None, 0.1), see.weights)],
    "adam_beta3": [Case((None, 0.5), see.optimizer_setting("betas"), {"optimizer": "ademamix"})],
    "adam_epsilon2": [Case((None, 0.5), see.refusal)],
    "weight_decay": [Case((0.0, 0.5), see.optimizer_setting("weight_decay")), Case((0.0, 0.5), see.weights)],
    "lr_groups": [
        Case(
            (
                None,
                [{"name": "q", "modules": ["q_proj"], "lr": 0.5}],
                [
                    {"name": "v", "modules": ["v_proj"], "lr": 0.5},
                    {"name": "k", "modules": ["k_proj"], "lr": 0.4},
                ],
            ),
            see.optimizer_setting("lr"),
            CONSTANT,
        ),
        Case((None, [{"name": "q", "modules": ["no_such"], "lr": 0.5}]), see.refusal),
    ],
    "embedding_lr": [Case((None, 0.5, 0.1), see.optimizer_setting("lr"), CONSTANT)],
    "embedding_lr_scale": [Case((None, 0.5, 2), see.optimizer_setting("lr"), CONSTANT)],
    "loraplus_lr_ratio": [
        Case((None, 4, 16), see.optimizer_setting("lr"), {**CONSTANT, **LORA}),
        Case((None, 4, 16), see.weights, LORA),
    ],
    "loraplus_lr_embedding": [
        Case(
            (None, 1e-4),
            see.optimizer_setting("lr"),
            {**CONSTANT, **LORA, "lora_target_modules": ["embed_tokens"], "loraplus_lr_ratio": 2},
        ),
    ],
    "grokfast_alpha": [Case((None, 0.5), see.weights, {**SGD, "plugins": ["grokfast"]})],
    "grokfast_lamb": [Case((None, 0, 1), see.weights, {**SGD, "plugins": ["grokfast"]})],
    "max_grad_norm": [Case((0.0, 1e-3, 1.0), see.weights, SGD)],
    "neftune_noise_alpha": [Case((None, 1.0, 5.0), see.first_embedding)],
}

MACHINE: dict[str, list[Case]] = {
    "bf16": [
        Case((False, True, "full"), see.weights_and_autocast),
        Case(("auto", False), see.argument("bf16"), on_gpu=True),
        Case(("auto", False), see.loaded_type, on_gpu=True),
    ],
    "fp16": [
        Case((False, True), see.refusal, {"bf16": False}),
        Case((False, True), see.argument("fp16"), on_gpu=True),
        Case((False, True), see.argument("fp16"), {"bf16": False}, on_gpu=True),
    ],
    "tf32": [Case((None, True), see.refusal), Case((None, False, True), see.argument("tf32"), on_gpu=True)],
    "float32": [Case((False, True), see.loaded_type, on_gpu=True)],
    "gradient_checkpointing": [
        Case((False, True), see.refusal, {**WAITING, "load_in_4bit": True}),
        Case((False, True), see.runs_of_a_layer),
        Case((True, "offload", "offload_disk"), see.offloading),
        Case((False, True), see.reaches_the_embedding,
             {**LORA, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
    ],
    "gradient_checkpointing_kwargs": [
        Case((None, {"use_reentrant": True}), see.checkpointing_arguments, {"gradient_checkpointing": True}),
    ],
    "experts_implementation": [
        Case((None, "eager", "batched_mm", "grouped_mm"), see.refusal),
        Case((None, "eager"), see.experts, base="qwen3_moe"),
    ],
    "attn_implementation": [
        Case((None, "eager"), see.attention),
        Case((None, "sdpa"), see.attention, base="eager llama"),
        Case((None, "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention"), see.refusal),
        Case((None, "kernels-community/flash-attn3", "kernels-community/flash-attn2"), see.refusal),
        Case((None, "xformers"), see.attention, base="eager llama"),
    ],
    "sdp_attention": [Case((None, True), see.attention, base="eager llama")],
    "flash_attention": [Case((None, True), see.refusal)],
    "eager_attention": [Case((None, True), see.attention)],
    "flex_attention": [Case((None, True), see.refusal)],
    "xformers_attention": [Case((None, True), see.attention, base="eager llama")],
    "sage_attention": [Case((None, True), see.refusal)],
    "gemma4_hybrid_attn_impl": [Case((False, True), see.attention, base="eager llama")],
    "flex_attn_compile_kwargs": [Case((None, {"dynamic": False}), see.idle_keys)],
    "float16": [Case((False, True), see.loaded_type, LORA), Case((False, True), see.refusal)],
    "bfloat16": [Case((False, True), see.loaded_type)],
    "fp8": [
        Case((False, True), see.refusal),
        Case((False, True), see.argument("bf16"), {"bf16": False}, on_gpu=True),
    ],
    "torch_compile_backend": [
        Case((None, "eager"), see.argument("torch_compile_backend"), {"torch_compile": True}),
        Case((None, "eager"), see.idle_keys),
    ],
    "torch_compile_mode": [
        Case((None, "max-autotune"), see.argument("torch_compile_mode"), {"torch_compile": True}),
        Case((None, "max-autotune"), see.idle_keys),
    ],
    "torch_compile_options": [
        Case((None, {"shape_padding": True}), see.compiler_options, {"torch_compile": True}),
        Case((None, {"no_such": True}), see.refusal, {"torch_compile": True}),
    ],
    "torch_compile": [
        Case((None, True), see.refusal, WAITING),
        Case((False, True), see.is_compiled),
        Case((False, "auto"), see.is_compiled),
        Case((False, True), see.chosen_kernels),
    ],
}  # fmt: skip

MEMORY: dict[str, list[Case]] = {
    "activation_offloading": [Case((False, True, "disk"), see.offloading)],
    "layer_offloading": [
        Case((False, True), see.callback("LayerOffloading", "beside"), lora(activation_offloading="disk"))
    ],
    "gc_steps": [
        Case((None, 2, -1), see.callback("CollectGarbage", "steps")),
        Case((None, 2), see.argument("torch_empty_cache_steps")),
    ],
    "gc_collect_steps": [
        Case((None, 2, -1), see.callback("CollectGarbage", "steps")),
        Case((None, 2), see.argument("torch_empty_cache_steps"), {"gc_steps": 3}),
    ],
    "torch_empty_cache_steps": [
        Case((None, 2), see.argument("torch_empty_cache_steps")),
        Case((None, 2), see.callback("CollectGarbage", "steps"), {"gc_steps": 3}),
    ],
    "auto_find_batch_size": [Case((False, True), see.summary("micro_batch_size"))],
    "qat": [
        Case(
            (None, {}, {"group_size": 8}, {"weight_dtype": "int4", "group_size": 4}, INT4),
            see.roundings,
            {"max_steps": 1},
        ),
        Case(
            (INT4, {**INT4, "fake_quant_after_n_steps": 1}, {**INT4, "fake_quant_after_n_steps": 2}),
            see.callback("RoundLater", "after"),
            {"max_steps": 1},
        ),
        Case((None, INT4), see.roundings, {"max_steps": 1}, method="orpo"),
    ],
    "llmcompressor": [
        Case(
            (None, {"recipe": recipe("Linear")}, {"recipe": recipe("re:.*q_proj.weight")}),
            see.callback("KeepZeros", "weights"),
            {"max_steps": 1},
            base="pruned llama",
        ),
        Case((None, {"recipe": recipe("Linear")}), see.weights, method="orpo", base="pruned llama"),
        Case((None, {"recipe": recipe("Linear")}), see.refusal),
        Case((None, {"recipe": recipe("Linear")}), see.refusal, LORA, base="pruned llama"),
    ],
    "flash_attn_cross_entropy": [Case((False, True), see.idle_keys)],
    "flash_attn_rms_norm": [Case((False, True), see.idle_keys)],
    "flash_attn_fuse_mlp": [Case((False, True), see.idle_keys)],
    "fused_attn_kernel": [Case((False, True), see.idle_keys)],
}
WATCH: dict[str, list[Case]] = {
    "resume_from_checkpoint": [Case((None, "/no/such", "/nor/such"), see.refusal)],
    "profiler_steps": [
        Case((None, 1, 2), see.callback("Profiler", "steps"), {"max_steps": 1}),
        Case((None, 1), see.logs),
    ],
    "profiler_steps_start": [
        Case((0, 1), see.callback("Profiler", "start"), {"profiler_steps": 1}),
        Case((0, 2), see.logs, {"profiler_steps": 1}),
        Case((0, 2), see.idle_keys),
    ],
    "save_first_step": [Case((None, True), see.checkpoints)],
    "tiled_mlp": [Case((False, True), see.mlp_tokens, {"tiled_mlp_num_shards": 2, "max_steps": 1})],
    "tiled_mlp_num_shards": [
        Case((None, 2, 3), see.mlp_tokens, {"tiled_mlp": True, "max_steps": 1}),
        Case((None, 2), see.idle_keys),
    ],
    "tiled_mlp_use_original_mlp": [Case((None, True), see.idle_keys)],
    "loss_watchdog_threshold": [
        Case((None, 50.0, 60.0), see.callback("LossWatchdog", "threshold"), {"max_steps": 1}),
    ],
    "loss_watchdog_patience": [
        Case(
            (None, 2, 4),
            see.callback("LossWatchdog", "patience"),
            {"loss_watchdog_threshold": 50.0, "max_steps": 1},
        ),
    ],
    "include_tokens_per_second": [Case((None, True), see.idle_keys)],
    "include_tkps": [Case((None, True), see.idle_keys)],
    "auto_resume_from_checkpoints": [Case((None, True), see.idle_keys)],
    "save_only_model": [Case((False, True), see.idle_keys)],
}

KERNELS: dict[str, list[Case]] = {
    "kernels": [
        Case(("auto", ["rms_norm"], ["rope"]), see.refusal),
        Case(("auto", "off"), see.chosen_kernels),
    ],
    "lora_mlp_kernel": [
        Case((None, True), see.refusal, LORA),
        Case((None, False), see.chosen_kernels, LORA),
        Case((None, True), see.source_of_swiglu, {**LORA, "liger_glu_activation": True}),
    ],
    "lora_qkv_kernel": [
        Case((None, True), see.refusal, LORA),
        Case((None, False), see.chosen_kernels, LORA),
    ],
    "lora_o_kernel": [Case((None, True), see.refusal, LORA), Case((None, False), see.chosen_kernels, LORA)],
    "plugins": [Case(([], [CUT]), see.refusal), Case(([], ["grokfast"]), see.weights, SGD)],
    "liger_rope": [Case((False, True), see.refusal)],
    "liger_rms_norm": [Case((False, True), see.refusal)],
    "liger_glu_activation": [Case((False, True), see.refusal)],
    "liger_layer_norm": [Case((False, True), see.refusal)],
    "liger_cross_entropy": [Case((False, True), see.refusal)],
    "liger_fused_linear_cross_entropy": [Case((False, True), see.refusal)],
    "cut_cross_entropy": [
        Case((None, True), see.refusal),
        Case((None, False), see.chosen_kernels, {"plugins": [CUT]}),
    ],
    "chunked_cross_entropy": [
        Case((False, True), see.loss_shapes),
        Case((False, True), see.reported_kernels),
    ],
    "chunked_cross_entropy_num_chunks": [
        Case((None, 2, 3), see.loss_shapes, {"chunked_cross_entropy": True}),
    ],
}

RHYTHM: dict[str, list[Case]] = {
    "logging_steps": [Case((1, 2, 3), see.reported_steps, {"max_steps": 6})],
    "save_steps": [Case((None, 1, 2, 0.9), see.checkpoints, SAVING)],
    "saves_per_epoch": [Case((None, 3), see.checkpoints, SAVING)],
    "save_strategy": [
        Case(("no", "epoch"), see.checkpoints, without(SAVING, "save_strategy")),
        Case(("epoch", "best"), see.summary("best_step"), without(EVALUATING, "save_strategy")),
    ],
    "early_stopping_patience": [
        Case((None, 1, 2), see.callback("Best", "patience"), EVALUATING),
        Case((None, 1), see.evaluated_steps, EVALUATING),
    ],
    "load_best_model_at_end": [
        Case((False, True), see.callback("Best", "keeps"), EVALUATING),
        Case((False, True), see.evaluated_steps, EVALUATING),
    ],
    "metric_for_best_model": [
        Case(
            (None, "rewards/margins"),
            see.callback("Best", "metric"),
            {"load_best_model_at_end": True, "eval_steps": 1},
            method="orpo",
        ),
        Case((None, "eval_margins"), see.refusal, {"load_best_model_at_end": True}),
        Case(
            (None, "rewards/margins"),
            see.callback("HeldOutRates", "metric"),
            {"lr_scheduler": "reduce_lr_on_plateau", "eval_steps": 1},
            method="orpo",
        ),
    ],
    "greater_is_better": [
        Case(
            (None, True),
            see.callback("Best", "more_is_better"),
            {"load_best_model_at_end": True, "eval_steps": 1},
        ),
        Case((False, True), see.learning_rates, {**PLATEAU, "lr_scheduler": "greedy", "max_steps": 3}),
    ],
    "save_total_limit": [Case((1, 2), see.checkpoints, {**SAVING, "save_steps": 1})],
    "eval_steps": [Case((None, 1, 2), see.evaluated_steps, EVALUATING)],
    "evals_per_epoch": [Case((None, 1, 3), see.evaluated_steps, EVALUATING)],
    "eval_strategy": [Case((None, "epoch"), see.evaluated_steps, EVALUATING)],
    "eval_batch_size": [
        Case((None, 2), see.held_out_rows_in_a_batch, {"eval_steps": 1}),
        Case((None, 2), see.held_out_rows_in_a_batch, {"eval_steps": 1}, method="orpo"),
    ],
    "has_held_out_rows": [
        Case((True, False), see.idle_keys, {"eval_steps": 1}),
        Case((True, False), see.refusal, {"eval_steps": 1, "evals_per_epoch": 1}),
    ],
    # What several processes do is in test_ranks.py.
    "processes": [Case((1, 2), see.idle_keys, {"ddp": True})],
}

SAMPLED: Settings = {"generate_samples": True, "eval_steps": 2, "generation_do_sample": False}
DRAWN: Settings = {**without(SAMPLED, "generation_do_sample"), "generation_max_new_tokens": 30}
SEQUENCES: dict[str, list[Case]] = {
    "generate_samples": [Case((False, True), see.samples, {"eval_steps": 2})],
    "num_generation_samples": [Case((1, 2), see.samples, SAMPLED)],
    "generation_max_new_tokens": [Case((1, 20), see.samples, SAMPLED)],
    "generation_temperature": [Case((0.0, 50.0), see.samples, DRAWN)],
    "generation_top_p": [Case((None, 0.0001), see.samples, {**DRAWN, "generation_temperature": 50.0})],
    "generation_top_k": [Case((None, 1), see.samples, {**DRAWN, "generation_temperature": 50.0})],
    "generation_prompt_ratio": [Case((0.3, 0.6), see.samples, SAMPLED)],
    "generation_do_sample": [
        Case(
            (False, True),
            see.samples,
            {**without(DRAWN, "generation_do_sample"), "generation_temperature": 50.0},
        ),
    ],
    "do_bench_eval": [
        Case((None, True), see.summary("last_eval_bench_accuracy"), {"bench_dataset": BENCH, "eval_steps": 2})
    ],
    "bench_dataset": [Case((None, BENCH), see.idle_keys)],
    "sequence_len": [Case((16, 20), see.batch_shapes, {"pad_to_sequence_len": True})],
    "sample_packing": [
        Case((False, True), see.batch_tensors, {"sequence_len": 20}),
        Case((False, True), see.batch_shapes, {"sequence_len": 20}),
    ],
    "multipack_real_batches": [Case((True, False), see.batch_shapes, PACKED)],
    "eval_sample_packing": [Case((None, True), see.held_out_tensors, {"eval_steps": 1})],
    "batch_flattening": [Case((False, True), see.batch_shapes, {"micro_batch_size": 2})],
    "pad_to_sequence_len": [
        Case((None, True), see.batch_shapes, {"sequence_len": 20}),
        Case((None, False), see.batch_shapes, PACKED),
    ],
    "pad_to_multiple_of": [Case((None, 8, 32), see.batch_shapes)],
    "group_by_length": [Case((False, True), see.rows_read, {"max_steps": None, "micro_batch_size": 2})],
}

EAFT: dict[str, list[Case]] = {
    "use_pose": [Case((False, True), see.weights, SGD)],
    "pose_max_context_len": [Case((600, 32768), see.weights, {**SGD, "use_pose": True})],
    "pose_num_chunks": [Case((2, 3), see.weights, {**SGD, "use_pose": True})],
    "pose_split_on_token_ids": [Case((None, [9]), see.weights, {**SGD, "use_pose": True})],
    "use_eaft": [Case((None, True), see.weights, SGD), Case((None, True), see.chosen_kernels)],
    "eaft_alpha": [Case((0.0, 1.0, 2.0), see.weights, {**SGD, "use_eaft": True})],
    "eaft_k": [Case((1, 2, 20), see.weights, {**SGD, "use_eaft": True})],
}


GROUPS = (
    REFERENCES,
    *OF_METHODS,
    ONLINE,
    FROZEN,
    RESTARTED,
    ADAPTER,
    BATCHES,
    DISTILLATION,
    PROCESS_REWARD,
    SCHEDULE,
    OPTIMIZER,
    MACHINE,
    MEMORY,
    WATCH,
    DEVICES,
    KERNELS,
    OWN_CODE,
    RHYTHM,
    SEQUENCES,
    EAFT,
)

CASES: list[tuple[str, Case]] = [
    (name, case) for group in GROUPS for name, cases in group.items() for case in cases
]
