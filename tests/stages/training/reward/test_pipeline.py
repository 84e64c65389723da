"""`reward_model: true` from a YAML to evaluated, merged and quantized models; and what of it runs again."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from support.project import make_project, nodes_in_state
from transformers import AutoModelForSequenceClassification

from tunemill.pipelines.cli import main

pytestmark = pytest.mark.slow

MODELS = ("trained", "merged", "quantized")
EVALUATIONS = {f"evaluation_of_{model}" for model in MODELS}
AFTER = {*MODELS, *EVALUATIONS}
PAGE = (Path(__file__).parents[4] / "docs" / "rewards.md").read_text()
UNREAD = dict.fromkeys(("sample_packing", "eval_max_new_tokens"))


def pairs(count: int, seed: int) -> str:
    """The better answer has one of the first letters of the alphabet, the other one of the last."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        question = f"letter {chance.randrange(1000)}"
        chosen, rejected = (f"it is {chance.choice(letters)}" for letters in ("abc", "xyz"))
        rows.append(json.dumps({"input": question, "chosen": chosen, "rejected": rejected}) + "\n")
    return "".join(rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward") / "project"
    entry = {"path": "data/pairs.jsonl", "type": "bradley_terry.chat_template"}
    project = make_project(
        folder, reward_model=True, num_labels=1, center_rewards_coefficient=0.01, datasets=[entry],
        test_datasets=None, val_set_size=30, eval_steps=16, lora_r=8, lora_alpha=16, learning_rate=0.01, max_steps=32,
        micro_batch_size=8, **UNREAD,
    )  # fmt: skip
    (folder / "data" / "pairs.jsonl").write_text(pairs(160, 1))
    return project, project.run()


def test_every_model_scores_what_was_held_out(finished, capsys):
    project, nodes = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= AFTER | {"training_data", "evaluation_data"}
    assert "evaluation_of_base" not in nodes
    metrics = {model: nodes[f"evaluation_of_{model}"].published.manifest["metrics"] for model in MODELS}
    trained = nodes["trained"].published.manifest["metrics"]
    assert metrics["trained"]["accuracy"] == trained["last_eval_accuracy"] > 0.9
    assert (
        metrics["trained"]["rows"] == 30
        and metrics["merged"]["accuracy"] > 0.9 < metrics["quantized"]["accuracy"]
    )
    assert metrics["merged"] == pytest.approx(metrics["trained"], rel=1e-3, abs=1e-4)
    assert {item.state for item in project.plan().values()} == {"cached"}
    assert main(["run", str(project.yaml), "--state", str(project.state)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("accuracy", "margin", "mean_reward", *MODELS))


def test_what_a_person_takes_away_says_what_it_is(finished):
    links = finished[0].folder / "outputs"
    assert json.loads((links / "trained" / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    for model in ("merged", "quantized"):
        stored = json.loads((links / model / "config.json").read_text())
        assert stored["architectures"] == ["LlamaForSequenceClassification"], model
    _, told = AutoModelForSequenceClassification.from_pretrained(links / "merged", output_loading_info=True)
    assert not any(told.values())
    lines = (links / "evaluation_of_merged" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 30 and "it is" in json.loads(lines[0])["chosen"]


def test_the_python_of_the_page_scores_a_conversation(finished, monkeypatch):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    monkeypatch.chdir(finished[0].folder)
    found: dict[str, Any] = {}
    exec(block, found)  # noqa: S102 - the page's own
    assert found["score"].isfinite() and found["score"].ndim == 0


def test_the_yaml_of_the_page_is_valid(finished, tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    yaml = tmp_path / "page.yml"
    model = finished[0].folder / "model"
    yaml.write_text(block.replace("asset://sft/merged", str(model)) + "reinit_weights: true\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.jsonl").write_text(pairs(4, 1))
    assert main(["check", str(yaml)]) == 0


@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("center_rewards_coefficient=0.1", AFTER),
        ("lora_r=2", AFTER),
        ("num_labels=null", set()),
        ("eval_steps=3", set()),
        ("eval_batch_size=2", EVALUATIONS),
        ("pipeline.evaluation.max_rows=8", EVALUATIONS),
        ("pipeline.evaluate=[trained]", set()),
    ],
)
def test_what_runs_again(finished, override, runs):
    planned = finished[0].plan(override)
    assert {name for name, item in planned.items() if item.state == "run"} == runs


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (
            "--num_labels=2",
            "num_labels: 2: which answer of a pair is better is learnt from the difference of two",
        ),
        (
            "--adapter=llama-adapter",
            "prompts of llama-adapter are those of language models, and a model that scores",
        ),
        (
            "--sample_packing=true",
            "sample_packing: is read by",
        ),
        ("--orpo_alpha=0.2", "orpo_alpha: is read by orpo; this pipeline trains reward"),
        ("--pipeline.evaluate=[base]", "the base scores nothing before reward_model: true is trained"),
        ("--pipeline.evaluation.exact_match=true", "exact_match"),
    ],
)
def test_what_does_not_go_with_it_is_refused(finished, capsys, override, reason):
    project, _ = finished
    assert main(["check", str(project.yaml), "--quantization=null", override]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_a_reward_model_is_trained_on(finished):
    project, nodes = finished
    merged = str(project.folder / "outputs" / "merged")
    again = project.run(f"base_model={merged}", "reinit_weights=false", "max_steps=1", "learning_rate=1e-6")
    before, after = (found["evaluation_of_trained"].published.manifest["metrics"] for found in (nodes, again))
    assert after["accuracy"] == before["accuracy"] and after["margin"] == pytest.approx(
        before["margin"], rel=0.01
    )
