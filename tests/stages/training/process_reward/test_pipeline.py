"""`process_reward_model: true` from a YAML to a quantized model that is evaluated; and what of it runs again."""

import json

import pytest
from support.project import make_project, nodes_in_state
from support.steps import counting
from transformers import AutoModelForTokenClassification

from tunemill.pipelines.cli import main

pytestmark = pytest.mark.slow

AFTER = {
    "trained",
    "merged",
    "quantized",
    "evaluation_of_trained",
    "evaluation_of_merged",
    "evaluation_of_quantized",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps") / "project"
    entries = {
        name: [{"path": f"data/{name}.jsonl", "type": "stepwise_supervised"}]
        for name in ("answers", "others")
    }
    project = make_project(
        folder, process_reward_model=True, model_type="AutoModelForTokenClassification", num_labels=2,
        datasets=entries["answers"], test_datasets=entries["others"], eval_steps=2, chat_template=None,
        eval_max_new_tokens=None, learning_rate=0.01,
    )  # fmt: skip
    for name, count in (("answers", 40), ("others", 10)):
        text = "".join(answer.text for answer in counting(count, seed=count))
        (folder / "data" / f"{name}.jsonl").write_text(text)
    return project, project.run()


def test_every_node_runs_and_each_model_is_evaluated(finished):
    project, nodes = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= AFTER | {"training_data", "evaluation_data"}
    assert nodes["trained"].stage == "process_reward" and nodes["training_data"].stage == "training_data"
    assert "evaluation_of_base" not in nodes, "its head is not drawn yet"
    metrics = nodes["trained"].published.manifest["metrics"]
    assert metrics["steps"] == 4 and 0 <= metrics["last_eval_accuracy"] <= 1
    for what in ("trained", "merged", "quantized"):
        figures = nodes[f"evaluation_of_{what}"].published.manifest["metrics"]
        assert (figures["rows"], figures["steps"]) == (10, 40)
        assert figures["eval_loss"] == pytest.approx(metrics["last_eval_loss"], rel=0.05)
    assert {item.state for item in project.plan().values()} == {"cached"}
    for what in ("merged", "quantized"):
        model = AutoModelForTokenClassification.from_pretrained(nodes[what].published.data)
        assert model.config.id2label == {0: "wrong", 1: "right"}


def test_predictions_are_steps_with_their_texts(finished):
    _, nodes = finished
    file = nodes["evaluation_of_merged"].published.data / "predictions.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()]
    expected = [json.loads(answer.text) for answer in counting(10, seed=10)]
    assert sorted(row["prompt"] for row in found) == sorted(row["prompt"] for row in expected)
    by_texts = {(row["prompt"], *row["completions"]): row["labels"] for row in expected}
    for row in found:
        steps = row["steps"]
        assert [step["label"] for step in steps] == by_texts[row["prompt"], *(step["text"] for step in steps)]
        assert all(0 <= step["probability"] <= 1 for step in steps)
        assert len(row["id"]) == 16 and row["judged_steps"] == len(steps)
        is_wrong = row["first_wrong"] is not None
        assert (row["first_wrong_found"] is None) is not is_wrong is (row["right_answers_passed"] is None)
    sure = json.loads((file.parent / "intervals.json").read_text())
    assert {"eval_loss", "step_accuracy"} <= sure.keys()
    assert sure["step_accuracy"]["low"] <= sure["step_accuracy"]["high"]


@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("lora_r=2", AFTER),
        ("eval_steps=1", set()),
        ("eval_batch_size=2", {name for name in AFTER if name.startswith("evaluation_of")}),
    ],
)
def test_what_runs_again(finished, override, runs):
    project, _ = finished
    assert {name for name, item in project.plan(override).items() if item.state == "run"} == runs


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("use_eaft=true", "use_eaft: is read by sft; this pipeline trains process_reward."),
        ("pipeline.evaluation.exact_match=true", "exact_match"),
        ("pipeline.evaluate=[base]", "the base scores nothing before process_reward_model: true is trained"),
        ("model_type=AutoModelForSequenceClassification", "as reward_model: true trains one"),
        ("num_labels=1", "num_labels"),
        ("eval_sample_packing=true", "scored one in a sequence"),
    ],
)
def test_what_is_refused_before_anything_runs(finished, capsys, override, reason):
    project, _ = finished
    assert main(["check", str(project.yaml), f"--{override}"]) == 1
    assert reason in capsys.readouterr().err
