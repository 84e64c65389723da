"""A key must have a reader in this graph: an error, or a note where it asks for nothing."""

import json
from pathlib import Path

import pytest
from support.configs import DPO, HELD_OUT, KTO, LORA, ORPO, PRETRAINING, SFT, entry, load, problems, provide

from tunemill.pipelines.cli import main
from tunemill.pipelines.config.schema import json_schema

FOLLOWERS = "dpo, ipo, grpo, gdpo, ebft"
PACKERS = "training_data, pretraining_data, sft, process_reward, distillation"


@pytest.mark.parametrize(
    ("config", "path", "readers", "trains"),
    [
        ({**DPO, "sample_packing": True}, "sample_packing", PACKERS, "dpo"),
        ({**DPO, "dataset_shard_num": 2}, "dataset_shard_num", "training_data", "dpo"),
        (entry(DPO, "datasets", train_on_eos="all"), "datasets[0].train_on_eos", "tokenized", "dpo"),
        (entry(DPO, "datasets", roles_to_train=["user"]), "datasets[0].roles_to_train", "tokenized", "dpo"),
        ({**DPO, "orpo_alpha": 0.2}, "orpo_alpha", "orpo", "dpo"),
        ({**DPO, "kto_desirable_weight": 2}, "kto_desirable_weight", "kto", "dpo"),
        ({**ORPO, "kto_undesirable_weight": 2}, "kto_undesirable_weight", "kto", "orpo"),
        ({**KTO, "orpo_alpha": 0.2}, "orpo_alpha", "orpo", "kto"),
        ({**KTO, "sample_packing": True}, "sample_packing", PACKERS, "kto"),
        ({**SFT, "orpo_alpha": 0.2}, "orpo_alpha", "orpo", "sft"),
        ({**ORPO, "sample_packing": True}, "sample_packing", PACKERS, "orpo"),
        ({**ORPO, "group_by_length": True}, "group_by_length", "sft, process_reward, distillation", "orpo"),
        ({**ORPO, "cut_cross_entropy": True}, "cut_cross_entropy", "sft", "orpo"),
        ({**SFT, "pretrain_multipack_attn": False}, "pretrain_multipack_attn", "pretraining_data", "sft"),
        ({**PRETRAINING, "dataset_shard_num": 2}, "dataset_shard_num", "training_data", "sft"),
        ({**PRETRAINING, "eot_tokens": ["x"]}, "eot_tokens", "tokenized", "sft"),
        ({**SFT, "trl": {"ref_model_mixup_alpha": 0.5}}, "trl.ref_model_mixup_alpha", FOLLOWERS, "sft"),
        ({**KTO, "trl": {"ref_model_sync_steps": 2}}, "trl.ref_model_sync_steps", FOLLOWERS, "kto"),
        (entry(SFT, "datasets", length=5), "datasets[0].length", "synthetic", "sft"),
    ],
)  # fmt: skip
def test_a_key_that_nobody_reads_here_is_an_error_that_says_who_would(
    tmp_path, config, path, readers, trains
):
    (problem,) = problems(tmp_path, config)
    assert (problem.path, problem.kind) == (path, "unread")
    assert problem.message == f"is read by {readers}; this pipeline trains {trains}. Take it out"


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        (entry(SFT, "datasets", skip=3), "datasets[0].skip", "is a key of pretraining_dataset"),
        (entry(SFT, "datasets", text_column="x"), "datasets[0].text_column", "is a key of pretraining_dataset"),
        (entry(PRETRAINING, "pretraining_dataset", roles_to_train=["user"]), "pretraining_dataset[0].roles_to_train",
         "is a key of datasets and test_datasets"),
    ],
)  # fmt: skip
def test_a_key_of_another_list_says_which(tmp_path, config, path, message):
    (problem,) = problems(tmp_path, config)
    assert (problem.path, problem.kind) == (path, "unread") and problem.message.startswith(message)


@pytest.mark.parametrize("config", [SFT, ORPO, {**SFT, "reward_model": True}, {**SFT, "kd_trainer": True}])
@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("precompute_ref_log_probs", {"precompute_ref_log_probs": True}),
        ("trl.sync_ref_model", {"trl": {"sync_ref_model": True}}),
    ],
)
def test_a_reference_is_of_methods_that_compare_with_one(tmp_path, config, key, given):
    found = {problem.path: problem.message for problem in problems(tmp_path, {**config, **given})}
    assert "compares with no reference model" in found[key]


@pytest.mark.parametrize("wrong", [{"rl": "dppo"}, {"kd_trainer": "maybe"}])
@pytest.mark.parametrize("given", [{"trl": {"sync_ref_model": True}}, {"precompute_ref_log_probs": False}])
def test_where_the_method_is_wrong_nothing_is_said_of_its_reference(tmp_path, wrong, given):
    (problem,) = problems(tmp_path, {**SFT, **wrong, **given})
    assert problem.path == next(iter(wrong))


