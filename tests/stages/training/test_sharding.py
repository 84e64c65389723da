"""How processes share a model: what the keys ask for, and what is refused of it."""

from pathlib import Path
from typing import Any

import pytest
from support.configs import DPO, SFT, load, problems

from tunemill.pipelines.config.problems import ConfigError
from tunemill.stages.training.deepspeed import CONFIGS, check, settings_of
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.sharding import Fsdp, Sharding

ZERO2 = {"deepspeed": {"zero_optimization": {"stage": 2}}}
TWO = {"pipeline": {"launcher": {"processes": 2}}}
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}


def plan(processes: int = 2, **keys: Any) -> Sharding:
    return SftConfig(learning_rate=1e-3, processes=processes, **keys).sharding


def test_one_process_shares_with_nobody() -> None:
    assert plan(1, fsdp_version=2, dp_shard_size=4) == Sharding()


@pytest.mark.parametrize(
    ("keys", "sizes"),
    [
        ({}, (4, 1)),
        ({"dp_replicate_size": 4}, (4, 1)),
        ({"fsdp_version": 2}, (1, 4)),
        ({"dp_shard_size": 4}, (1, 4)),
        ({"fsdp_version": 2, "dp_replicate_size": 2}, (2, 2)),
        ({"fsdp_version": 2, "dp_replicate_size": 2, "dp_shard_size": 2}, (2, 2)),
        ({"deepspeed": "deepspeed_configs/zero2.json"}, (1, 4)),
        ({"deepspeed": {"zero_optimization": {"stage": 0}}}, (4, 1)),
        ({"deepspeed": {}}, (4, 1)),
    ],
)
def test_the_sizes_fill_up_what_is_left(keys: dict[str, Any], sizes: tuple[int, int]) -> None:
    found = plan(4, **keys)
    assert (found.copies, found.shards) == sizes and found.replicas == 4


