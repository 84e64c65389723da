"""Which files are behind a local task, and what of its YAML is refused, without lm_eval."""

from pathlib import Path

import pytest
from support.harness_tasks import write_tasks

from tunemill.stages.errors import SourceError
from tunemill.stages.evaluation.harness.keys import fault_of_place
from tunemill.stages.evaluation.harness.task_files import files_behind, is_place, local_tasks


def behind(folder: Path, *names: str) -> list[str]:
    return [str(Path(file).relative_to(folder)) for file in files_behind(list(names), folder) or []]


def test_paths_are_told_from_names() -> None:
    assert all(map(is_place, ["tasks/a.yaml", "a.yml", "./tasks", "/tasks", "~/tasks", "mine/tasks"]))
    assert not any(map(is_place, ["arc_easy", "mmlu", "tasks"]))


def test_what_a_task_includes_and_names_is_behind_it(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    assert behind(tmp_path, "./sums.yaml") == ["base.inc", "chosen.py", "rows/sums.jsonl"]
    assert behind(tmp_path, "cities.yaml", "arc_easy") == ["base.inc", "rows/cities.jsonl"]
    assert behind(tmp_path, "arc_easy") == [] == behind(tmp_path, "missing.yaml")


def test_data_are_seen_from_the_task_or_from_a_folder_around_it(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    inner = tmp_path / "tasks" / "mine"
    inner.mkdir(parents=True)
    (inner / "sums.yaml").write_text(
        "task: sums\ndataset_path: json\ndataset_kwargs: {data_files: {test: ['rows/*.jsonl', 'https://x/y.json']}}\n"
    )
    assert behind(tmp_path, "tasks/mine/sums.yaml") == ["rows/cities.jsonl", "rows/sums.jsonl"]
    (task,) = local_tasks(inner / "sums.yaml")
    assert task.config["dataset_kwargs"]["data_files"]["test"] == [
        f"{tmp_path}/rows/*.jsonl",
        "https://x/y.json",
    ]
    (inner / "rows").mkdir()
    (inner / "rows" / "nearer.jsonl").write_text("")
    assert behind(tmp_path, "tasks/mine/sums.yaml") == ["tasks/mine/rows/nearer.jsonl"]


def test_data_of_the_hub_are_nothing_local(tmp_path: Path) -> None:
    (tmp_path / "arc.yaml").write_text("task: arc\ndataset_path: allenai/ai2_arc\n")
    (task,) = local_tasks(tmp_path / "arc.yaml")
    assert task.config["dataset_path"] == "allenai/ai2_arc" and behind(tmp_path, "arc.yaml") == []
    (tmp_path / "allenai" / "ai2_arc").mkdir(parents=True)
    assert behind(tmp_path, "arc.yaml") == ["allenai/ai2_arc"]


def test_a_group_has_the_files_of_its_members(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    (tmp_path / "all.yaml").write_text("group: all\ntask: [cities, {task: sums, num_fewshot: 1}, arc_easy]\n")
    (group,) = local_tasks(tmp_path / "all.yaml")
    assert [task.name for task in group.inner] == ["cities", "sums"]
    assert group.members == {"cities", "sums", "arc_easy"}
    assert set(behind(tmp_path, "all.yaml")) == {
        "cities.yaml", "sums.yaml", "base.inc", "chosen.py", "rows/cities.jsonl", "rows/sums.jsonl"
    }  # fmt: skip
    # Of a folder, what no group of it holds.
    assert [task.name for task in local_tasks(tmp_path)] == ["all", "likely"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: [", "it is no YAML of a task"),
        ("- task: a", "a task is a mapping of keys to values"),
        ("output_type: multiple_choice", "it names no task; write `task: NAME`"),
        ("task: a\ninclude: a.yaml", "it includes itself"),
        ("task: a\ninclude: gone.inc", "gone.inc: No such file or directory"),
        ("group: a\ntask: [a]", "the group a is a member of itself"),
        ("task: a\ndoc_to_text: !function gone.f", "there is no gone.py in"),
        ("task: a\ndoc_to_text: !function f", "write module.function"),
    ],
)
def test_what_is_wrong_with_a_yaml_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert said in str(fault_of_place(tmp_path / "a.yaml"))


def test_a_folder_needs_a_task(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("output_type: multiple_choice\n")
    with pytest.raises(SourceError, match="no YAML in this folder names a task"):
        local_tasks(tmp_path)
