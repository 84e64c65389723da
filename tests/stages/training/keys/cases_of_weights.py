"""Cases of the keys that say which weights are trained: adapters, their restarts, and parts of a model."""

from collections.abc import Iterator

from stages.training.keys.case import CONSTANT, EVERY, FACTORS, LORA, WAITING, Case, lora, without
from stages.training.keys.trainings import Settings
from support.samples import TESTS

from stages.training.keys import observations as see

STORED = str(TESTS / "support" / "stored_adapter")
PROMPTS: Settings = {"peft_adapter": {"layers": 1, "len": 2}}
WHOLE_NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]


def start_cases(start: str, *changes: Settings) -> Iterator[Case]:
    """Settings of a start from data, each of which is told from the defaults by the weights."""
    for change in changes:
        given: tuple[Settings | None, ...] = (None, {f"{start}_config": change})
        yield Case(given, see.weights, {**EVERY, "peft_init_lora_weights": start})


ADAPTER: dict[str, list[Case]] = {
    "adapter": [
        Case((None, "lora"), see.trained_parameters, FACTORS),
        Case((None, "lora"), see.saved_files, FACTORS),
        Case((None, "lora"), see.names_its_base, FACTORS),
        Case((None, "lora"), see.refusal, {**FACTORS, "lora_o_kernel": True}),
        Case((None, "lora"), see.loaded_type, {**FACTORS, "fp16": True, "bf16": False}, on_gpu=True),
        Case(("lora", "qlora"), see.refusal, FACTORS),
        Case((None, "lora"), see.refusal, {**FACTORS, "layer_offloading": True}),
        Case(("lora", "llama-adapter"), see.trained_parameters, {**FACTORS, **PROMPTS}),
    ],
    "peft_adapter": [
        Case(({"layers": 1, "len": 2}, {"layers": 2, "len": 2}, {"layers": 1, "len": 3}), see.trained_shapes,
             {"adapter": "llama-adapter"}),
        Case(({"layers": 1, "len": 2}, {"layers": 9, "len": 2}), see.refusal, {"adapter": "llama-adapter"}),
    ],
    "load_in_4bit": [
        Case((False, True), see.refusal),
        Case((False, True), see.refusal, {**FACTORS, "adapter": "qlora"}),
    ],
    "load_in_8bit": [
        Case((False, True), see.refusal),
        Case((False, True), see.refusal, {**FACTORS, "adapter": "qlora"}),
    ],
    "lora_r": [Case((2, 4), see.adapter_shapes, without(LORA, "lora_r"))],
    "lora_alpha": [Case((2, 8), see.adapter_scales, without(LORA, "lora_alpha"))],
    "lora_dropout": [Case((0.0, 0.5, 0.7), see.adapter_dropouts, LORA)],
    "lora_target_modules": [
        Case((["q_proj"], ["k_proj"], "all-linear", r".*\.0\..*v_proj"), see.adapted_modules,
             without(LORA, "lora_target_modules")),
        Case((["q_proj"], ["no_such"]), see.refusal, without(LORA, "lora_target_modules")),
    ],
    "lora_target_linear": [Case((False, True), see.adapted_modules, LORA)],
    "lora_modules_to_save": [
        Case((None, ["lm_head"]), see.trained_parameters, LORA),
        Case((None, ["no_such"]), see.refusal, LORA),
    ],
    "tokens": [
        Case(([], ["<new>"]), see.refusal, LORA),
        Case(([], ["<new>"]), see.refusal, {"adapter": "llama-adapter", **PROMPTS}),
    ],
    "lora_fan_in_fan_out": [
        Case((False, True), see.adapter_layouts, lora(lora_target_modules=["embed_tokens"])),
        Case((False, True), see.saved_adapter_layout, lora(lora_target_modules=["embed_tokens"])),
        Case((False, True), see.refusal, LORA),
    ],
    "peft_use_rslora": [Case((False, True), see.adapter_scales, LORA)],
    "peft_layers_to_transform": [
        Case((None, [0], [1]), see.adapted_modules, LORA),
        Case((None, [0], [1]), see.adapted_modules, EVERY),
        Case((None, [0], [1]), see.adapted_modules, lora(lora_target_modules=WHOLE_NAMES)),
        Case((None, [2]), see.refusal, LORA),
    ],
    "peft_init_lora_weights": [
        Case((True, "gaussian", "orthogonal"), see.first_factors, LORA),
        Case((True, "pissa", "olora", "loftq", "mica", "eva", "corda", "lora_ga"), see.first_factors, LORA),
        Case((True, "pissa"), see.refusal, {**LORA, "load_in_4bit": True}),
        Case((True, "pissa"), see.refusal, {**LORA, "peft": {"loftq_config": {}}}),
    ],
    "peft": [
        Case((None, {"loftq_config": {"loftq_bits": 4}}, {"loftq_config": {"loftq_bits": 8}}), see.weights, LORA),
        Case((None, {"loftq_config": {}}), see.refusal, {**LORA, "load_in_4bit": True}),
        *start_cases("eva", {"rho": 1.5}, {"tau": 0.0}, {"whiten": True}, {"adjust_scaling_factors": False}),
        *start_cases("corda", {"corda_method": "kpm"}),
        *start_cases("lora_ga", {"direction": "ArBr"}, {"scale": "unit"}, {"stable_gamma": 4}),
    ],
    "start_sequences": [
        Case((1, 2), see.weights, lora(peft_init_lora_weights="lora_ga")),
    ],
    "peft_layer_replication": [
        Case((None, [[0, 2], [1, 2]]), see.adapted_modules, LORA),
        Case((None, [[0, 3]]), see.refusal, LORA),
    ],
    "quantize_moe_experts": [Case((False, True), see.refusal, LORA)],
    "llama4_linearized_experts": [Case((False, True), see.refusal, LORA)],
    "has_stored_adapter": [Case((False, True), see.faulty_keys, EVERY)],
    "base_on_hub": [
        Case(("owner/first", "owner/second"), see.doubts, {"adapter": "lora", "lora_model_dir": STORED})
    ],
    "lora_model_dir": [Case((None, "/no/such/adapter"), see.refusal, LORA)],
    "peft_use_dora": [Case((False, True), see.trained_parameters, LORA)],
    "lora_target_parameters": [
        Case((None, ["q_proj.weight"]), see.adapted_modules, lora(lora_target_modules=["k_proj"])),
        Case((None, ["no_such"]), see.refusal, LORA),
    ],
    "lora_rank_pattern": [Case(({}, {"q_proj": 2}), see.adapter_shapes, LORA)],
    "lora_alpha_pattern": [Case(({}, {"q_proj": 2}), see.adapter_scales, LORA)],
    "lora_exclude_modules": [Case((None, ["q_proj"]), see.adapted_modules, EVERY)],
    "peft_layers_pattern": [
        Case((None, ["no_such"]), see.refusal, {**LORA, "peft_layers_to_transform": [0]}),
    ],
    "peft_trainable_token_indices": [
        Case((None, [5], [5, 6]), see.trained_shapes, LORA),
        Case((None, [5]), see.refusal, {**LORA, "tokens": ["<new>"]}),
    ],
    "peft_ensure_weight_tying": [Case((False, True), see.saved_tying, LORA)],
    "peft_autocast_adapter_dtype": [
        Case((True, False), see.adapter_types, {**LORA, "bf16": "full"}),
    ],
    "lora_on_cpu": [Case((False, True), see.idle_keys, LORA)],
}  # fmt: skip

