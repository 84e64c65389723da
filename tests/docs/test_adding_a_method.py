"""Follow docs/adding-a-method.md literally, in a copy of the project."""

import json

import pytest
from support.project import make_project

pytestmark = pytest.mark.slow

PAGE = "adding-a-method.md"
# What supervised training reads, and pairs do without.
UNREAD = dict.fromkeys(("sample_packing", "eval_max_new_tokens", "test_datasets", "quantization", "adapter"))


def test_it_trains_and_a_key_of_its_own_trains_again(copy, tmp_path):
    datasets = [{"path": "data/pairs.jsonl", "type": "chat_template.default"}]
    project = make_project(
        tmp_path / "it", **UNREAD, rl="slic", datasets=datasets, val_set_size=2, eval_steps=2
    )
    (project.folder / "data" / "pairs.jsonl").write_text("".join(map(pair, "abcdefghij")))
    notes, first, planned = copy.tunemill(project, "check", "run", "plan --rl_beta=2")
    assert notes == []
    assert first["nodes"]["trained"]["stage"] == "slic"
    metrics = first["nodes"]["trained"]["metrics"]
    assert metrics["steps"] == 4 and metrics["last_eval_loss"] >= 0 > metrics["last_eval_logps/chosen"]
    assert 0 <= metrics["last_eval_rewards/accuracies"] <= 1
    assert {name: node["reasons"] for name, node in planned["nodes"].items() if node["state"] == "run"} == {
        "trained": ["rl_beta 1.0 -> 2.0"]
    }


def test_a_key_of_another_method_is_refused(copy, tmp_path):
    datasets = [{"path": "data/pairs.jsonl", "type": "chat_template.default"}]
    project = make_project(tmp_path / "it", **UNREAD, rl="slic", datasets=datasets, orpo_alpha=0.2)
    assert "is read by orpo; this pipeline trains slic" in copy.refused(project)


def test_models_that_nothing_scores_yet_are_not_evaluated(copy, tmp_path):
    datasets = [{"path": "data/pairs.jsonl", "type": "chat_template.default"}]
    evaluate = {"val_set_size": 2, "pipeline": {"evaluate": ["base"]}}
    project = make_project(tmp_path / "it", **UNREAD, rl="slic", datasets=datasets, **evaluate)
    assert "nothing scores models" in copy.refused(project)


def pair(letter):
    """A row with a question, a better and a worse answer."""
    question = {"role": "user", "content": f"say {letter}"}
    answers = {
        side: {"role": "assistant", "content": text}
        for side, text in (("chosen", letter), ("rejected", "never"))
    }
    return json.dumps({"messages": [question], **answers}) + "\n"