@pytest.mark.parametrize("group", ["datasets", "pretraining_dataset"])
def test_a_typo_in_an_entry_is_unknown_whatever_the_list(tmp_path, group):
    config = SFT if group == "datasets" else PRETRAINING
    (problem,) = problems(tmp_path, entry(config, group, pathh="x"))
    assert (problem.path, problem.kind, problem.suggestion) == (f"{group}[0].pathh", "unknown", "path")


def test_the_schema_knows_what_each_list_may_hold():
    items = {
        name: set(json_schema()["properties"][name]["items"]["properties"])
        for name in ("datasets", "test_datasets", "pretraining_dataset")
    }
    of_teachers = {"logprobs_field", "temperature"}
    assert items["datasets"] - of_teachers == items["test_datasets"]
    assert {"skip", "text_column", "path"} <= items["pretraining_dataset"] and "skip" not in items["datasets"]
    assert "roles_to_train" in items["datasets"] and "roles_to_train" not in items["pretraining_dataset"]


@pytest.mark.parametrize(
    "config",
    [
        {**DPO, "sample_packing": False, "orpo_alpha": 0.1, "train_on_inputs": False, "quantization": None},
        {**SFT, "pretrain_multipack_attn": True, "eval_sample_packing": False, "cut_cross_entropy": False},
        entry(DPO, "datasets", train_on_eos="turn", split_thinking=False),
        {**DPO, "learning_rate": 1e-5, "optimizer": "sgd", **LORA, "reinit_weights": True},
    ],
)
def test_keys_at_their_default_and_those_of_later_stages_are_passed_over(tmp_path, config):
    assert load(tmp_path, config).notes == ()


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({**SFT, "evals_per_epoch": 4}, ["evals_per_epoch"]),
        ({**SFT, "eval_steps": 0.1}, ["eval_steps"]),
        ({**SFT, "eval_strategy": "epoch"}, ["eval_strategy"]),
        ({**SFT, "eval_strategy": "steps", "val_set_size": 0}, ["eval_strategy"]),
        ({**SFT, "eval_sample_packing": True}, ["eval_sample_packing"]),
        ({**SFT, "evals_per_epoch": 0}, ["evals_per_epoch"]),
        ({**SFT, **HELD_OUT, "evals_per_epoch": 0}, ["evals_per_epoch"]),
        ({**ORPO, "evals_per_epoch": 1}, ["evals_per_epoch"]),
        ({**KTO, "precompute_ref_log_probs": True}, ["precompute_ref_log_probs"]),
        ({**SFT, "eval_max_new_tokens": 7}, ["eval_max_new_tokens"]),
        ({**SFT, "eval_sequence_len": 99}, ["eval_sequence_len"]),
        ({**SFT, "lora_r": 8, "lora_dropout": 0.1}, ["lora_r", "lora_dropout"]),
        ({**SFT, "lora_mlp_kernel": True}, ["lora_mlp_kernel"]),
        (
            {**SFT, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
            ["gradient_checkpointing_kwargs"],
        ),
        ({**SFT, **LORA, "liger_glu_activation": True, "lora_mlp_kernel": True}, ["liger_glu_activation"]),
        ({**SFT, "save_safetensors": True}, ["save_safetensors"]),
        ({**SFT, "strict": True}, ["strict"]),
        ({**SFT, "sample_packing_bin_size": 4}, ["sample_packing_bin_size"]),
        (
            {**SFT, "sample_packing": False, "sample_packing_sequentially": True},
            ["sample_packing_sequentially"],
        ),
        ({**PRETRAINING, "pretrain_multipack_attn": False}, ["pretrain_multipack_attn"]),
        ({**PRETRAINING, "streaming": True}, ["streaming"]),
        (
            {**SFT, "streaming": True, "streaming_multipack_buffer_size": 5},
            ["streaming", "streaming_multipack_buffer_size"],
        ),
        ({**SFT, "pretrain_multipack_buffer_size": 5}, ["pretrain_multipack_buffer_size"]),
        # Where texts are read lazily it is the default, and rows of preferences are not.
        ({**ORPO, "streaming": True}, ["streaming"]),
        ({**DPO, "streaming": True}, ["streaming"]),
        ({**PRETRAINING, "dataset_num_proc": 4}, ["dataset_num_proc"]),
    ],
)
def test_a_key_that_asks_for_nothing_is_a_note(tmp_path, capsys, config, keys):
    found = [note for note in load(tmp_path, config).notes if note.kind != "elsewhere"]
    assert [note.path for note in found] == keys and {note.kind for note in found} == {"idle"}
    assert all("asks for nothing" in note.message for note in found)
    lines = (tmp_path / "x.yml").read_text().splitlines()
    assert all(lines[note.line - 1].startswith(f"{note.path}:") for note in found)
    provide(tmp_path / "x.yml")
    assert main(["check", str(tmp_path / "x.yml")]) == 0
    assert f"note: {keys[0]}: " in capsys.readouterr().out
    assert main(["check", str(tmp_path / "x.yml"), "--json"]) == 0
    shown = [note for note in json.loads(capsys.readouterr().out) if note["kind"] != "elsewhere"]
    assert [note["path"] for note in shown] == keys


