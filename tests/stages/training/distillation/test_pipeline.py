"""`kd_trainer: true` from a YAML to a student: one teacher for all, run over the rows or stored beside them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.project import Project, chat_row, make_project, nodes_in_state
from transformers import AutoConfig, AutoModelForCausalLM

from tunemill.pipelines.cli import main
from tunemill.stages.artifacts import TeacherLogProbs, TrainingData
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.data.rows.teacher_rows import TeacherRows

pytestmark = pytest.mark.slow

TOP_K = 8
EVALUATE = {"evaluate": ["trained"]}
AFTER = {"trained", "evaluation_of_trained"}
STUDENT: dict[str, Any] = {
    "kd_trainer": True, "kd_alpha": 0.9, "kd_ce_alpha": 0.1, "kd_temperature": 2.0, "max_steps": 2,
    "micro_batch_size": 2, "sequence_len": 64,
    **dict.fromkeys(("adapter", "quantization", "output_dir", "dataset_prepared_path")),
}  # fmt: skip


def make_teacher(folder: Path) -> Any:
    """A model beside the student's, with its tokenizer."""
    torch.manual_seed(5)
    config = AutoConfig.from_pretrained(folder / "model")
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config)
    shutil.copytree(folder / "model", folder / "teacher")
    model.save_pretrained(folder / "teacher")
    return model.eval()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any], Any]:
    folder = tmp_path_factory.mktemp("distillation") / "project"
    project = make_project(
        folder, **STUDENT, pipeline={"teacher": "teacher", "teacher_top_k": TOP_K, **EVALUATE}
    )
    model = make_teacher(folder)
    return project, project.run(), model


def test_a_teacher_is_run_once_for_all_students(finished: Any) -> None:
    project, nodes, _ = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= {"teacher_logprobs", "trained"}
    assert nodes["trained"].stage == "distillation"
    metrics = nodes["trained"].published.manifest["metrics"]
    assert metrics["last_kd_loss"] > 0 and metrics["last_ce_loss"] > 0
    second = project.plan("learning_rate=0.01", "kd_alpha=0.5", "kd_temperature=3", "kd_beta=0.5")
    assert nodes_in_state(second, "run") == AFTER
    assert second["teacher_logprobs"].state == "cached"
    # Another base with the same tokens, too: what a teacher says is of rows alone.
    assert project.plan("seed=7", "shuffle_merged_datasets=false")["teacher_logprobs"].state == "run"
    assert (
        project.plan("overrides_of_model_config={num_hidden_layers: 1}")["teacher_logprobs"].state == "cached"
    )


