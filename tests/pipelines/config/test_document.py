"""Reading YAML: positions, overrides, and what cannot be read."""

import pytest

from tunemill.pipelines.config.document import read_document
from tunemill.pipelines.config.problems import ConfigError


def read(tmp_path, text, *overrides):
    path = tmp_path / "x.yml"
    path.write_text(text)
    return read_document(path, overrides)


def test_every_key_knows_its_line_and_column(tmp_path):
    document = read(tmp_path, "a: 1\nb:\n  - c: 2\n    d: {e: 3}\n")
    assert document.data == {"a": 1, "b": [{"c": 2, "d": {"e": 3}}]}
    assert document.position(("a",)) == (1, 1)
    assert document.position(("b", 0, "d")) == (4, 5)
    assert document.position(("b", 0, "d", "e")) == (4, 9)
    assert document.position(("b", 0, "missing")) == (3, 5)
    assert document.position(("missing",)) == (1, 1)


def test_null_means_unset(tmp_path):
    assert read(tmp_path, "a:\nb: null\nc: [{d: ~, e: 1}]\n").data == {"c": [{"e": 1}]}


def test_anchors_and_merge_keys_work(tmp_path):
    assert read(tmp_path, "x: &x {a: 1}\ny:\n  <<: *x\n  b: 2\n").data["y"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learning_rate=1e-4", {"learning_rate": 1e-4}),
        ("bf16=true", {"bf16": True}),
        ("datasets[0].path=other.jsonl", {"datasets": [{"path": "other.jsonl"}]}),
        ("datasets.0.path=other.jsonl", {"datasets": [{"path": "other.jsonl"}]}),
        ("pipeline.evaluation.max_rows=4", {"pipeline": {"evaluation": {"max_rows": 4}}}),
        ("lora_target_modules=[q_proj, v_proj]", {"lora_target_modules": ["q_proj", "v_proj"]}),
        ("text=a=b", {"text": "a=b"}),
    ],
)
def test_overrides_are_read_as_yaml(tmp_path, override, expected):
    data = read(tmp_path, "datasets: [{path: rows.jsonl}]\n", override).data
    assert {key: data[key] for key in expected} == expected


def test_an_override_without_a_place_is_an_error(tmp_path):
    (problem,) = read(tmp_path, "datasets: [{path: rows.jsonl}]\n", "datasets[3].path=x").problems
    assert problem.override == "datasets[3].path=x" and (problem.column, problem.end) == (1, 17)
    assert "nothing at this place" in problem.message and "datasets has 1 item," in problem.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", r"x\.yml:2:\d+: not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", r"x\.yml:3:1: a: the key is given twice, first in line 1"),
        ("- 1\n", r"x\.yml:1:1: the file must hold a mapping"),
        (
            "a: !!python/object:os.system {}\n",
            r"x\.yml:1:4: a: the tag !!python/object:os\.system has no meaning",
        ),
        ("a: \tb\n\tc: 1\n", r"not valid YAML"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        document = read(tmp_path, text)
        raise ConfigError(tmp_path / "x.yml", document.problems)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yml.*cannot be read: no such file or directory"):
        read_document(tmp_path / "nowhere.yml")
