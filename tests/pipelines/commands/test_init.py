"""`tunemill init`: from rows to a YAML that runs; and what it refuses."""

import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.rows import write_lines
from support.tiny_model import make_model
from test_layout import ROOT

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.row_kinds import KNOWN_KINDS
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.launcher import in_this_process
from tunemill.resources.store import Store
from tunemill.stages.data.preferences.type_table import TYPES
from tunemill.stages.data.tokenized.format_table import FORMATS


def say(role, content):
    return {"role": role, "content": content}


CHAT = [{"messages": [say("system", "s"), say("user", f"{i}?"), say("assistant", str(i))]} for i in range(30)]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": f"{i}?"}, {"from": "gpt", "value": str(i)}]}
    for i in range(30)
]
BOTS = [
    {"dialogue": [{"speaker": "Human", "text": f"{i}?"}, {"speaker": "Bot", "text": str(i)}]}
    for i in range(30)
]
ALPACA = [{"instruction": f"say {i}", "input": "", "output": str(i)} for i in range(30)]
PAIRS = [{"prompt": f"say {i}", "chosen": str(i), "rejected": "no"} for i in range(30)]
RATED = [{"prompt": f"say {i}", "completion": str(i), "label": i % 2 == 0} for i in range(30)]
TEXTS = [{"body": f"{i} is a number that is longer than the one before it", "id": "x"} for i in range(30)]
TOKENS = [{"input_ids": [5 + i, 6, 7, 8], "labels": [-100, 6, 7, 8]} for i in range(30)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def init(tmp_path, monkeypatch, capsys):
    """arguments -> what was printed; in `tmp_path`, where a list of rows is a file by its place."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        assert main(["init", *map(str, arguments)]) == code
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return shown.err if code else shown.out

    return call


def written(path="pipeline.yml"):
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("rows", "entry", "said"),
    [
        (CHAT, {"type": "chat_template"}, "30 rows of `messages` with roles system, user, assistant"),
        (
            SHAREGPT,
            {
                "type": "chat_template",
                "field_messages": "conversations",
                "message_property_mappings": {"role": "from", "content": "value"},
            },
            "30 rows of `conversations` with roles human, gpt",
        ),
        (
            BOTS,
            {
                "type": "chat_template",
                "field_messages": "dialogue",
                "message_property_mappings": {"role": "speaker", "content": "text"},
                "roles": {"user": ["Human"], "assistant": ["Bot"]},
            },
            "30 rows of `dialogue` with roles Human, Bot",
        ),
        (ALPACA, {"type": "alpaca"}, "30 rows of `instruction`, `output`, `input`"),
        (
            PAIRS,
            {"type": "chat_template.default", "field_messages": "prompt"},
            "30 rows of `prompt`, `chosen`, `rejected`",
        ),
        (RATED, {}, "30 rows of `prompt`, `completion`, `label`"),
        (TEXTS, {"type": "completion", "field": "body"}, "30 rows of `body`"),
        (TOKENS, {}, "30 rows of `input_ids`"),
        (
            [{"question": "a", "answer": "b"}],
            {"type": "alpaca_chat.load_qa"},
            "1 row of `question`, `answer`",
        ),
        (
            [{"prompt": "a", "completion": "b"}],
            {"type": {"field_instruction": "prompt", "field_output": "completion"}},
            "1 row of `prompt`, `completion`",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_each_kind_of_rows_gets_its_keys(init, capsys, rows, entry, said, kind):
    name = f"rows.{kind}"
    if kind == "jsonl":
        write_lines(Path(name), rows)
    elif kind == "json":
        Path(name).write_text(json.dumps(rows, indent=1))
    else:
        pq.write_table(pa.Table.from_pylist(rows), name)
    shown = init(name)
    assert shown.splitlines()[:2] == [f"{name}: {said}", "written: pipeline.yml"]
    config = written()
    assert config["datasets"] == [{"path": name, **entry}]
    assert config.get("rl") == ("orpo" if rows is PAIRS else "kto" if rows is RATED else None)
    assert ("val_set_size" in config) == (len(rows) > 1) == ("eval_strategy" in config)
    assert ("chat_template" in config) == str(entry.get("type")).startswith("chat_template")
    assert main(["check", "pipeline.yml"]) == 0
    *notes, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"pipeline.yml: no problem; \d+ nodes", last)
    assert not notes, "nothing must be changed"


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(CHAT, id="chat"),
        pytest.param(PAIRS, id="pairs", marks=pytest.mark.slow),
        pytest.param(BOTS, id="bots", marks=pytest.mark.exhaustive),
        pytest.param(TEXTS, id="texts", marks=pytest.mark.exhaustive),
        pytest.param(TOKENS, id="tokens", marks=pytest.mark.slow),
    ],
)
def test_what_is_written_runs(init, rows, model, tmp_path):
    write_lines(tmp_path / "rows.jsonl", rows)
    init("rows.jsonl", "--base-model", model)
    assert written()["sequence_len"] == 256, "as many as the model has places for"
    nodes = run_pipeline(
        load_pipeline(Path("pipeline.yml")), Store(tmp_path / "state"), launch=in_this_process
    )
    assert {node.state for node in nodes} == {"computed"} and "merged" in {node.node for node in nodes}
    trained = next(node for node in nodes if node.node == "trained")
    assert trained.published.manifest["metrics"]["steps"] >= 3


def test_the_next_commands_are_those_that_work(init, tmp_path):
    write_lines(tmp_path / "rows.jsonl", ALPACA)
    shown = init("rows.jsonl", "--output", "my pipeline.yml")
    assert [line.split("#")[0].strip() for line in shown.splitlines() if line.startswith("  tunemill")] == [
        f"tunemill {command} 'my pipeline.yml'" for command in ("check", "plan", "run")
    ]
    assert "SmolLM2-135M-Instruct is no folder on this machine: it is taken for a model of the Hub" in shown
    assert written("my pipeline.yml")["output_dir"] == "out/my pipeline"


@pytest.mark.parametrize(
    "name",
    ["with space.jsonl", "it's \"quoted\".jsonl", "ü日本😀.jsonl", "a #b: c.jsonl", "~x.jsonl", "rows[1].jsonl",
     "a*b.jsonl", "{a}.jsonl", "null.jsonl", "- x.jsonl", "%41.jsonl",
     "sub/../rows.jsonl", "$HOME.jsonl"],
)  # fmt: skip
def test_any_name_of_a_file_is_found_from_the_yaml(init, tmp_path, name):
    (tmp_path / "sub").mkdir()
    for folder in ("data", "a folder's/yamls"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data" / "sub").mkdir()
    file = write_lines(tmp_path / "data" / name, ALPACA)
    output = "a folder's/yamls/x.yml"
    init(f"./data/{name}", "--output", output)
    assert found_from(tmp_path / output) == os.path.realpath(file)
    assert not Path(written(output)["datasets"][0]["path"]).is_absolute()
    assert written(output)["datasets"][0]["type"] == "alpaca"


def found_from(path):
    """The file that a YAML's only dataset names."""
    return next(node for node in load_pipeline(Path(path)).nodes if node.stage.name == "dataset").config.path


def test_a_folder_that_looks_like_a_home_is_none(init, tmp_path):
    (tmp_path / "~").mkdir()
    file = write_lines(tmp_path / "~" / "rows.jsonl", ALPACA)
    init("./~/rows.jsonl")
    assert found_from("pipeline.yml") == os.path.realpath(file)


def test_links_to_folders_do_not_lead_astray(init, tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    for name, place in (("rows.jsonl", "rows.jsonl"), ("far/rows.jsonl", "link/../rows.jsonl")):
        file = write_lines(tmp_path / name, ALPACA)
        for output in ("pipeline.yml", "link/x.yml"):
            init(place, "--output", output, "--force")
            assert found_from(output) == os.path.realpath(file)


def test_a_model_is_named_from_the_yaml(init, tmp_path, model):
    write_lines(tmp_path / "rows.jsonl", ALPACA)
    (tmp_path / "sub").mkdir()
    (tmp_path / "my model").symlink_to(model)
    init("rows.jsonl", "--base-model", "my model", "--output", "sub/x.yml")
    assert written("sub/x.yml")["base_model"] == "../my model"
    init("rows.jsonl", "--base-model", "asset://other/merged")
    assert written()["base_model"] == "asset://other/merged"


def test_nothing_is_overwritten_unless_asked(init, tmp_path):
    write_lines(tmp_path / "rows.jsonl", ALPACA)
    Path("pipeline.yml").write_text("mine")
    assert "pipeline.yml is there already; --force replaces it" in init("rows.jsonl", code=1)
    assert Path("pipeline.yml").read_text() == "mine"
    init("rows.jsonl", "--force")
    assert written()["datasets"]
    (tmp_path / "gone.yml").symlink_to(tmp_path / "nowhere")
    assert "is there already" in init("rows.jsonl", "--output", "gone.yml", code=1)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    for name in ("rows.jsonl", "link.jsonl"):
        assert "is the file of rows itself" in init("rows.jsonl", "--output", name, "--force", code=1)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "none/x.yml"], "there is no folder none"),
        (["--output", "sub", "--force"], "is a folder"),
        (["--output", "s3://bucket/x.yml"], "is a URL; give a local path"),
        (["--output", ""], "a name is empty"),
        (["--base-model", "./nowhere"], "there is no such folder"),
        (["--base-model", "rows.jsonl"], "there is no such folder"),
        (["--base-model", ""], "a name is empty"),
        (["--base-model", "asset://a/b/c/d"], "write asset://<pipeline>/<node>"),
        (["--base-model", "sub"], "base_model"),
        (["--base-model", "\udcff"], "is no text in UTF-8"),
        (["--output", "x" * 300], "give a shorter name"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(init, tmp_path, options, message):
    write_lines(tmp_path / "rows.jsonl", ALPACA)
    (tmp_path / "sub").mkdir()
    assert message.lower() in init("rows.jsonl", *options, code=1).lower()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "sub"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", "rows.jsonl is empty"),
        ("rows.jsonl", b"\n\n", "rows.jsonl has no rows"),
        ("rows.json", b"[]", "rows.json has no rows"),
        ("rows.csv", b"a,b\n", "rows.csv has no rows"),
        ("rows.jsonl", b'{oops\n{"text": "a"}\n', "rows.jsonl:1: invalid JSON"),
        ("rows.jsonl", b"[1]\n", "rows.jsonl, row 1: not an object but a number"),
        ("rows.json", b'{\n "data": [{"text": "a"}]\n}\n', "one JSON object a line, or one JSON array"),
        ("rows.jsonl", b"\x00\x01\x02" * 99, "is binary, or text that is not UTF-8"),
        ("rows.jsonl", '{"text": "a"}\n'.encode("utf-16"), "is binary, or text that is not UTF-8"),
        ("rows.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("rows.parquet", b"\x00\x01\x02" * 99, "not a file of Parquet rows"),
        (
            "rows.csv",
            b'a,b\n"x',
            "rows.csv:2: not CSV: a quote is opened in this line and never closed. The first",
        ),
        ("rows.jsonl.gz", b"\x1f\x8b\x08 no gzip", "not a file of JSON rows, or a damaged one"),
        ("rows.xlsx", b"PK", "its ending says nothing about its rows"),
        ("rows", b'{"text": "a"}\n', "its ending says nothing about its rows"),
        ("rows.jsonl", b'{"a": "' + b"x" * (1 << 24) + b'"}', "its first line is longer than 16 MiB"),
        ("rows.jsonl", b'{"n": 1}\n', "cannot be told from the fields `n`"),
        ("rows.jsonl", b"{}\n", "cannot be told from the fields none"),
        (
            "rows.jsonl",
            b'{"messages": [{"role": "narrator", "content": "a"}]}\n',
            "none of the roles narrator is known as an assistant's",
        ),
        (
            "rows.jsonl",
            b'{"text": "a"}\n{"instruction": "a", "output": "b"}\n',
            "1 of the 2 rows looked at could be read by",
        ),
    ],
)
def test_files_without_known_rows_are_refused(init, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in init(name, code=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "none.jsonl does not exist"),
        ("rows.jsonl/x", "rows.jsonl/x does not exist"),
        ("owner/name", "Datasets of the Hub and URLs are written into a YAML by hand"),
        ("folder", "folder is a folder; name files in it"),
        ("fifo.jsonl", "it is no regular file but a named pipe"),
        ("/dev/zero", "it is no regular file but a character device"),
        ("https://example.org/rows.jsonl", "is a URL"),
        ("s3://bucket/rows.jsonl", "is a URL"),
        ("loop.jsonl", "it is a link that leads in a circle"),
        ("x" * 300, "longer than 255 bytes"),
        ("new\nline.jsonl", "its name has a line break"),
        ("", "a name is empty"),
        ("\udcff.jsonl", "is no text in utf-8"),
    ],
)
def test_what_is_no_file_is_refused(init, tmp_path, name, message):
    write_lines(tmp_path / "rows.jsonl", ALPACA)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo.jsonl")
    write_lines(tmp_path / "new\nline.jsonl", ALPACA)
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    assert message.lower() in init(name, code=1).lower()
    assert not (tmp_path / "pipeline.yml").exists()


