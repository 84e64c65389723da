"""Models that learn preferences, evaluated by a real run; and what of it runs again when a setting changes."""

import json
import random
from typing import Any

import pytest
from support.configs import LORA, ORPO, SFT, load, problems
from support.project import make_project, nodes_in_state

from tunemill.pipelines.cli import main

MODELS = ("base", "trained", "merged")
EVALUATIONS = {f"evaluation_of_{model}" for model in MODELS}
GOOD, BAD = "abcdefgh", "qrstuvwx"
REWARDS, STEPS = (
    {**SFT, key: True, "datasets": [{"path": "rows.jsonl", "type": kind}]}
    for key, kind in (
        ("reward_model", "bradley_terry.chat_template"),
        ("process_reward_model", "stepwise_supervised"),
    )
)


def pairs(count: int, seed: int) -> str:
    """Letters of the first half are better than those of the second, whatever is asked: half of them a base prefers."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        chosen, rejected = ({"role": "assistant", "content": chance.choice(kind)} for kind in (GOOD, BAD))
        question = {"role": "user", "content": f"letter {seed * 1000 + number}"}
        rows.append(json.dumps({"messages": [question], "chosen": chosen, "rejected": rejected}) + "\n")
    return "".join(rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences") / "project"
    entry = {"path": "data/pairs.jsonl", "type": "chat_template.default"}
    project = make_project(
        folder, rl="orpo", datasets=[entry], test_datasets=None, val_set_size=40, quantization=None, lora_r=8,
        lora_alpha=16, learning_rate=0.02, max_steps=20, micro_batch_size=4, orpo_alpha=1.0, curriculum_sampling=True,
        **dict.fromkeys(("sample_packing", "eval_max_new_tokens")),
    )  # fmt: skip
    (folder / "data" / "pairs.jsonl").write_text(pairs(120, 1))
    return project, project.run()


def metrics_of(nodes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {model: nodes[f"evaluation_of_{model}"].published.manifest["metrics"] for model in MODELS}


def test_every_model_is_scored_on_what_was_held_out(finished, capsys):
    project, nodes = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= EVALUATIONS | {"evaluation_data"}
    metrics = metrics_of(nodes)
    base, trained, merged = (metrics[model] for model in MODELS)
    assert 0.25 < base["accuracy"] < 0.75 and base["reward_accuracy"] == 0.5 and base["kl"] == 0.0
    assert trained["accuracy"] > 0.9 and trained["reward_accuracy"] > 0.9 and trained["kl"] > 1e-3
    assert trained["rows"] == base["rows"] == 40
    assert merged == pytest.approx(trained, rel=1e-3)
    assert main(["run", str(project.yaml), "--state", str(project.state)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("reward_accuracy", "kl", "perplexity", *MODELS))
    links = project.folder / "outputs"
    assert json.loads((links / "evaluation_of_trained" / "metrics.json").read_text()) == trained


@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("pipeline.evaluation.max_rows=8", EVALUATIONS),
        ("eval_batch_size=3", EVALUATIONS),
        ("pipeline.evaluate=[]", set()),
        ("pipeline.evaluate=[trained]", set()),
        ("orpo_alpha=0.5", {"trained", "merged", *EVALUATIONS} - {"evaluation_of_base"}),
    ],
)
def test_what_runs_again(finished, override, runs):
    project, _ = finished
    planned = project.plan(override)
    assert {name for name, item in planned.items() if item.state == "run"} == runs
    asked = {name for name in planned if name.startswith("evaluation_of")}
    assert asked == {
        "pipeline.evaluate=[]": set(),
        "pipeline.evaluate=[trained]": {"evaluation_of_trained"},
    }.get(override, EVALUATIONS)
    assert ("evaluation_data" in planned) == bool(asked)


@pytest.mark.slow
def test_other_settings_of_the_evaluation_compute_nothing_else(finished):
    project, nodes = finished
    again = project.run("eval_batch_size=40")
    assert nodes_in_state(again, "computed") == EVALUATIONS
    for model, before in metrics_of(nodes).items():
        assert metrics_of(again)[model] == pytest.approx(before, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_other_rows_to_learn_from_leave_the_base_as_it_was_scored(finished):
    """Its score depends on the held-out rows alone, which lie in an artifact of their own."""
    project, _ = finished
    data = project.folder / "data" / "pairs.jsonl"
    data.write_text("".join(data.read_text().splitlines(keepends=True)[1:]))
    states = {name: item.state for name, item in project.run(only=["evaluation_of_base"]).items()}
    assert states["training_data"] == states["evaluation_data"] == "computed"
    assert states["evaluation_of_base"] == "cached" and project.plan()["trained"].state == "run"


@pytest.mark.parametrize(
    ("settings", "path", "kind"),
    [
        ({"pipeline": {"evaluation": {"exact_match": True}}}, "pipeline.evaluation.exact_match", None),
        ({"pipeline": {"evaluation": {"max_rows": 0}}}, "pipeline.evaluation.max_rows", "value"),
        ({"eval_batch_size": 0}, "eval_batch_size", "value"),
        ({"pipeline": {"evaluate": ["merged"]}, "adapter": None}, "pipeline.evaluate", "conflict"),
        ({"pipeline": {"evaluate": ["base", "base"]}}, "pipeline.evaluate", "conflict"),
        ({"pipeline": {"evaluate": ["base"]}, "val_set_size": 0}, "pipeline.evaluate", "conflict"),
    ],
)
def test_wrong_settings_are_refused_by_check(tmp_path, settings, path, kind):
    found = problems(tmp_path, {**ORPO, **LORA, "val_set_size": 2, **settings})
    (problem,) = (item for item in found if item.path == path and not item.is_note)
    assert kind is None or problem.kind == kind


@pytest.mark.parametrize("config", [ORPO, REWARDS, STEPS], ids=["pairs", "scores", "steps"])
def test_settings_of_generated_answers_are_noted(tmp_path, config):
    pipeline = load(tmp_path, {**config, "val_set_size": 2, "eval_max_new_tokens": 4})
    (note,) = (note for note in pipeline.notes if note.path == "eval_max_new_tokens")
    assert "that takes one that learns to write answers" in note.message
    evaluated = pipeline.node("evaluation_of_base" if config is ORPO else "evaluation_of_trained")
    assert set(evaluated.inputs) == {"model", "evaluation_data"}


@pytest.mark.parametrize("config", [SFT, ORPO, REWARDS, STEPS], ids=["rows", "pairs", "scores", "steps"])
def test_settings_of_every_evaluation_are_noted_where_there_is_none(tmp_path, config):
    (note,) = load(tmp_path, {**config, "pipeline": {"evaluation": {"max_rows": 4}}}).notes
    assert "no model is evaluated here: that takes held-out rows" in note.message
