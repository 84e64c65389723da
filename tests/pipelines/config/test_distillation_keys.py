"""Which pipelines distil, from which teacher, and what is said of keys that do not go with it."""

from typing import Any

import pytest
from support.configs import ORPO, PRETRAINING, SFT, entry, load, problems

PLUGIN = "axolotl.integrations.kd.KDPlugin"
TAUGHT: dict[str, Any] = {**SFT, "kd_trainer": True, "pipeline": {"teacher": "teacher"}}
STORED = entry({**SFT, "plugins": [PLUGIN]}, "datasets", logprobs_field="said", temperature=2.0)


def nodes(folder, config):
    return {node.name: node for node in load(folder, config).nodes}


@pytest.mark.parametrize("config", [TAUGHT, {**TAUGHT, "kd_trainer": None, "plugins": [PLUGIN]}])
def test_a_teacher_is_run_over_the_rows(tmp_path, config):
    (tmp_path / "teacher").mkdir()
    found = nodes(tmp_path, config)
    assert found["trained"].stage.name == "distillation"
    assert found["trained"].inputs["teacher_logprobs"] == ("teacher_logprobs",)
    assert found["teacher_logprobs"].inputs == {
        "tokenizer": ("tokenizer",),
        "training_data": ("training_data",),
    }
    assert found["teacher_logprobs"].config.teacher == str(tmp_path / "teacher")
    assert not found["training_data"].config.keeps_sources


def test_a_teacher_of_the_hub_is_fetched(tmp_path):
    found = nodes(tmp_path, {**TAUGHT, "pipeline": {"teacher": "owner/large"}})
    assert found["teacher_files"].config.repository == "hf://models/owner/large"
    assert found["teacher_logprobs"].inputs["teacher_model"] == ("teacher_files",)
    assert found["teacher_logprobs"].config.teacher is None


def test_a_teacher_that_another_pipeline_made(tmp_path):
    found = nodes(tmp_path, {**TAUGHT, "pipeline": {"teacher": "asset://quickstart/merged"}})
    assert found["teacher_logprobs"].inputs["teacher_model"] == ("asset://quickstart/merged",)
    (problem,) = problems(tmp_path, {**TAUGHT, "pipeline": {"name": "own", "teacher": "asset://own/trained"}})
    assert problem.path == "pipeline.teacher" and "this pipeline's own result" in problem.message


def test_a_teacher_of_texts_that_are_read_as_far_as_needed(tmp_path):
    found = nodes(tmp_path, {**PRETRAINING, "kd_trainer": True, "pipeline": {"teacher": "teacher"}})
    assert {"teacher_logprobs", "training_data"} <= found.keys()


def test_what_a_teacher_said_lies_beside_the_rows(tmp_path):
    found = nodes(tmp_path, STORED)
    assert found["trained"].stage.name == "distillation"
    assert found["trained"].inputs["teacher_logprobs"] == ("logprobs_rows",)
    config = found["logprobs_rows"].config
    assert (config.logprobs_field, config.temperature) == ("said", 2.0)
    assert found["training_data"].config.keeps_sources and "teacher_logprobs" not in found


def test_other_pipelines_have_the_keys_that_they_had(tmp_path):
    found = nodes(tmp_path, SFT)
    assert "keeps_sources" not in found["training_data"].config.semantic()


@pytest.mark.parametrize(
    ("config", "path", "said"),
    [
        ({**SFT, "kd_trainer": True}, "kd_trainer", "no entry of datasets has a logprobs_field"),
        (
            {**STORED, "datasets": [*STORED["datasets"], {"path": "more.jsonl", "type": "chat_template"}]},
            "plugins",
            "an entry of datasets has no logprobs_field",
        ),
        ({**STORED, "pipeline": {"teacher": "teacher"}}, "pipeline.teacher", "two teachers of the same rows"),
        (
            {**SFT, "pipeline": {"teacher": "teacher"}},
            "pipeline.teacher",
            "nothing is distilled. Set kd_trainer: true",
        ),
        ({**ORPO, "kd_trainer": True}, "rl", "rl and kd_trainer: train one kind of model"),
        ({**TAUGHT, "kd_alpha": 0, "kd_ce_alpha": 0}, "kd_alpha", "nothing would be learned"),
        ({**TAUGHT, "kd_alpha": 1.5}, "kd_alpha", "must be at most 1"),
        ({**TAUGHT, "kd_beta": -0.5}, "kd_beta", "0"),
        ({**TAUGHT, "kd_temperature": 0}, "kd_temperature", "must be above 0"),
        ({**TAUGHT, "kd_online_server_base_url": "http://x"}, "kd_online_server_base_url", "teacher: MODEL"),
        ({**TAUGHT, "kd_online_topk": 8}, "kd_online_topk", "teacher_top_k"),
        ({**TAUGHT, "kd_temperature_min": 0.5}, "kd_temperature_min", "kd_temperature. Take it out"),
        ({**TAUGHT, "kd_zscore_base_temp": 2.0}, "kd_zscore_base_temp", "later ones do not read it"),
        (
            {**TAUGHT, "kd_prepared_targets_alignment": "legacy"},
            "kd_prepared_targets_alignment",
            "logprobs_field",
        ),
        (
            {**TAUGHT, "chunked_cross_entropy": True},
            "chunked_cross_entropy",
            "this pipeline trains distillation",
        ),
        ({**TAUGHT, "orpo_alpha": 0.5}, "orpo_alpha", "this pipeline trains distillation"),
        ({**SFT, "kd_temperature": 2.0}, "kd_temperature", "this pipeline trains sft"),
        (
            entry(SFT, "datasets", logprobs_field="said"),
            "datasets[0].logprobs_field",
            "is read by stored_logprobs",
        ),
        (entry(SFT, "datasets", temperature=2.0), "datasets[0].temperature", "is read by stored_logprobs"),
        (
            entry({**TAUGHT, "test_datasets": SFT["datasets"]}, "test_datasets", logprobs_field="said"),
            "test_datasets[0].logprobs_field",
            "is not read under test_datasets",
        ),
    ],
)
def test_what_does_not_go_with_it(tmp_path, config, path, said):
    found = problems(tmp_path, config)
    assert [problem.path for problem in found] == [path] and said in found[0].message


def test_what_asks_for_nothing(tmp_path):
    pipeline = load(tmp_path, {**SFT, "plugins": [PLUGIN], "kd_trainer": False, "kd_compiled_kernel": True})
    assert {note.path for note in pipeline.notes if note.kind == "idle"} == {"plugins", "kd_compiled_kernel"}
    pipeline = load(tmp_path, {**TAUGHT, "kd_alpha": 0, "kd_ce_alpha": 1, "kd_beta": 1})
    assert [note.path for note in pipeline.notes] == ["kd_beta"]


def test_the_older_name_of_a_key(tmp_path):
    pipeline = load(tmp_path, {**TAUGHT, "kd_top_k_before_softmax": False})
    (trained,) = (node for node in pipeline.nodes if node.name == "trained")
    assert not trained.config.kd_normalize_topk and [note.kind for note in pipeline.notes] == ["renamed"]
