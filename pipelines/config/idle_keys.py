"""Keys of Axolotl that ask for nothing here, whatever they say, or while they say what happens anyway."""

from collections.abc import Iterator

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.problems import Problem

SET_BY_LAUNCHER = "the launcher sets it"
TRANSFORMERS_EXPERTS = (
    "experts are computed by transformers' own implementation, which is the same but for rounding"
)
TO_NVFP4 = (
    "a base in NVFP4 is read as numbers in 16 bits and merged as such, so no rounding takes from the adapter"
)
# Key -> why nothing reads it.
ALWAYS = {
    "axolotl_config_path": "it is the place of this file",
    "bench_split": "Axolotl does not read it either",
    "dataset_keep_in_memory": "rows are memory-mapped, so the system keeps in memory what fits",
    "debug": "`tunemill preprocess --debug` shows rows token by token",
    "device": SET_BY_LAUNCHER,
    "dion_rank_fraction": "Axolotl does not read it either",
    "dion_rank_multiple_of": "Axolotl does not read it either",
    "freeze_mm_modules": "training is on texts, in which modules for images and sound get no gradient",
    "eval_table_max_new_tokens": "generation_max_new_tokens says how many tokens generate_samples writes",
    "eval_table_size": "in Axolotl generate_samples replaces it, which shows here too what the model writes",
    "fsdp_final_state_dict_type": "Axolotl does not read it either",
    "gptq_disable_exllama": "weights of GPTQ are read as numbers in 16 bits, with which no kernel of ExLlama runs",
    "gptq_groupsize": "the model's config.json says it",
    "gptq_model_v1": "the model's config.json says it",
    "is_falcon_derived_model": "models are told by their config.json",
    "is_llama_derived_model": "models are told by their config.json",
    "is_mistral_derived_model": "models are told by their config.json",
    "is_qwen_derived_model": "models are told by their config.json",
    "liger_rms_norm_gated": "gated norms are computed by transformers, which is the same but for rounding",
    "log_sweep_max_lr": "Axolotl does not read it either; lr_scheduler_kwargs of log_sweep are max_lr and min_lr",
    "log_sweep_min_lr": "Axolotl does not read it either; lr_scheduler_kwargs of log_sweep are max_lr and min_lr",
    "kd_compiled_kernel": "PyTorch computes the loss of distillation as it is, and the same",
    "local_rank": SET_BY_LAUNCHER,
    "low_cpu_mem_usage": "weights are always read one after the other",
    "lr_div_factor": "Axolotl does not read it either",
    "max_prompt_len": "Axolotl does not read it either",
    "nvfp4_merge_aware": TO_NVFP4,
    "nvfp4_merge_aware_start_step": TO_NVFP4,
    "num_dataset_shards_to_save": "prepared rows are the same in any number of files, and here in one that is mapped",
    "preprocess_iterable": "Axolotl does not read it either",
    "spectrum_model_name": "spectrum_top_fraction looks at the weights of the model that is trained",
    "strict": "an override of a key that is not in the file is always taken, and checked like the file",
    "use_kernels": "kernels are chosen by `kernels` and `liger_*`, and transformers computes the rest",
    "use_scattermoe": TRANSFORMERS_EXPERTS,
    "use_sonicmoe": TRANSFORMERS_EXPERTS,
    "world_size": SET_BY_LAUNCHER,
}
# Key -> the value that asks for what happens anyway, and what that is.
AT_VALUE = {
    "dsv4_fp4_grouped_mode": (
        "nvfp4",
        "experts in NVFP4 are read as numbers in 16 bits, and multiplied as such",
    ),
    "save_safetensors": (True, "weights are always saved as safetensors"),
}


def idle_keys(document: Document) -> Iterator[Problem]:
    """A note for each of these keys that is set to more than off."""
    for key, value in document.data.items():
        if key in ALWAYS and value not in (None, False):
            yield problem_at((key,), document, "idle", f"asks for nothing: {ALWAYS[key]}")
        elif key in AT_VALUE and value == AT_VALUE[key][0]:
            yield problem_at((key,), document, "idle", f"asks for nothing: {AT_VALUE[key][1]}")


def is_idle(key: str, value: object) -> bool:
    """Whether this key of Axolotl asks for nothing with this value."""
    return key in ALWAYS or (key in AT_VALUE and value == AT_VALUE[key][0])