RELORA: Settings = {**LORA, "relora": True, "jagged_restart_steps": 1, "max_steps": 3, **CONSTANT}
RESTARTED: dict[str, list[Case]] = {
    "relora": [
        Case((False, True), see.saved_rank, without(RELORA, "relora")),
        Case((False, True), see.weights, without(RELORA, "relora")),
        Case((False, True), see.refusal, {**without(RELORA, "relora"), **WAITING}),
    ],
    "jagged_restart_steps": [
        Case((1, 2, 3), see.saved_rank, without(RELORA, "jagged_restart_steps")),
        Case((1, None), see.refusal, without(RELORA, "jagged_restart_steps")),
    ],
    "relora_prune_method": [
        Case(("magnitude", "random", "reset"), see.weights, RELORA),
        Case(("magnitude", "random"), see.weights, {**RELORA, "relora_prune_ratio": 0.5}),
    ],
    "relora_prune_ratio": [
        Case((None, 0, 0.5, 1), see.weights, RELORA),
        Case((None, 0.5), see.weights, {**RELORA, "relora_prune_method": "random"}),
    ],
    "relora_cpu_offload": [Case((False, True), see.idle_keys, RELORA)],
}

LISA: Settings = {"lisa_n_layers": 1, "lisa_step_interval": 1}
FROZEN: dict[str, list[Case]] = {
    "unfrozen_parameters": [
        Case((None, ["lm_head"], ["layers.0", "norm"]), see.trained_parameters),
        Case((None, ["^lm_head.weight$[:7]"]), see.weights),
        Case((None, ["lm_head"]), see.idle_keys, LORA),
    ],
    "lisa_n_layers": [
        Case((1, 2), see.trained_parameters, LISA),
        Case((None, 1), see.refusal, {"lisa_step_interval": 1}),
        Case((None, 1), see.refusal, {"lisa_step_interval": 1, "unfrozen_parameters": ["lm_head"]}),
    ],
    "lisa_step_interval": [
        Case((1, 2), see.trained_parameters, {**LISA, "seed": 1}),
    ],
    "lisa_layers_attribute": [
        Case(("model.layers", "model.blocks"), see.refusal, LISA),
        Case(("model.layers", "x"), see.idle_keys),
    ],
    "spectrum_top_fraction": [
        Case((None, 0.5, 1.0), see.trained_parameters),
        Case((None, 0.5), see.refusal, {"unfrozen_parameters": ["lm_head"]}),
        Case((None, 0.5), see.idle_keys, LORA),
    ],
}
