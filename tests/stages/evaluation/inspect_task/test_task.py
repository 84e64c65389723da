"""Tasks of inspect-ai: which files are theirs, what is said of wrong ones, and what is read of a log."""

import sys

import pytest
from support.configs import LORA, SFT, load, problems
from support.inspect_tasks import write_task

from tunemill.pipelines.graph.keys import identify_sources, key_document
from tunemill.resources.canonical import hash_document
from tunemill.resources.identity import StatCache
from tunemill.stages.evaluation.inspect_task.config import InspectTaskConfig
from tunemill.stages.evaluation.inspect_task.samples import means_of, metrics_of, predictions_of
from tunemill.stages.evaluation.inspect_task.task_files import files_behind

ENTRY = {"name": "sums", "on": ["base", "trained"], "task": "tasks/task.py@sums"}


def with_entry(**changes):
    return {**SFT, **LORA, "pipeline": {"evaluations": [{**ENTRY, **changes}]}}


def test_a_task_is_its_file_what_it_imports_and_what_it_names(tmp_path):
    file = write_task(tmp_path / "tasks")
    (tmp_path / "tasks" / "beside.py").write_text("nobody imports it")
    found = files_behind("tasks/task.py@sums", tmp_path)
    assert found == [str(file), *(str(file.with_name(name)) for name in ("rows.jsonl", "scorers.py"))]
    assert files_behind("tasks/missing.py", tmp_path) == [str(tmp_path / "tasks" / "missing.py")]
    # Neither the folders in which the task lies, nor a text that is too long for a name.
    file.write_text(file.read_text() + f"PLACES = ['', '.', '..', '../tasks', {'長い文' * 80!r}]\n")
    assert files_behind("tasks/task.py@sums", tmp_path) == found
    file.write_text("def f(:")
    assert files_behind("tasks/task.py", tmp_path) == [str(file)]


def test_each_model_has_a_node_and_files_settings_and_version_move_its_key(tmp_path, monkeypatch):
    file = write_task(tmp_path / "tasks")

    def key(**changes):
        pipeline = load(tmp_path, with_entry(**changes))
        node = pipeline.node("evaluation_sums_of_trained")
        assert node.inputs == {"model": ("base_model",), "adapter": ("trained",)}
        sources = identify_sources(node, pipeline.document, StatCache(tmp_path / "stats"))
        return hash_document(key_document(node, {}, sources))

    keys = [key(), key(inspect={"limit": 2}), key(inspect={"seed": 1}), key(task="tasks/task.py@broken")]
    for name in ("rows.jsonl", "scorers.py", "task.py"):
        changed = file.with_name(name)
        changed.write_text(changed.read_text() + "\n")
        keys.append(key())
    monkeypatch.setattr("tunemill.stages.evaluation.inspect_task.config.version_beside", lambda *_: "0.3.286")
    keys.append(key())
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"task": ["tasks/task.py"]}, "[0].task", "stands alone"),
        ({"batch_size": 3}, "[0]", "stands below inspect"),
        ({"lm_eval": {"limit": 3}}, "[0]", "lm_eval: a task has rows"),
        ({"task": None, "inspect": {"limit": 3}}, "[0]", "inspect: is only read beside task"),
        ({"inspect": {"epochs": 3}}, "[0].inspect.epochs", "unknown key"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(tmp_path, changes, path, words):
    found = {problem.path: problem.message for problem in problems(tmp_path, with_entry(**changes))}
    assert words in found[f"pipeline.evaluations{path}"], found


def test_check_reads_the_task_and_looks_for_inspect(tmp_path):
    file = write_task(tmp_path / "tasks")

    def faults(task, **more):
        config = InspectTaskConfig(task=task, task_files=files_behind(task, tmp_path), **more)
        return [fault.reason for fault in config.faults()]

    missing = faults("tasks/task.py@sums", inspect_python=str(tmp_path / "python"))
    assert len(missing) == 1 and f"needs inspect-ai, and {tmp_path / 'python'} runs no Python" in missing[0]
    information = tmp_path / "inspect_ai-0.3.285.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: inspect-ai\nVersion: 0.3.285\n")
    python = tmp_path / "python-without-openai"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    assert faults("tasks/task.py@sums", inspect_python=str(python)) == [
        f"inspect-ai asks by openai, which is not installed beside {python}. Install it there"
    ]
    assert faults("tasks/task.py@other")[-1].endswith("has no task other, but sums, broken")
    assert faults("tasks/task.py")[-1].endswith("has the tasks sums, broken. Say which: task.py@sums")
    file.write_text("x = 1")
    assert "no function in it makes a task" in faults("tasks/task.py")[-1]
    file.write_text("def f(:")
    assert "Python cannot read it" in faults("tasks/task.py")[-1]


def sample(number, value, **scores):
    """A sample as inspect-ai 0.3.285 logs it, of what is read here."""
    return {
        "id": number, "input": [{"role": "user", "content": [{"type": "text", "text": f"{number}?"}]}],
        "target": ["a", "b"], "scores": {"match": {"value": value}, **{k: {"value": v} for k, v in scores.items()}},
        "output": {
            "completion": "a", "usage": {"output_tokens": 3}, "choices": [{"stop_reason": "max_tokens"}],
        },
    }  # fmt: skip


def test_samples_are_rows_and_means_are_known():
    log = {
        "eval": {"dataset": {"sample_ids": [2, 1, 3]}},
        "results": {
            "scores": [
                {"name": name, "metrics": {str(n): {"name": metric, "value": v} for n, (metric, v) in enumerate(made)}}
                for name, made in {
                    "match": [("accuracy", 0.5), ("stderr", 0.1)], "size": [("inspect_ai/mean", 2.0)],
                    "odd": [("mine", 9.0), ("no", float("nan"))],
                }.items()
            ]
        },
        "samples": [
            sample(1, "C", size=1), sample(2, "P", size=3, odd={"x": 1, "y": "C"}), sample(3, "I", size="?"),
        ],
    }  # fmt: skip
    metrics, rows = metrics_of(log), list(predictions_of(log, "sums"))
    assert metrics == {"match/accuracy": 0.5, "size/mean": 2.0, "odd/mine": 9.0}
    assert [row["doc_id"] for row in rows] == [2, 1, 3] and [row["match"] for row in rows] == [0.5, 1.0, 0.0]
    assert rows[0] | {"id": ""} == {
        "row": 0, "task": "sums", "doc_id": 2, "id": "", "prompt": "2?", "reference": "a\nb", "prediction": "a",
        "tokens": 3, "finish_reason": "length", "match": 0.5, "size": 3.0, "odd/x": 1.0, "odd/y": 1.0,
    }  # fmt: skip
    assert rows[2]["size"] is None
    assert means_of(metrics, rows) == {"match/accuracy": "match", "size/mean": "size"}
    plain = list(predictions_of({**log, "samples": [sample(1, "C"), sample(3, "I")]}, "sums"))
    assert [row["match"] for row in plain] == [True, False]
