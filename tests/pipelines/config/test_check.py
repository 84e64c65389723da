"""`check`: every problem with its line, column, kind and remedy; nothing is touched."""

import json
import time

import pytest
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.schema import axolotl_keys, json_schema, key_tree
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.places import unique_names


@pytest.fixture
def yaml_file(tmp_path):
    return make_project(tmp_path / "project").yaml


def problems(yaml_file, text="", **edits):
    from support.project import Project

    if edits:
        Project(yaml_file.parent, yaml_file.parent / ".tunemill").edit(**edits)
    yaml_file.write_text(yaml_file.read_text() + text)
    with pytest.raises(ConfigError) as caught:
        load_pipeline(yaml_file)
    return caught.value.problems


def test_a_good_config_has_no_problem(yaml_file):
    assert main(["check", str(yaml_file)]) == 0
    assert not (yaml_file.parent / ".tunemill").exists()


def test_a_typo_names_the_nearest_key(yaml_file):
    lines = len(yaml_file.read_text().splitlines())
    (problem,) = problems(yaml_file, "learnin_rate: 5\n")
    assert (problem.path, problem.line, problem.column, problem.kind) == (
        "learnin_rate",
        lines + 1,
        1,
        "unknown",
    )
    assert problem.suggestion == "learning_rate"


@pytest.mark.parametrize(
    ("edits", "path", "suggestion"),
    [
        ({"datasets": [{"path": "data/sums.jsonl", "type": "chat_template", "roles_to_trian": ["user"]}]},
         "datasets[0].roles_to_trian", "roles_to_train"),
        ({"quantization": {"weight_dtyp": "int8"}}, "quantization.weight_dtyp", "weight_dtype"),
        ({"pipeline": {"evaluation": {"max_row": 3}}}, "pipeline.evaluation.max_row", "max_rows"),
        ({"special_tokens": {"pad_tokn": "x"}}, "special_tokens.pad_tokn", "pad_token"),
    ],
)  # fmt: skip
def test_typos_are_found_at_any_depth(yaml_file, edits, path, suggestion):
    (problem,) = problems(yaml_file, **edits)
    assert (problem.path, problem.kind, problem.suggestion) == (path, "unknown", suggestion)
    assert problem.line > 1


def test_a_key_of_axolotl_that_is_not_supported_says_exactly_that(yaml_file):
    (problem,) = problems(yaml_file, "use_onebitllms: true\n")
    assert problem.kind == "unsupported" and problem.path == "use_onebitllms"
    assert "key of Axolotl that Tunemill does not support yet" in problem.message


def test_a_switched_off_key_of_axolotl_asks_for_nothing(yaml_file):
    yaml_file.write_text(
        yaml_file.read_text() + "load_in_8bit: false\nflash_attention: false\ndeepspeed:\nwandb_project:\n"
    )
    assert main(["check", str(yaml_file)]) == 0


@pytest.mark.parametrize(
    ("edits", "path", "message"),
    [
        ({"sequence_len": -1}, "sequence_len", r"must be above 0 \(given: -1\)"),
        ({"micro_batch_size": "many"}, "micro_batch_size", r"must be a whole number \(given: 'many'\)"),
        ({"datasets": []}, "datasets", "at least 1 item"),
        ({"val_set_size": -0.5, "test_datasets": None}, "val_set_size", "must be at least 0 "),
        ({"learning_rate": ".nan"}, "learning_rate", "."),
        ({"base_model": None}, "base_model", "has no value, or null"),
        ({"learning_rate": None}, "learning_rate", "has no value, or null.*write `learning_rate: VALUE`"),
    ],
)
def test_wrong_values_name_key_rule_and_what_was_given(yaml_file, edits, path, message):
    found = [problem for problem in problems(yaml_file, **edits) if problem.path == path or not problem.path]
    assert found and found[0].kind == "value"
    import re

    assert re.search(message, found[0].message)


@pytest.mark.parametrize(
    "edits",
    [
        {"warmup_steps": 2, "warmup_ratio": 0.1},
        {"val_set_size": 0.1},
        {"pipeline": {"evaluate": ["merged"]}, "adapter": None},
        {"sdp_attention": True, "eager_attention": True},
    ],
)
def test_conflicts_fail_before_anything_is_loaded(yaml_file, edits):
    assert "conflict" in {problem.kind for problem in problems(yaml_file, **edits)}


