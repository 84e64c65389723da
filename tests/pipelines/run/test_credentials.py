"""What lets one in at a URL is handed to the stage, kept nowhere, shown nowhere, and part of no identity."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.guarded_server import guarded_server
from support.project import make_project

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.plan import make_plan
from tunemill.pipelines.run.progress import show_progress
from tunemill.resources.launcher import in_child, in_this_process

FIRST, SECOND = ("Tr0ub4dor&3/x", "tok-3n4v7q9"), ("c0rrect+h0rse", "tok-8w2k5z1")


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture
def server(project):
    with guarded_server(project.folder / "data", *FIRST) as running:
        yield running


def name_source(project, url, **keys):
    project.edit(datasets=[{"path": url, "type": "chat_template", "ds_type": "json", **keys}])


def run_source(project, launch=in_child):
    """Run the node of the source alone, as `run` does, with a child and Dagster. Returns what became of it."""
    pipeline = load_pipeline(project.yaml)
    node = next(node for node in pipeline.nodes if node.name.startswith("dataset_"))
    with show_progress() as observe:
        (finished,) = run_pipeline(replace(pipeline, nodes=(node,)), project.store, observe, launch=launch)
    print(json.dumps(finished.as_json()))
    return finished


def assert_untold(project, secrets, capfd=None, more=""):
    """None of the secrets is in any file but the YAML, nor in the name of one, nor in what was printed."""
    printed = "" if capfd is None else "".join(capfd.readouterr())
    names = [str(path.relative_to(project.folder)) for path in project.folder.rglob("*")]
    said = "\n".join((printed, more, *names)).encode()
    for path in project.folder.rglob("*"):
        contents = path.read_bytes() if path.is_file() and path != project.yaml else b""
        for secret in secrets:
            assert secret.encode() not in contents, f"{secret} is in {path}"
    for secret in secrets:
        assert secret.encode() not in said, f"{secret} was told: {said.decode()}"
    return printed


def test_a_source_behind_a_password_and_a_token(project, server, capfd):
    name_source(project, server.url("sums.jsonl"))
    for command in ("check", "plan"):
        more = [] if command == "check" else ["--state", str(project.state)]
        assert main([command, str(project.yaml), *more]) == 0
        assert main([command, str(project.yaml), "--json", *more]) == 0
    finished = run_source(project)
    assert finished.state == "computed" and finished.node == "dataset_sums"
    folder = finished.published.folder
    shown = f"http://***@127.0.0.1:{server.port}/sums.jsonl?token=***"
    assert finished.published.manifest["config"]["path"] == shown
    lineage = json.loads((folder / "data" / "tunemill_lineage.json").read_text())
    assert lineage["sources"]["path"][0]["path"] == lineage["config"]["path"] == shown
    assert json.loads((folder / "logs" / "request.json").read_text())["config"]["path"] == shown
    assert main(["lineage", "pipeline/dataset_sums", "--state", str(project.state)]) == 0
    assert main(["status", "--state", str(project.state)]) == 0
    assert_untold(project, server.secrets(), capfd)
    assert any((project.state / "dagster").rglob("*.db"))


def test_another_password_and_token_change_nothing_and_another_question_does(project, server):
    name_source(project, server.url("sums.jsonl"))
    assert run_source(project, in_this_process).state == "computed"
    before = server.secrets()
    server.password, server.token = SECOND
    name_source(project, server.url("sums.jsonl"))
    server.asked.clear()
    assert run_source(project, in_this_process).state == "cached"
    assert "GET" not in server.asked
    name_source(project, server.url("sums.jsonl", "&Expires=1&X-Amz-Signature=abcdef&sig=x&se=1"))
    assert run_source(project, in_this_process).state == "cached"
    name_source(project, server.url("sums.jsonl", "&part=2"))
    assert run_source(project, in_this_process).state == "computed"
    name_source(project, server.url("sums.jsonl", "&part=3"))
    plan = make_plan(load_pipeline(project.yaml), project.store)
    (item,) = [item for item in plan if item.node.name == "dataset_sums"]
    assert item.state == "run"
    assert_untold(project, [*before, *server.secrets()], more=" ".join(item.reasons))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("password", "401"),
        ("token", "401"),
        ("name", "404"),
        ("down", "onnect"),
        ("no URL", "percent-encode"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "preprocess"])
def test_a_source_that_cannot_be_looked_at(project, server, capfd, what, message, command):
    url = {
        "password": server.url("sums.jsonl").replace("reader:", "reader:more"),
        "token": server.url("sums.jsonl").replace("token=", "token=more"),
        "name": server.url("nothing.jsonl"),
        "down": server.url("sums.jsonl").replace(f":{server.port}", ":9"),
        "no URL": f"http://reader:{server.password}@127.0.0.1/x.jsonl?token={server.token}",
    }[what]
    name_source(project, url)
    assert main([command, str(project.yaml), "--state", str(project.state)]) == 1
    assert main([command, str(project.yaml), "--json", "--state", str(project.state)]) == 1
    printed = assert_untold(project, server.secrets(), capfd)
    assert message in printed and "datasets[0].path" in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("mode", "message"),
    [("refused", "401"), ("hidden", "token=***: there is nothing"), ("cut", "cannot be read")],
)
def test_a_source_that_cannot_be_fetched(project, server, capfd, mode, message):
    server.mode = mode
    name_source(project, server.url("sums.jsonl"))
    finished = run_source(project)
    assert finished.state == "failed" and "sums.jsonl" in finished.message and message in finished.message
    assert "Traceback" not in finished.message
    assert_untold(project, server.secrets(), capfd)


@pytest.mark.parametrize("launch", [in_child, in_this_process])
def test_a_failure_in_this_process_and_bad_rows_in_the_child(project, server, capfd, launch):
    (project.folder / "data" / "sums.jsonl").write_text('{"a": 1}\n{"no\n')
    name_source(project, server.url("sums.jsonl"))
    assert run_source(project, launch).state == "failed"
    server.mode = "refused"
    assert run_source(project, launch).state == "failed"
    assert_untold(project, server.secrets(), capfd)


def test_bad_rows_that_are_set_aside_and_several_files(project, server, capfd):
    (project.folder / "data" / "sums.jsonl").write_text('{"a": 1}\n{"no\n')
    files = [server.url("sums.jsonl"), server.url("sums.jsonl", "&part=2"), server.url("echoes.jsonl")]
    name_source(project, "json", data_files=files)
    project.edit(pipeline={"bad_rows": "skip"})
    assert run_source(project).state == "computed"
    assert_untold(project, server.secrets(), capfd)


def test_names_are_not_made_of_secrets(project, server, capfd):
    for url in (f"https://h/?key={server.token}", f"https://h/rows?sig=a/{server.token}", f"s3://id:{server.token}@bucket",
                f"https://{server.token}@h", f"https://h/#access_token={server.token}"):  # fmt: skip
        name_source(project, url)
        nodes = [node.name for node in load_pipeline(project.yaml).nodes]
        assert not any("3n4v7q9" in name for name in nodes), nodes
        assert main(["check", str(project.yaml), "--json"]) == 0
    for keys in ({"path": "json", "data_files": [server.url("a"), server.url("a")]}, {"no_such_key": server.url("a")},
                 {"split": server.url("a")}, {"name": [server.url("a")]}, {"type": server.url("a" * 150)}):  # fmt: skip
        name_source(project, keys.pop("path", "data/sums.jsonl"), **keys)
        assert main(["check", str(project.yaml)]) == 1
        assert main(["check", str(project.yaml), "--json"]) == 1
    project.edit(
        datasets=[{"path": "data/sums.jsonl", "type": "chat_template"}], base_model=server.url("model")
    )
    assert main(["plan", str(project.yaml), "--state", str(project.state)]) == 1
    assert main(["check", str(project.yaml), f"--output_dir={server.url('x')}"]) == 1
    assert main(["plan", str(project.yaml), "--state", server.url("x")]) == 1
    with pytest.raises(SystemExit):
        main(["status", f"--path={server.url('x')}"])
    assert_untold(project, server.secrets(), capfd)


def test_the_places_where_secrets_belong(project, server, capfd, monkeypatch):
    """As in docs/data.md: ~/.netrc for a password, fsspec's variables for a header."""
    netrc = project.folder.parent / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login reader password {server.password}\n")
    netrc.chmod(0o600)
    plain = f"http://127.0.0.1:{server.port}/sums.jsonl?token={server.token}"
    name_source(project, plain)
    monkeypatch.setenv("NETRC", str(netrc))
    assert run_source(project).state == "computed"
    assert_untold(project, server.secrets(), capfd)
    monkeypatch.delenv("NETRC")
    header = {"headers": {"Authorization": f"Basic {server.secrets()[-1]}"}}
    (project.folder / "data" / "sums.jsonl").write_text('{"a": 1}\n')
    code = (
        "import sys; from pathlib import Path; from tunemill.pipelines.graph.keys import identify_source;"
        "from tunemill.resources.identity import StatCache;"
        f"print(identify_source({plain!r}, None, StatCache(Path(sys.argv[1])))['kind'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(project.folder / "stat.sqlite")],
        env={**os.environ, "FSSPEC_HTTP": json.dumps(header)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "object\n", done.stderr


@pytest.mark.slow
def test_a_stream(project, server, capfd):
    rows = "".join(json.dumps({"text": f"hello there {number}"}) + "\n" for number in range(50))
    (project.folder / "data" / "texts.jsonl").write_text(rows)
    leave_out = ("datasets", "test_datasets", "adapter", "quantization", "eval_max_new_tokens")
    config = {
        key: value for key, value in project.config().items() if not key.startswith(("lora_", *leave_out))
    }
    for mode, message in {
        "ok": "computed",
        "refused": "cannot be streamed",
        "cut": "cannot be streamed",
    }.items():
        server.mode = mode
        source = {"path": server.url("texts.jsonl", f"&part={mode}"), "type": "pretrain"}
        project.yaml.write_text(yaml.safe_dump({**config, "max_steps": 1, "pretraining_dataset": [source]}))
        code = main(["preprocess", str(project.yaml), "--state", str(project.state)])
        printed = assert_untold(project, server.secrets(), capfd)
        assert message in printed and "Traceback" not in printed, printed
        assert code == (0 if mode == "ok" else 1)


@pytest.mark.slow
def test_the_whole_command(project, server, capfd):
    name_source(project, server.url("sums.jsonl"))
    arguments = [str(project.yaml), "--state", str(project.state)]
    assert main(["preprocess", *arguments]) == 0
    assert Path(project.state / "refs").is_dir()
    secrets = server.secrets()
    server.password, server.token = SECOND
    name_source(project, server.url("sums.jsonl"))
    assert main(["preprocess", "--json", *arguments]) == 0
    printed = assert_untold(project, [*secrets, *server.secrets()], capfd)
    nodes = json.loads(printed[printed.index('{\n "pipeline"') : printed.rindex("}") + 1])["nodes"]
    assert {node["state"] for node in nodes} == {"cached"}
