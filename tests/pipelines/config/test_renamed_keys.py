"""Names that Axolotl itself maps are mapped with a note; what it removed says what to write."""

import json

import pytest
import yaml
from support.configs import SFT, load, problems

from tunemill.pipelines.config.renamed_keys import REMOVED, RENAMED
from tunemill.pipelines.config.schema import axolotl_keys
from tunemill.pipelines.graph.load import load_pipeline

HELD_OUT = {"val_set_size": 2}


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"model_config": {"rope_theta": 10}}, "base_model.overrides_of_model_config", {"rope_theta": 10}),
        ({"evaluation_strategy": "epoch", **HELD_OUT}, "trained.eval_strategy", "epoch"),
        ({"noisy_embedding_alpha": 5}, "trained.neftune_noise_alpha", 5.0),
        ({"dataset_processes": 3}, "tokenized_rows.dataset_num_proc", 3),
        ({"liger_swiglu": True}, "trained.liger_glu_activation", True),
        ({"torch_dtype": "bfloat16"}, "trained.bf16", True),
        ({"torch_dtype": "torch.float16", "bf16": "auto"}, "trained.fp16", True),
        ({"torch_dtype": "float32"}, "trained.float32", True),
        ({"batch_size": 16, "micro_batch_size": 2}, "trained.gradient_accumulation_steps", 8),
        ({"batch_size": 8, "micro_batch_size": 2, "gradient_accumulation_steps": 4},
         "trained.gradient_accumulation_steps", 4),
        ({"evaluation_strategy": "epoch", "eval_strategy": "epoch", **HELD_OUT}, "trained.eval_strategy", "epoch"),
    ],
)  # fmt: skip
def test_an_old_name_is_read_with_a_note(tmp_path, given, field, value):
    pipeline = load(tmp_path, {**SFT, **given})
    node, _, name = field.partition(".")
    assert getattr(pipeline.node(node).config, name) == value
    (note,) = (note for note in pipeline.notes if note.kind == "renamed")
    assert note.path in given and note.message == f"read as {name}: {json.dumps(value)}".replace("5.0", "5")


def test_what_is_wrong_with_the_value_is_told_at_the_old_names_line(tmp_path):
    (problem,) = problems(tmp_path, {**SFT, "noisy_embedding_alpha": -1})
    lines = (tmp_path / "x.yml").read_text().splitlines()
    assert problem.path == "neftune_noise_alpha" and "noisy_embedding_alpha" in lines[problem.line - 1]


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"evaluation_strategy": "epoch", "eval_strategy": "no", **HELD_OUT}, "evaluation_strategy", "keep one"),
        ({"batch_size": 16}, "batch_size", "give micro_batch_size"),
        ({"batch_size": 16, "gradient_accumulation_steps": 2}, "batch_size", "needs micro_batch_size"),
        ({"batch_size": 15, "micro_batch_size": 2}, "batch_size", "15 is not a multiple of micro_batch_size: 2"),
        ({"batch_size": 16, "micro_batch_size": 2, "gradient_accumulation_steps": 2}, "batch_size", "remove batch"),
        ({"batch_size": "many", "micro_batch_size": 2}, "batch_size", "whole number"),
        ({"torch_dtype": "float16", "bf16": True}, "torch_dtype", "two precisions"),
        ({"torch_dtype": "int8"}, "torch_dtype", "is not one of auto, bfloat16"),
    ],
)  # fmt: skip
def test_an_old_name_that_contradicts_is_refused(tmp_path, given, path, message):
    (problem,) = problems(tmp_path, {**SFT, **given})
    assert (problem.path, problem.kind) == (path, "conflict") and message in problem.message


@pytest.mark.parametrize("key", sorted(REMOVED))
def test_a_removed_key_says_what_to_write(tmp_path, key):
    (problem,) = problems(tmp_path, {**SFT, key: {"type": "linear"} if key == "rope_scaling" else True})
    assert (problem.path, problem.kind) == (key, "removed") and problem.message.startswith("is gone; write ")
    assert load(tmp_path, {**SFT, key: False}).notes == ()


def test_an_override_may_use_an_old_name(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text(yaml.safe_dump(SFT))
    pipeline = load_pipeline(path, ["noisy_embedding_alpha=5"])
    assert pipeline.node("trained").config.neftune_noise_alpha == 5


def test_every_name_is_one_of_axolotls():
    assert {*RENAMED, *RENAMED.values()} <= axolotl_keys()
    assert set(REMOVED) <= axolotl_keys()