def test_bf16_auto_says_what_it_means_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (note,) = load(tmp_path, {**SFT, "bf16": "auto"}).notes
    assert (note.path, note.kind) == ("bf16", "idle") and "float32 on this machine" in note.message
    assert load(tmp_path, SFT).notes == () and load(tmp_path, {**SFT, "bf16": False}).notes == ()


def test_plan_shows_the_notes(project, capsys):
    project.edit(strict=True, dataset_processes=2)
    arguments = ["plan", str(project.yaml), "--state", str(project.state)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert (
        "note: strict: asks for nothing" in said
        and "note: dataset_processes: read as dataset_num_proc: 2" in said
    )
    assert main([*arguments, "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert {(note["path"], note["kind"]) for note in notes} == {
        ("strict", "idle"),
        ("dataset_processes", "renamed"),
    }


def test_a_note_changes_no_key(project):
    project.edit(strict=True, save_safetensors=True, gradient_checkpointing_kwargs={"use_reentrant": True})
    assert {item.state for item in project.plan().values()} == {"cached"}


@pytest.mark.parametrize(
    ("config", "path", "kind"),
    [
        # What is refused already makes no other setting wrong.
        ({**SFT, "adapter": "llama-adapter", "lora_r": 8, "lora_alpha": 16}, "adapter", "conflict"),
        ({**SFT, **LORA, "adapter": "lroa", "lora_mlp_kernel": True}, "adapter", "value"),
        ({**DPO, "adapter": "llama_adapter", "lora_r": 8}, "adapter", "value"),
        ({**DPO, "optimizer": "sdg"}, "optimizer", "value"),
        ({**DPO, "quantization": {"weight_dtype": "int9"}}, "quantization.weight_dtype", "value"),
        ({**SFT, "optimizer": "sdg", "adam_beta1": 0.9}, "optimizer", "value"),
        ({**SFT, "sample_packing": "yes please", "sample_packing_bin_size": 3}, "sample_packing", "value"),
        # A conflict is found at a key that is given, and is told once for all slices that read it.
        ({**SFT, **LORA, "lora_r": None}, "adapter", "conflict"),
        ({**SFT, "sequence_len": -1}, "sequence_len", "value"),
        ({**SFT, "seed": "x"}, "seed", "value"),
        ({**SFT, **HELD_OUT, "eval_steps": 2, "evals_per_epoch": 2}, "eval_steps", "conflict"),
        ({**SFT, **HELD_OUT, "eval_strategy": "steps"}, "eval_strategy", "conflict"),
        ({**SFT, "datasets": None}, "datasets", "conflict"),
        (entry(DPO, "datasets", type={"field_instruction": "x"}), "datasets[0].type.field_instruction", "unread"),
        (entry(SFT, "datasets", type={"field_chosen": "x"}), "datasets[0].type.field_chosen", "unread"),
        ({**SFT, **LORA, "lora_target_modules": ["all-linear"]}, "lora_target_modules", "value"),
        ({**SFT, **LORA, "lora_target_linear": None, "lora_target_modules": "(x"}, "lora_target_modules", "value"),
        ({**ORPO, "kernels": ["linear_cross_entropy"]}, "kernels", "conflict"),
        ({**ORPO, "plugins": ["cut_cross_entropy"]}, "plugins", "conflict"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_problem_at_its_key(tmp_path, config, path, kind):
    (problem,) = problems(tmp_path, {key: value for key, value in config.items() if value is not None})
    assert (problem.path, problem.kind) == (path, kind)


@pytest.mark.parametrize(
    "config", [{**SFT, "kernels": ["swiglu"], "fp16": True, "bf16": True, "float32": True}]
)
def test_a_message_that_begins_with_its_key_says_it_once(tmp_path, config):
    (problem,) = problems(tmp_path, config)
    assert problem.line_in(Path("x")).count("bf16") == 1


def test_whole_numbers_are_keys_too(tmp_path):
    labels = {"overrides_of_model_config": {"id2label": {0: "bad", 1: "good"}}}
    node = load(tmp_path, {**SFT, **labels}).node("base_model")
    assert node.config.overrides_of_model_config == {"id2label": {"0": "bad", "1": "good"}}
    assert node.config.semantic()["overrides_of_model_config"] == {"id2label": {"0": "bad", "1": "good"}}


def test_all_linear_is_every_linear_module(tmp_path):
    given = {**LORA, "lora_target_linear": None, "lora_target_modules": "all-linear"}
    config = {**SFT, **{key: value for key, value in given.items() if value is not None}}
    assert load(tmp_path, config).node("trained").config.takes_every_linear
