"""Which models are scored on `lm_eval_tasks`, what enters their keys, and what is refused or asks for nothing."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.configs import HELD_OUT, LORA, SFT, load, problems
from support.harness_tasks import write_tasks

from tunemill.pipelines.graph.check_files import check_files
from tunemill.pipelines.graph.keys import identify_sources, key_document
from tunemill.resources.canonical import hash_document
from tunemill.resources.identity import StatCache

TASKS = {**SFT, "lm_eval_tasks": ["tasks/sums.yaml", "arc_easy"]}
IS_MISSING = importlib.util.find_spec("lm_eval") is None
START = "evaluation_lm_eval_of_"


def scored(folder: Path, **keys: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """The nodes that score on tasks, by the model, with their inputs."""
    nodes = load(folder, {key: value for key, value in {**TASKS, **keys}.items() if value is not None}).nodes
    return {node.name.removeprefix(START): dict(node.inputs) for node in nodes if node.name.startswith(START)}


def test_every_model_is_scored(tmp_path: Path) -> None:
    assert scored(tmp_path, **LORA, quantization={"weight_dtype": "int8"}) == {
        "base": {"model": ("base_model",)},
        "trained": {"model": ("base_model",), "adapter": ("trained",)},
        "merged": {"model": ("merged",)},
        "quantized": {"model": ("quantized",)},
    }
    assert scored(tmp_path) == {"base": {"model": ("base_model",)}, "trained": {"model": ("trained",)}}


def test_some_models_are_scored(tmp_path: Path) -> None:
    own = {"pipeline": {"evaluate": ["trained"]}}
    assert set(scored(tmp_path, **own)) == {"trained"}, "without rows that are held out"
    assert set(scored(tmp_path, **own, **HELD_OUT)) == {"trained"}
    assert set(scored(tmp_path, lm_eval_post_train=False)) == {"base"}
    assert set(scored(tmp_path, pipeline={"evaluate": []})) == set()
    assert set(scored(tmp_path, lm_eval_tasks=None)) == set()


def test_a_given_model_is_scored_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert scored(tmp_path, lm_eval_model="other") == {"given": {}}
    other = "asset://before/merged"
    assert scored(tmp_path, lm_eval_model=other) == {"given": {"model": (other,)}}
    assert scored(tmp_path, lm_eval_model="owner/name") == {"given": {"model": ("lm_eval_files",)}}
    names = [node.name for node in load(tmp_path, {**TASKS, "lm_eval_model": "owner/name"}).nodes]
    assert names.index("lm_eval_files") < names.index("evaluation_lm_eval_of_given")


def key(folder: Path, **keys: Any) -> str:
    pipeline = load(folder, {**TASKS, **keys})
    node = pipeline.node("evaluation_lm_eval_of_base")
    sources = identify_sources(node, pipeline.document, StatCache(folder / "stats"))
    return hash_document(key_document(node, {"model": ["digest"]}, sources))


def test_the_key_holds_the_task_and_everything_behind_it(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    first = key(tmp_path)
    assert key(tmp_path) == first == key(tmp_path, lm_eval_tasks=[f"{tasks}/sums.yaml", "arc_easy"])
    for name in ("sums.yaml", "base.inc", "chosen.py", "rows/sums.jsonl"):
        text = (tasks / name).read_text()
        (tasks / name).write_text(f"{text}\n")
        assert key(tmp_path) != first, name
        (tasks / name).write_text(text)
    (tasks / "rows" / "cities.jsonl").write_text("{}\n")
    assert key(tmp_path) == first, "another task's rows"
    assert key(tmp_path, lm_eval_tasks=["tasks/sums.yaml"]) != first
    assert key(tmp_path, pipeline={"lm_eval": {"limit": 3}}) != first
    assert key(tmp_path, lm_eval_batch_size=4) != first


def test_the_key_holds_the_version_of_modules_that_functions_are_taken_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, packages = write_tasks(tmp_path / "tasks"), tmp_path / "packages"
    monkeypatch.syspath_prepend(packages)
    first = key(tmp_path)
    text = (tasks / "sums.yaml").read_text().replace("chosen.first", "own_rows.chosen.first")
    (tasks / "sums.yaml").write_text(text)
    absent = key(tmp_path)
    (packages / "own_rows").mkdir(parents=True)
    (packages / "own_rows" / "chosen.py").write_text("def first(rows):\n    return rows\n")
    (packages / "own_rows" / "__init__.py").write_text("raise SystemExit('code was run')\n")
    importlib.invalidate_caches()
    found = [first, absent, key(tmp_path)]
    with (packages / "own_rows" / "chosen.py").open("a") as file:
        file.write("# other\n")
    found.append(key(tmp_path))
    information = packages / "own_rows-1.0.dist-info"
    information.mkdir()
    (information / "top_level.txt").write_text("own_rows\n")
    for number in ("1.0", "1.0.1"):
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: own-rows\nVersion: {number}\n")
        found.append(key(tmp_path))
    assert len(set(found)) == len(found)
    entry = {"name": "sums", "on": ["base"], "task": "tasks/sums.yaml"}
    (node,) = of_entries(tmp_path, entry).values()
    assert node.config.semantic()["function_versions"] == {"own_rows": "1.0.1"}
    (tasks / "sums.yaml").write_text(text.replace("own_rows.chosen.first", "lm_eval.tasks.x.first"))
    (node,) = of_entries(tmp_path, entry).values()
    assert "function_versions" not in node.config.semantic(), "its version is in the key as it is"


def test_settings_without_tasks_ask_for_nothing(tmp_path: Path) -> None:
    config = {**SFT, "lm_eval_post_train": True, "lm_eval_model": "other", "lm_eval_batch_size": 4}
    plugin = {"plugins": ["axolotl.integrations.lm_eval.LMEvalPlugin"]}
    notes = {note.path for note in load(tmp_path, {**config, **plugin}).notes}
    assert notes >= {"lm_eval_post_train", "lm_eval_model", "lm_eval_batch_size", "plugins"}


@pytest.mark.parametrize(
    ("keys", "path", "said"),
    [
        ({"lm_eval_tasks": "arc_easy"}, "lm_eval_tasks", "list"),
        ({"lm_eval_tasks": ["arc_easy", "arc_easy"]}, "lm_eval_tasks", "names arc_easy twice"),
        ({"lm_eval_tasks": [""]}, "lm_eval_tasks", "an empty name"),
        ({"lm_eval_batch_size": 0}, "lm_eval_batch_size", "must be above 0"),
        ({"pipeline": {"lm_eval": {"limit": 0}}}, "pipeline.lm_eval.limit", "must be above 0"),
        (
            {"pipeline": {"lm_eval": {"generation": {"max_length": 9}}}},
            "pipeline.lm_eval.generation",
            "gen_toks",
        ),
        ({"pipeline": {"lm_eval": {"system_prompt": " "}}}, "pipeline.lm_eval", "is empty"),
        ({"lm_eval_model": "asset://x/merged"}, "lm_eval_model", "this pipeline's own result"),
        ({"reward_model": True}, "lm_eval_tasks", "a model that scores"),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, keys: dict[str, Any], path: str, said: str) -> None:
    write_tasks(tmp_path / "tasks")
    found = {problem.path: problem.message for problem in problems(tmp_path, {**TASKS, **keys})}
    assert said in found[path]


@pytest.mark.skipif(not IS_MISSING, reason="lm_eval is installed here")
def test_what_is_missing_is_said_in_check(tmp_path: Path) -> None:
    file = tmp_path / "x.yml"
    file.write_text(yaml.safe_dump({**TASKS, "lm_eval_tasks": ["tasks/sums.yaml"]}))

    def said() -> list[str]:
        (checked,) = check_files([file])
        return [problem.message for problem in checked.problems if problem.path == "lm_eval_tasks"]

    assert any("tasks/sums.yaml: there is no such file" in message for message in said())
    write_tasks(tmp_path / "tasks")
    (message,) = said()
    assert "lm_eval" in message and "pip install 'tunemill[lm-eval]'" in message


def of_entries(folder: Path, *entries: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """The nodes of `pipeline.evaluations`."""
    pipeline = load(folder, {**SFT, **keys, "pipeline": {"evaluations": list(entries)}})
    return {node.name: node for node in pipeline.nodes if node.name.startswith("evaluation_")}


def test_an_evaluation_may_be_a_task(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    entry = {"name": "sums", "on": ["base", "merged"], "task": "tasks/sums.yaml", "lm_eval": {"limit": 3}}
    nodes = of_entries(tmp_path, entry, {"name": "arc", "on": ["base"], "task": ["arc_easy"]}, **LORA)
    assert set(nodes) == {"evaluation_sums_of_base", "evaluation_sums_of_merged", "evaluation_arc_of_base"}
    node = nodes["evaluation_sums_of_merged"]
    assert node.inputs == {"model": ("merged",)} and node.config.as_harness.lm_eval.limit == 3
    assert node.sources == {
        "task": [f"{tasks}/sums.yaml"],
        "task_files": [f"{tasks}/{name}" for name in ("base.inc", "chosen.py", "rows/sums.jsonl")],
    }
    assert nodes["evaluation_arc_of_base"].config.semantic()["task"] == ["arc_easy"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"metrics": ["exact_match"]}, "metrics: a task has rows, prompts and metrics of its own"),
        ({"data": {"path": "rows.jsonl", "type": "chat_template"}}, "data: a task has rows"),
        ({"max_rows": 3}, "max_rows: a task has rows"),
        ({"task": "bench.py@sums", "lm_eval": {"limit": 3}}, "lm_eval: a task has rows"),
        ({"task": None, "lm_eval": {"limit": 3}, "data": {"path": "rows.jsonl"}}, "only read beside task"),
    ],
)
def test_what_does_not_go_with_a_task_is_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    entry = {"name": "sums", "task": "tasks/sums.yaml", **more}
    found = problems(tmp_path, {**SFT, "pipeline": {"evaluations": [{k: v for k, v in entry.items() if v}]}})
    assert any(said in problem.message for problem in found), [problem.message for problem in found]