def test_unknown_rows_are_answered_with_types_that_there_are(init, tmp_path):
    write_lines(tmp_path / "rows.jsonl", [{"title": "a", "summary": "b"}])
    error = init("rows.jsonl", code=1)
    assert "from the fields `title`, `summary`" in error and KNOWN_KINDS in error
    named = re.findall(r"^  type: ([\w.]+)", KNOWN_KINDS, re.M)
    assert len(named) == 6 and set(named) <= {*FORMATS, *TYPES["pair"]}


def test_several_files_are_several_entries(init, tmp_path):
    write_lines(tmp_path / "a.jsonl", CHAT)
    write_lines(tmp_path / "b.jsonl", ALPACA)
    init("a.jsonl", "b.jsonl")
    assert [entry["type"] for entry in written()["datasets"]] == ["chat_template", "alpaca"]
    write_lines(tmp_path / "c.jsonl", PAIRS)
    assert "one model is not trained on both" in init("a.jsonl", "c.jsonl", "--force", code=1)
    assert "./a.jsonl is given twice" in init("a.jsonl", "./a.jsonl", "--force", code=1)


def test_a_few_rows_of_another_kind_are_set_aside(init, tmp_path, model):
    rows = [*ALPACA, {"instruction": 5}]
    write_lines(tmp_path / "rows.jsonl", rows)
    shown = init("rows.jsonl", "--base-model", model)
    assert "1 of the 31 looked at are of another kind and will be set aside" in shown
    assert written()["pipeline"] == {"bad_rows": "skip"}
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("oops\n")
    shown = init("rows.jsonl", "--base-model", model, "--force")
    assert "2 of the 32 looked at" in shown and "first rows.jsonl:32: invalid JSON" in shown
    pipeline = load_pipeline(Path("pipeline.yml")).data()
    nodes = run_pipeline(pipeline, Store(tmp_path / "state"), launch=in_this_process)
    metrics = {node.node: node.published.manifest["metrics"] for node in nodes}
    assert metrics["dataset_rows"]["rejected"] == 1 == metrics["tokenized_rows"]["rejected"]


