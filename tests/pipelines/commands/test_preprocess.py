"""`tunemill preprocess`: what it prepares, shows, exports and refuses."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from support.project import nodes_in_state
from support.rows import read_arrow, write_lines

from tunemill.pipelines.cli import main

DATA_NODES = {"tokenizer", "training_data", "evaluation_data", "leakage"} | {
    f"{stage}_{name}" for stage in ("dataset", "tokenized") for name in ("sums", "echoes", "held_out")
}
PAIR = {"question": "1 + 1", "chosen": "2", "rejected": "3", "system": "Add."}


@pytest.fixture
def preprocess(project, capsys):
    """Arguments -> what was printed, or the error text where the exit code is not 0."""

    def call(*arguments, code=0):
        state = ["--state", str(project.state)]
        assert main(["preprocess", str(project.yaml), *arguments, *state]) == code
        said = capsys.readouterr()
        return said.out + said.err if code else said.out

    return call


def test_only_the_data_is_prepared_and_a_second_time_nothing(project, preprocess):
    shutil.rmtree(project.state / "artifacts" / "training_data")
    shutil.rmtree(project.state / "artifacts" / "merged")
    nodes = {node["node"]: node["state"] for node in json.loads(preprocess("--json"))["nodes"]}
    assert set(nodes) == DATA_NODES
    assert [name for name, state in nodes.items() if state == "computed"] == ["training_data"]
    again = json.loads(preprocess("--json"))
    assert {node["state"] for node in again["nodes"]} == {"cached"}
    assert project.plan()["merged"].state == "run"


def test_the_export_has_the_training_rows_in_their_order(project, preprocess, tmp_path):
    target = tmp_path / "rows.parquet"
    assert f"written to {target}" in preprocess("--export", str(target))
    table = pq.read_table(target)
    assert table.column_names == ["input_ids", "labels"]
    node = project.plan()["training_data"]
    assert table.to_pylist() == read_arrow(node.cached.data / "rows.arrow")
    assert len(table) == 30 and not list(tmp_path.glob(".*parquet*"))


def test_held_out_rows_come_last_in_the_export(project, preprocess, tmp_path):
    project.edit(test_datasets=None, val_set_size=3)
    preprocess("--export", str(tmp_path / "rows.parquet"))
    data = project.plan()["training_data"].cached.data
    held_out = [
        {name: row[name] for name in ("input_ids", "labels")} for row in read_arrow(data / "held_out.arrow")
    ]
    assert len(held_out) == 3
    exported = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert exported == [*read_arrow(data / "rows.arrow"), *held_out]
    assert len(read_arrow(data / "held_out.arrow")) == 3


def test_an_export_that_cannot_be_written_is_an_error(preprocess, tmp_path):
    assert "the export cannot be written there" in preprocess(
        "--export", str(tmp_path / "no" / "x.parquet"), code=1
    )


def test_rows_are_shown_token_by_token(preprocess):
    said = preprocess("--debug-num-examples", "1")
    assert "sums, row 1:" in said and "echoes, row 1:" in said and "row 2:" not in said
    shown = said[said.index("sums, row 1:") :]
    trained = [line for line in shown.splitlines() if " trained │ " in line]
    assert trained[0].strip().startswith("assistant") and trained[0].endswith("│ 0<|im_end|>")
    assert any(
        line.endswith("│ <|im_start|>user⏎0 + 0<|im_end|>⏎") or "0 + 0" in line for line in shown.splitlines()
    )


def test_the_shown_tokens_are_the_rows_tokens(preprocess):
    rows = json.loads(preprocess("--debug-num-examples", "2", "--json"))["examples"]
    assert [row["source_row"] for row in rows if row["dataset"] == "sums"] == [1, 2]
    text = "".join(token for piece in rows[1]["pieces"] for token in piece["tokens"])
    assert "0 + 1" in text and text.count("<|im_end|>") == 2
    assert {piece["role"] for piece in rows[1]["pieces"]} >= {"user", "assistant"}
    assert any(piece["trained"] for piece in rows[1]["pieces"] if piece["role"] == "assistant")
    assert not any(piece["trained"] for piece in rows[1]["pieces"] if piece["role"] == "user")


def test_figures_tables_and_plots_are_printed(preprocess):
    said = preprocess()
    assert "tokenized_sums: Tokens by role" in said and "rows by tokens" in said and "█" in said
    assert "training_data" in said and "packing_efficiency" in said


@pytest.mark.slow
def test_bad_rows_stop_it_or_are_set_aside(project, preprocess):
    project.edit(datasets=[{"path": "data/sums.jsonl", "type": "chat_template"}], test_datasets=None)
    path = project.folder / "data" / "sums.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = "{not json"
    lines[4] = json.dumps({"messages": "wizard"})
    path.write_text("\n".join(lines) + "\n")
    said = preprocess(code=1)
    assert "sums.jsonl:3:" in said
    document = json.loads(preprocess("--json", "--pipeline.bad_rows=skip"))
    nodes = {node["node"]: node for node in document["nodes"]}
    assert nodes["dataset_sums"]["metrics"]["rejected"] == 1
    assert (
        nodes["tokenized_sums"]["metrics"]["rejected"] == 1
        and nodes["tokenized_sums"]["metrics"]["rows"] == 18
    )
    plan = project.plan("pipeline.bad_rows=skip")
    (entry,) = [
        json.loads(line)
        for line in (plan["tokenized_sums"].cached.data / "rejected.jsonl").read_text().splitlines()
    ]
    assert entry["line"] == 5 and "messages" in entry["reason"] and "wizard" in entry["row"]


@pytest.mark.slow
def test_preferences_are_prepared(project, preprocess, tmp_path):
    write_lines(project.folder / "data" / "pairs.jsonl", [PAIR, {**PAIR, "question": "2 + 2"}])
    project.edit(
        rl="dpo",
        datasets=[{"path": "data/pairs.jsonl", "type": "chatml.intel"}],
        test_datasets=None,
        sample_packing=False,
        shuffle_merged_datasets=False,
    )
    document = json.loads(preprocess("--export", str(tmp_path / "pairs.parquet"), "--json"))
    reasons = {node["node"]: node["reasons"] for node in document["nodes"]}
    assert reasons["training_data"] == ["it is made by another stage: training_data -> preference_data"]
    rows = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert [row["chosen"] for row in rows] == ["2<|im_end|>", "2<|im_end|>"]
    assert rows[0]["prompt"] == (
        "<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n"
    )
    assert set(rows[0]) >= {"prompt", "chosen", "rejected"}


@pytest.mark.slow
def test_a_custom_function_is_part_of_the_key(project, preprocess):
    code = project.folder / "shaping.py"
    code.write_text(
        "def transform(cfg, *args, **kwargs):\n"
        "    def map_row(row, **more):\n"
        "        return {'messages': [*row['messages'], {'role': 'user', 'content': 'a'}]}\n"
        "    return map_row, {'remove_columns': '__all__'}\n"
    )
    project.edit(datasets=[{"path": "data/sums.jsonl", "type": "shaping.transform"}], test_datasets=None)
    preprocess()
    assert nodes_in_state(project.plan(), "run") & DATA_NODES == set()
    code.write_text(code.read_text().replace("'a'", "'b'"))
    plan = project.plan()
    assert plan["tokenized_sums"].state == "run" and plan["dataset_sums"].state == "cached"
    assert "shaping.py changed" in plan["tokenized_sums"].reasons[0]


@pytest.mark.slow
def test_a_template_file_is_part_of_the_key(project, preprocess):
    template = project.folder / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] + m['content'] + eos_token }}{% endfor %}")
    one = [{"path": "data/sums.jsonl", "type": "chat_template"}]
    project.edit(
        chat_template="jinja", chat_template_jinja="template.jinja", datasets=one, test_datasets=None
    )
    preprocess()
    template.write_text(template.read_text().replace("m['role'] +", "m['role'] + ' ' +"))
    plan = project.plan()
    assert plan["tokenizer"].state == "run" and plan["dataset_sums"].state == "cached"
    template.unlink()
    assert "template.jinja" in preprocess(code=1)