def test_its_evaluation_says_how_far_it_is_from_its_teacher(finished: Any) -> None:
    report = finished[1]["evaluation_of_trained"].published
    lines = [json.loads(line) for line in (report.data / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all(line["teacher_kl"] > 0 for line in lines)
    metrics = json.loads((report.data / "metrics.json").read_text())
    low, high = min(line["teacher_kl"] for line in lines), max(line["teacher_kl"] for line in lines)
    assert low < metrics["teacher_kl"] < high and 0 <= metrics["teacher_agreement"] <= 1
    assert metrics["teacher_kl"] == report.manifest["metrics"]["teacher_kl"]


@pytest.mark.parametrize("override", ["pipeline.teacher_top_k=4", "pipeline.teacher=model"])
def test_what_runs_the_teacher_again(finished: Any, override: str) -> None:
    project, _, _ = finished
    if override.endswith("=model"):
        # The student's folder has no weights.
        shutil.copytree(project.folder / "teacher", project.folder / "other")
        (project.folder / "other" / "generation_config.json").write_text('{"eos_token_id": 1}')
        override = "pipeline.teacher=other"
    states = {name: item.state for name, item in project.plan(override).items() if item.state != "cached"}
    assert states == dict.fromkeys({"teacher_logprobs", *AFTER}, "run")


def said_of(model: Any, ids: list[int], temperature: float) -> list[Any]:
    """What vLLM says of a prompt: nothing of its first token, then the likeliest for each."""
    with torch.no_grad():
        log_p_lv = (model(torch.tensor([ids])).logits[0, :-1] / temperature).log_softmax(-1)
    log_p_lk, ids_lk = log_p_lv.topk(TOP_K)
    rows = zip(ids_lk.tolist(), log_p_lk.tolist(), strict=True)
    return [None, *({str(token): {"logprob": p} for token, p in zip(*row, strict=True)} for row in rows)]


@pytest.fixture(scope="module")
def stored(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same rows with what the same teacher says of them, of one dataset at a temperature of 2."""
    _, nodes, model = finished
    folder = tmp_path_factory.mktemp("stored") / "project"
    entries = [
        {"path": "data/sums.jsonl", "type": "chat_template", "logprobs_field": "said"},
        {
            "path": "data/echoes.jsonl",
            "type": "axolotl.integrations.kd.chat_template",
            "logprobs_field": "said",
        },
    ]
    entries[1]["temperature"] = 2.0  # type: ignore[assignment]
    keys = {**STUDENT, "kd_trainer": None, "plugins": ["axolotl.integrations.kd.KDPlugin"]}
    other = make_project(folder, **keys, datasets=entries, pipeline=EVALUATE)
    for name, temperature in (("sums", 1.0), ("echoes", 2.0)):
        tokens = Rows(nodes[f"tokenized_{name}"].published.data / "rows.arrow")
        file = folder / "data" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for number, row in enumerate(rows):
            row["said"] = said_of(model, tokens.ids(number).tolist(), temperature)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return other


def test_what_is_stored_beside_rows_is_what_the_teacher_says(finished: Any, stored: Project) -> None:
    first, second = finished[1], stored.run(only=["training_data", "logprobs_sums", "logprobs_echoes"])
    whole, parts = (
        TeacherRows(
            [TeacherLogProbs(nodes[name].published.data) for name in names],
            TrainingData(nodes["training_data"].published.data),
        )
        for nodes, names in (
            (first, ["teacher_logprobs"]),
            (second, ["logprobs_sums", "logprobs_echoes"]),
        )
    )
    rows, others = (Rows(nodes["training_data"].published.data / "rows.arrow") for nodes in (first, second))
    assert len(rows) == len(others) == 30
    for row in range(len(rows)):
        assert rows.ids(row).tolist() == others.ids(row).tolist()
        one, other = (said.of(row, rows.labels(row)) for said in (whole, parts))
        assert one.token_ids_nk.tolist() == other.token_ids_nk.tolist() and one.token_ids_nk.shape[1] == TOP_K
        # Of another temperature a logit is known up to what is the same for all tokens.
        mine_nk, theirs_nk = (said.log_p_nk - said.log_p_nk[:, :1] for said in (one, other))
        np.testing.assert_allclose(mine_nk, theirs_nk, atol=1e-4)
    assert not (first["training_data"].published.data / "sources.arrow").exists()


@pytest.mark.slow
def test_a_student_of_stored_log_probabilities_learns_the_same(finished: Any, stored: Project) -> None:
    nodes = stored.run()
    metrics = [found["trained"].published.manifest["metrics"] for found in (finished[1], nodes)]
    # There is no teacher to ask.
    predictions = nodes["evaluation_of_trained"].published.data / "predictions.jsonl"
    assert "teacher_kl" not in json.loads(predictions.read_text().splitlines()[0])
    assert metrics[1]["last_ce_loss"] == pytest.approx(metrics[0]["last_ce_loss"], abs=1e-4)


@pytest.mark.slow
def test_rows_without_log_probabilities_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"path": "data/sums.jsonl", "type": "chat_template", "logprobs_field": "said"}
    project = make_project(tmp_path / "project", **STUDENT, datasets=[entry], test_datasets=None)
    (project.folder / "data" / "sums.jsonl").write_text(chat_row("1 + 1", "2") * 2)
    assert main(["preprocess", str(project.yaml), "--state", str(project.state)]) == 1
    assert "sums.jsonl:1, 2: no list of log-probabilities in field 'said'" in capsys.readouterr().err
