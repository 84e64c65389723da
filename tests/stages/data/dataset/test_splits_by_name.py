"""Which files of a folder are which split: as the datasets library has it, and said to whom it concerns."""

import json
import os
import random

import datasets
import pytest
from datasets.data_files import DataFilesDict, get_data_patterns
from support.project import make_project
from support.rows import read_arrow, run_stage, write_lines

from tunemill.pipelines.cli import main
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources.splits_by_name import data_files, names_below, splits_of
from tunemill.stages.errors import SourceError

WORDS = ["train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"]
OTHERS = ["stories", "latest", "trainer", "contest", "Train", "devil", "x", "data", "1", ".hidden", "__cache"]
MARKS = ["-", ".", "_", " ", "0", "9", "", "+"]


def drawn_names(seed):
    draw = random.Random(seed)

    def word():
        return draw.choice(WORDS if draw.random() < 0.5 else OTHERS)

    def part():
        return "".join(word() + draw.choice(MARKS) for _ in range(draw.randint(1, 2))) + word()

    shards = [f"data/{word()}-0000{n}-of-00002.jsonl" for n in range(2)] if draw.random() < 0.3 else []
    folders = ["/".join(part() for _ in range(draw.choice([0, 0, 1, 2]))) for _ in range(draw.randint(1, 4))]
    return {*shards, *(f"{folder}/{part()}.jsonl".lstrip("/") for folder in folders)}


@pytest.mark.parametrize("seed", range(40))
def test_splits_are_those_of_the_library(tmp_path, seed):
    for name in drawn_names(seed):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    try:
        found = DataFilesDict.from_patterns(get_data_patterns(str(tmp_path)), base_path=str(tmp_path))
        theirs = [
            (str(split), sorted({os.path.relpath(name, tmp_path) for name in files}))
            for split, files in found.items()
        ]
    except datasets.exceptions.DatasetNotFoundError:
        theirs = []
    except FileNotFoundError:
        theirs = []
    splits = splits_of(data_files(names_below(tmp_path), None))
    assert [(split, list(files)) for split, files in splits.files.items()] == theirs
    assert {*splits.left_out, *(name for _, files in theirs for name in files)} == set(names_below(tmp_path))


def write(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, [{"n": number}])
    return folder


def load(folder, out, **config):
    dataset, events = run_stage(DATASET, DatasetConfig(path=str(folder), **config), out)
    return [json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)], events.logs


def test_the_log_says_which_files_are_which_split_and_why(tmp_path):
    folder = write(tmp_path / "data", "stories.jsonl", "latest-eval.jsonl")
    rows, logs = load(folder, tmp_path / "out")
    assert rows == [1]
    assert logs == (
        "data: names tell its splits apart, by the rule of the datasets library: test is latest-eval.jsonl (`eval` in "
        "its name); no split is stories.jsonl. Read: test. `split` names others, and "
        '`data_files: ["*.jsonl"]` reads them all'
    )
    assert load(folder, tmp_path / "all", data_files=[str(folder / "*.jsonl")]) == ([1, 0], "")


def test_the_log_names_folders_and_counts_many(tmp_path):
    names = [f"my test/{letter}.jsonl" for letter in "abcde"]
    rows, logs = load(write(tmp_path / "data", "x/train/1.jsonl", *names, "y.jsonl"), tmp_path / "out")
    assert rows == [0]
    assert "train is x/train/1.jsonl (`train` in its folder's name); test is my test/a.jsonl" in logs
    assert "and 2 more; no split is y.jsonl. Read: train." in logs
    assert '`data_files: ["**/*.jsonl"]`' in logs


def test_the_patterns_that_the_log_names_read_every_file(tmp_path):
    folder = write(tmp_path / "data", "train.jsonl", "deep/test.json", "other.ndjson")
    _, logs = load(folder, tmp_path / "out")
    patterns = json.loads(logs.partition("data_files: ")[2].partition("`")[0])
    assert patterns == ["**/*.ndjson", "**/*.jsonl", "**/*.json"]
    every = [str(folder / pattern) for pattern in patterns]
    assert sorted(load(folder, tmp_path / "all", data_files=every)[0]) == [0, 1, 2]


def test_nothing_is_said_where_all_files_are_read(tmp_path):
    assert load(write(tmp_path / "data", "a.jsonl", "b.jsonl"), tmp_path / "out") == ([0, 1], "")


def test_files_that_hold_no_rows_do_not_tell_splits_apart(tmp_path):
    folder = write(tmp_path / "data", "a.jsonl", "b.jsonl")
    (folder / "train.log").write_text("x")
    assert load(folder, tmp_path / "out") == ([0, 1], "")


def test_a_shard_of_what_can_be_no_split(tmp_path):
    folder = write(tmp_path / "data", "data/my-split-00000-of-00001.jsonl")
    with pytest.raises(SourceError, match="named as a part of the split 'my-split', which is no name of one"):
        load(folder, tmp_path / "out")


def test_a_folder_among_data_files_is_read_whole(tmp_path):
    folder = write(tmp_path / "data", "stories.jsonl", "latest-eval.jsonl")
    dataset, _ = run_stage(DATASET, DatasetConfig(path="json", data_files=[str(folder)]), tmp_path / "out")
    assert sorted(json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)) == [0, 1]


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


def notes(project, capsys, *overrides):
    assert main(["check", str(project.yaml), "--json", *overrides]) == 0
    said = json.loads(capsys.readouterr().out)
    return [(item["path"], item["message"]) for item in said if item["kind"] == "files"]


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["stories.jsonl", "latest-eval.jsonl"], None, "test is latest-eval.jsonl (`eval` in its name); no split is"),
        (["a-train.jsonl", "latest-eval.jsonl"], None, "test is latest-eval.jsonl (`eval` in its name). Read: train"),
        (["stories.jsonl", "train.jsonl"], "train", "no split is stories.jsonl. Read: train."),
        (["train.jsonl", "test.jsonl"], None, None),
        (["train/a.jsonl", "test/b.jsonl"], None, None),
        (["data/train-00000-of-00001.jsonl", "data/extra-00000-of-00001.jsonl"], None, None),
        (["a.jsonl", "b.jsonl"], None, None),
    ],
)  # fmt: skip
def test_check_notes_files_that_are_left_out_unexpectedly(project, capsys, names, split, expected):
    write(project.folder / "mixed", *names)
    found = notes(project, capsys, "datasets.0.path=mixed", *([f"datasets.0.split={split}"] if split else []))
    assert [place for place, _ in found] == ([] if expected is None else ["datasets[0].path"])
    assert expected is None or expected in found[0][1]


def test_plan_and_the_terminal_say_it_too(project, capsys):
    write(project.folder / "mixed", "stories.jsonl", "latest-eval.jsonl")
    overrides = ["datasets.0.path=mixed", "--state", str(project.state)]
    assert main(["plan", str(project.yaml), *overrides]) == 0
    assert "no split is stories.jsonl" in capsys.readouterr().out
    main(["run", str(project.yaml), "--only", "dataset_mixed", *overrides])
    said = capsys.readouterr()
    assert "dataset_mixed: mixed: names tell its splits apart" in said.err, said