def test_every_problem_is_reported_at_once_and_as_json(yaml_file, capsys):
    yaml_file.write_text(
        yaml_file.read_text()
        + "learnin_rate: 5\nuse_onebitllms: true\nseed: -3\nwarmup_steps: 1\nwarmup_ratio: 0.1\n"
    )
    assert main(["check", str(yaml_file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {problem["kind"] for problem in found} == {
        "unknown",
        "unsupported",
        "value",
        "conflict",
    }
    for problem in found:
        assert set(problem) == {"path", "line", "column", "kind", "message", "suggestion", "end", "override"}


def test_a_missing_source_is_named_with_its_line(yaml_file, capsys):
    (yaml_file.parent / "data" / "sums.jsonl").unlink()
    assert main(["run", str(yaml_file), "--state", str(yaml_file.parent / "state")]) == 1
    said = capsys.readouterr().err
    line = next(n for n, text in enumerate(yaml_file.read_text().splitlines(), 1) if "sums.jsonl" in text)
    assert f"{yaml_file}:{line}:" in said and "datasets[0].path" in said and "no such file" in said
    assert not list((yaml_file.parent / "state" / "artifacts").glob("*"))


def test_checking_is_fast(yaml_file):
    key_tree(), axolotl_keys()
    started = time.perf_counter()
    load_pipeline(yaml_file)
    assert time.perf_counter() - started < 0.5


def test_overrides_reach_any_key(yaml_file):
    assert main(["check", str(yaml_file), "--learning_rate=3e-4", "--datasets[1].type=chat_template"]) == 0
    assert main(["check", str(yaml_file), "--learnin_rate=3e-4"]) == 1


def test_the_schema_knows_every_key():
    schema = json_schema()
    assert set(key_tree()) == set(schema["properties"])
    assert schema["properties"]["datasets"]["items"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? [a, b]\n: 1\n", "a key must be text"),
        ("1: x\n", "unknown key"),
        ("true: x\n", "a key must be text"),
        ("on: x\n", "unknown key"),
        ("x: &d [*d]\n", "an alias stands inside of what it names"),
        ("x: 2024-13-45\n", "unknown key"),
        ("x: .nan\n", "not a finite number"),
        ("learnin_rate:\n", "unknown key"),
        ("pipeline: 3\n", "must be a mapping"),
        ("x: \0\n", "not valid YAML"),
    ],
)
def test_weird_yaml_is_a_problem_and_no_traceback(yaml_file, text, message):
    assert any(message in problem.message for problem in problems(yaml_file, text))


@pytest.mark.parametrize("override", ["tokens=[a", ".=1", "learning_rate=2024-13-45", "datasets.x=1"])
def test_weird_overrides_are_problems(yaml_file, override):
    assert main(["check", str(yaml_file), f"--{override}"]) == 1


@pytest.mark.parametrize(
    "name", ["asset://", "asset://x-y", "asset:///merged", "asset://../merged", "asset://pipeline/merged"]
)
def test_an_asset_must_name_a_node_of_another_pipeline(yaml_file, name):
    assert main(["check", str(yaml_file), f"--base_model={name}", "--reinit_weights=false"]) == 1


def test_keys_without_a_node_are_still_checked(yaml_file):
    found = problems(yaml_file, test_datasets=None, eval_max_new_tokens="banana", eval_steps=4)
    assert {problem.path for problem in found} == {"eval_max_new_tokens", "eval_steps"}


def test_numbers_may_be_written_as_in_yaml_1_2(yaml_file):
    pipeline = load_pipeline(yaml_file, ["learning_rate=5e-5", "lr_scheduler_kwargs={num_cycles: 1e-1}"])
    config = pipeline.node("trained").config
    assert config.learning_rate == 5e-5 and config.lr_scheduler_kwargs == {"num_cycles": 0.1}


def test_nodes_have_plain_names_that_differ():
    names = unique_names(
        [{"path": "a/données.jsonl"}, {"path": "part_1.jsonl"}, {"path": "x/part_1.csv"}, {"path": "part_2"}]
    )
    assert names == ["donn_es", "part_1", "part_1_2", "part_2"]


@pytest.mark.parametrize(
    ("key", "name"), [("chat_template_jinja", "my.jinja"), ("datasets[0].type", "mine.transform")]
)
def test_files_in_another_encoding_are_told_once_with_their_line(yaml_file, key, name):
    file = yaml_file.parent / name.replace("transform", "py")
    file.write_bytes(b"# a\n# {{ \xe9 }}\n")
    with pytest.raises(ConfigError) as caught:
        load_pipeline(yaml_file, [f"{key}={name}"])
    (problem,) = caught.value.problems
    assert problem.path == key and f"{file}, line 2: the byte 0xe9 is no UTF-8" in problem.message


def test_a_byte_order_mark_before_a_yaml_is_no_part_of_it(yaml_file):
    yaml_file.write_bytes(b"\xef\xbb\xbf" + yaml_file.read_bytes())
    assert main(["check", str(yaml_file)]) == 0