def test_of_a_big_file_only_the_start_is_read(init, tmp_path):
    """Behind its first rows there is a hole of a terabyte."""
    path = write_lines(tmp_path / "rows.jsonl", [{"text": "x" * 20_000}] * 1500)
    os.truncate(path, 1 << 40)
    assert "more than 839 rows of `text`" in init("rows.jsonl")
    assert written()["val_set_size"] == 200


def test_how_much_is_held_out(init, tmp_path):
    for count, share in ((2, 0.05), (10_000, 0.05), (10_001, 500)):
        write_lines(tmp_path / "rows.jsonl", [{"text": str(i)} for i in range(count)])
        assert f"{count:,} rows" in init("rows.jsonl", "--force")
        assert written()["val_set_size"] == share


@pytest.mark.parametrize(
    ("row", "length"),
    [
        ({"text": "x" * 100}, 512),
        ({"text": "x" * 3000}, 1024),
        ({"text": "日" * 1100}, 2048),
        ({"text": "x" * 100_000}, 4096),
        ({"input_ids": [1] * 600}, 1024),
        ({"text": "x", "meta": "y" * 9000}, 512),
    ],
)
def test_the_length_of_sequences_is_that_of_the_rows(init, tmp_path, row, length):
    write_lines(tmp_path / "rows.jsonl", [row])
    init("rows.jsonl")
    assert written()["sequence_len"] == length


def test_the_shape_is_that_of_most_rows(init, tmp_path):
    """One has a system text, as none of the others: a type that needs one would set the others aside."""
    write_lines(tmp_path / "rows.jsonl", [{**ALPACA[0], "system": "s"}, *ALPACA])
    init("rows.jsonl")
    assert written()["datasets"] == [{"path": "rows.jsonl", "type": "alpaca"}]
    assert "pipeline" not in written()


def test_what_the_examples_train_on_is_known(init):
    for name in ("dates_words", "dates_numeric", "heldout"):
        init(ROOT / "examples" / "quickstart" / "data" / f"{name}.jsonl", "--force")
        assert written()["datasets"][0]["type"] == "chat_template"