@pytest.mark.parametrize(
    ("processes", "keys", "said"),
    [
        (3, {"dp_replicate_size": 2}, "dp_replicate_size"),
        (5, {"dp_replicate_size": 2}, "dp_replicate_size"),
        (2, {"fsdp_config": {"sharding_strategy": 6}}, "sharding_strategy"),
        (2, {"fsdp_config": {"fsdp_sharding_strategy": 0}}, "fsdp_sharding_strategy"),
        (2, {"fsdp_config": {"version": 7}}, "version"),
    ],
)
def test_sizes_and_numbers_that_mean_nothing_are_refused(
    processes: int, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        plan(processes, **keys)


@pytest.mark.parametrize(
    ("keys", "sizes"),
    [
        ({"context_parallel_size": 2}, (1, 2, 2)),
        ({"context_parallel_size": 4}, (1, 1, 1)),
        ({"context_parallel_size": 2, "fsdp_version": 2, "dp_shard_size": 2}, (1, 2, 2)),
    ],
)
def test_processes_that_split_sequences_read_the_same_rows(
    keys: dict[str, Any], sizes: tuple[int, int, int]
) -> None:
    found = plan(4, **keys)
    assert (found.copies, found.shards, found.replicas) == sizes and found.fsdp == Fsdp()


def test_a_step_is_that_of_the_replicas_and_the_key_holds_no_context(tmp_path: Path) -> None:
    four = {**SFT, "pipeline": {"launcher": {"processes": 4}}, "gradient_accumulation_steps": 3}
    split = load(tmp_path, {**four, "context_parallel_size": 2, "heads_k_stride": 1})
    assert str(split.batch) == "global batch 6 = 1 micro x 3 accumulation x 2 replicas of 2 processes"
    two = load(tmp_path, {**four, "pipeline": {"launcher": {"processes": 2}}})
    assert split.node("trained").config.semantic() == two.node("trained").config.semantic()
    (note,) = split.notes
    assert note.path == "heads_k_stride" and "keys of all heads are exchanged at once" in note.message
    sized = {
        **four,
        "pipeline": {"launcher": {"processes": 4}, "global_batch_size": 3},
        "context_parallel_size": 2,
    }
    with pytest.raises(
        ConfigError, match="cannot be shared by 2 replicas of 2 processes with micro_batch_size: 1"
    ):
        load(tmp_path, sized)


def test_only_supervised_training_splits_sequences(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {**DPO, **TWO, "context_parallel_size": 2})
    assert problem.path == "context_parallel_size" and "made of whole sequences" in problem.message


def test_older_names_mean_the_newer_ones() -> None:
    older = {
        "fsdp": ["full_shard", "auto_wrap", "offload"],
        "fsdp_config": {
            "fsdp_sharding_strategy": "SHARD_GRAD_OP", "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
            "fsdp_cpu_ram_efficient_loading": True, "fsdp_activation_checkpointing": True,
        },
    }  # fmt: skip
    newer = {
        "fsdp_version": 2,
        "fsdp_config": {
            "offload_params": True, "reshard_after_forward": False, "cpu_ram_efficient_loading": True,
            "activation_checkpointing": True, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
        },
    }  # fmt: skip
    wanted = Fsdp(
        layers=("LlamaDecoderLayer",), reshards=False, offloads=True, recomputes=True, loads_on_first=True
    )
    assert plan(**older).fsdp == plan(**newer).fsdp == wanted


@pytest.mark.parametrize(
    ("keys", "path", "part"),
    [
        ({"fsdp_version": 1}, "fsdp_version", "Write version 2"),
        ({"fsdp_config": {"version": 1}}, "fsdp_config", "reshard_after_forward: true"),
        ({"fsdp_config": {"auto_wrap_policy": "SIZE_BASED_WRAP"}}, "fsdp_config", "shards no list"),
        ({"fsdp": ["ful_shard", "auto_wrap"]}, "fsdp", "ful_shard: no word of it"),
        ({"deepspeed": {"compile": None}}, "deepspeed", "its compile: None: must hold settings"),
        ({"fsdp": ["hybrid_shard"]}, "fsdp", "write dp_replicate_size and dp_shard_size"),
        ({"fsdp_config": {"fsdp_sharding_strategy": 3}}, "fsdp_config", "take the FSDP keys out"),
        ({"fsdp_version": 2, "dp_shard_size": 4}, "dp_shard_size", "makes 4, and 2 processes train"),
        ({"dp_replicate_size": 3}, "dp_replicate_size", "makes 3, and 2 processes train"),
        ({"fsdp_version": 2, "dp_replicate_size": 2}, "dp_replicate_size", "shard nothing"),
        ({"fsdp_version": 2, "deepspeed": {"zero_optimization": {"stage": 3}}}, "deepspeed", "keep one"),
        ({"deepspeed": "zero9.json"}, "deepspeed", "fetch deepspeed_configs"),
        ({"deepspeed": {"zero_optimization": {"stage": 4}}}, "deepspeed", "0, 1, 2 or 3"),
        ({"deepspeed": {"train_batch_size": 8}}, "deepspeed", "write auto"),
        ({"deepspeed": {"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}}, "deepspeed", "rounds"),
        ({"deepspeed": {"compression_training": {}}}, "deepspeed", "not known"),
        ({"deepspeed": {"zero_optimization": 3}}, "deepspeed", "such as stage: 2"),
        ({"deepspeed": {"zero_optimization": None}}, "deepspeed", "such as stage: 2"),
        ({"deepcompile": True}, "deepcompile", "name its settings"),
        ({"fsdp_version": 2, "optimizer": "muon"}, "optimizer", "adamw_torch_fused"),
        ({"fsdp_version": 2, "optimizer": "adamw_8bit"}, "optimizer", "steps no tensors that FSDP2 has in parts"),
        ({**ZERO2, "optimizer": "adamw_8bit"}, "optimizer", "rounds its state block by block"),
        ({"fsdp_version": 2, "unfrozen_parameters": ["lm_head"]}, "unfrozen_parameters", "in parts"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size", "no checkpoint to go on from"),
        ({"expert_parallel_size": 2}, "expert_parallel_size", "no checkpoint to go on from"),
        ({"context_parallel_size": 3}, "context_parallel_size", "makes 3, and 2 processes train"),
        ({"context_parallel_size": 2, **ZERO2}, "context_parallel_size", "DeepSpeed shards over"),
        ({"context_parallel_size": 2, "sample_packing": True}, "sample_packing", "see each other"),
        ({"context_parallel_size": 2, "batch_flattening": True}, "batch_flattening", "see each other"),
        ({"context_parallel_size": 2, "use_eaft": True}, "use_eaft", "whole sequences"),
        ({"context_parallel_size": 2, "load_in_4bit": True, **LORA}, "load_in_4bit", "has not been proven beside"),
        ({"context_parallel_size": 2, "attn_implementation": "eager"}, "attn_implementation", "Write sdpa"),
        ({"context_parallel_size": 2, "torch_compile": True}, "torch_compile", "have not been proven beside"),
        (
            {"fsdp_version": 2, "adapter": "llama-adapter", "peft_adapter": {"layers": 1, "len": 4}},
            "adapter", "llama-adapter has not been proven with a model in parts",
        ),
        (
            {"deepspeed": {"zero_optimization": {"stage": 3}}, "qat": {"weight_dtype": "int8"}},
            "qat", "has not been proven with ZeRO-3",
        ),
        ({"fsdp_version": 2, "relora": True, "jagged_restart_steps": 5, **LORA}, "relora", "with a model in parts"),
        ({**ZERO2, "deepcompile": True, "torch_compile": True}, "torch_compile", "compiles the model already"),
        ({"context_parallel_size": 2, "optimizer": "muon"}, "optimizer", "adamw_torch_fused"),
        ({"fsdp_version": 2, "load_in_8bit": True, **LORA}, "load_in_8bit", "has not been proven with a model in"),
        ({"fsdp_version": 2, "plugins": ["grokfast"]}, "plugins", "Grokfast has not been proven"),
        ({"fsdp_version": 2, "fp8_enable_fsdp_float8_all_gather": True}, "fp8_enable_fsdp_float8_all_gather", "rounds"),
        ({"fsdp_config": {"reshard_after_forward": True, "fsdp_reshard_after_forward": False}}, "fsdp_config",
         "keep reshard_after_forward"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, keys: dict[str, Any], path: str, part: str) -> None:
    (problem,) = problems(tmp_path, {**SFT, **TWO, **keys})
    assert (problem.path, part in problem.message) == (path, True), problem


def test_settings_without_effect_are_noted_one_by_one(tmp_path: Path) -> None:
    given = {"version": 2, "state_dict_type": "FULL_STATE_DICT", "fsdp_use_orig_params": True}
    notes = load(tmp_path, {**SFT, **TWO, "fsdp_config": given}).notes
    said = {note.path: note.message for note in notes if note.path.startswith("fsdp")}
    assert set(said) == {"fsdp_config.state_dict_type", "fsdp_config.fsdp_use_orig_params"}
    assert "the result in one piece" in said["fsdp_config.state_dict_type"]


def test_keys_of_ddp_ask_for_nothing_of_a_model_in_parts(tmp_path: Path) -> None:
    keys = {"ddp": True, "ddp_bucket_cap_mb": 9, "ddp_find_unused_parameters": True, "ddp_timeout": 9}
    notes = load(tmp_path, {**SFT, **TWO, "fsdp_version": 2, **keys}).notes
    assert {note.path for note in notes} == keys.keys() - {"ddp_timeout"}


@pytest.mark.parametrize(
    ("keys", "notes"),
    [
        ({"ddp": False}, {"ddp": "exchange gradients by DDP"}),
        (
            {"fsdp_version": 2, "fsdp_config": {"fsdp_cpu_offload_pin_memory": False}},
            {"fsdp_config.fsdp_cpu_offload_pin_memory": "offload_params is off"},
        ),
        (
            {"fsdp_version": 2, "fsdp_config": {"cpu_ram_efficient_loading": True, "offload_params": True}},
            {"fsdp_config.cpu_ram_efficient_loading": "reads the weights in 4 bits by itself"},
        ),
        ({"deepspeed": {"bf16": {"enabled": True}}}, {"deepspeed": "its bf16: the precision is that of the keys"}),
        ({"deepspeed": {"bf16": {"enabled": "auto"}, "fp16": {}}}, {}),
        ({"fsdp_version": 2, "qlora_sharded_model_loading": True},
         {"qlora_sharded_model_loading": "keeps its part of them"}),
    ],
)  # fmt: skip
def test_what_several_processes_are_asked_in_vain_is_noted(
    tmp_path: Path, keys: dict[str, Any], notes: dict[str, str]
) -> None:
    found = load(tmp_path, {**SFT, **TWO, **LORA, "load_in_4bit": True, **keys}).notes
    said = {note.path: note.message for note in found}
    assert said.keys() == notes.keys() and all(part in said[path] for path, part in notes.items()), said


def test_nothing_is_gathered_as_float8_without_fsdp(tmp_path: Path) -> None:
    (note,) = load(tmp_path, {**SFT, **TWO, "fp8_enable_fsdp_float8_all_gather": True}).notes
    assert note.path == "fp8_enable_fsdp_float8_all_gather" and "FSDP shares nothing out" in note.message


def test_how_processes_share_a_model_is_no_part_of_the_key(tmp_path: Path) -> None:
    plain = load(tmp_path, {**SFT, **TWO}).node("trained").config.semantic()
    for keys in ({"fsdp_version": 2}, {"deepspeed": {"zero_optimization": {"stage": 2}}}):
        assert load(tmp_path, {**SFT, **TWO, **keys}).node("trained").config.semantic() == plain


@pytest.mark.parametrize("name", CONFIGS)
def test_what_comes_with_tunemill_leaves_the_result_alone(name: str) -> None:
    settings = settings_of(f"deepspeed_configs/{name}")
    assert settings is not None
    check(settings)
