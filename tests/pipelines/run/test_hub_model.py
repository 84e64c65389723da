"""A YAML as an Axolotl user has it, with a model of the Hub: check, plan, run, and a second run that computes nothing.

Every command is a process of its own; the Hub is a server that speaks its API.
"""

import json
import os
from pathlib import Path

import pytest
from support.hub import hub_server
from support.project import make_project
from support.tiny_model import make_model

pytestmark = pytest.mark.slow

NAME = "tiny-org/tiny-llama"
TOKEN = "hf_only_for_these_tests_0123456789"  # noqa: S105
KEYS = {
    "base_model": NAME,
    "reinit_weights": None,
    "datasets": [{"path": "data/sums.jsonl", "type": "chat_template"}],
    "test_datasets": None,
    "quantization": None,
    "adapter": None,
}


@pytest.fixture(scope="module")
def hub():
    with hub_server() as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp("model") / "m")
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**found, "pytorch_model.bin": b"pickle", "README.md": b"# tiny"}


@pytest.fixture(scope="module")
def finished(hub, files, tmp_path_factory):
    """A project that has run with a private model, and what the commands said."""
    hub.model(NAME, token=TOKEN).commit(files)
    project = make_project(tmp_path_factory.mktemp("hub") / "project", **KEYS)
    said = {"check": tell(hub, project, "check")}
    assert not hub.requests, "check asks no network"
    said["plan"] = tell(hub, project, "plan", "--json", HF_TOKEN=TOKEN)
    said["run"] = tell(hub, project, "run", "--json", HF_TOKEN=TOKEN)
    return project, said


def tell(hub, project, command, *more, **environment):
    state = [] if command == "check" else ["--state", str(project.state)]
    return hub.tunemill(project.folder, command, str(project.yaml), *state, *more, **environment)


def states(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return {node["node"]: node["state"] for node in json.loads(done.stdout)["nodes"]}


def test_it_runs(hub, files, finished):
    _, said = finished
    assert said["check"].returncode == 0, said["check"].stderr
    assert "no problem" in said["check"].stdout
    assert set(states(said["plan"]).values()) == {"run"}
    assert set(states(said["run"]).values()) == {"computed"}
    nodes = {node["node"]: node for node in json.loads(said["run"].stdout)["nodes"]}
    fetched = sorted(os.listdir(nodes["model_files"]["path"]))  # noqa: PTH208
    assert set(fetched) - {"tunemill_lineage.json"} == set(files) - {"pytorch_model.bin", "README.md"}
    commit = hub.models[NAME].revisions["main"]
    assert nodes["model_files"]["metrics"]["commit"] == commit
    # The tokenizer waits for no weights.
    assert "model.safetensors" not in os.listdir(nodes["tokenizer_files"]["path"])  # noqa: PTH208


def test_the_lineage_of_the_trained_model_says_where_it_came_from(hub, finished):
    project, _ = finished
    done = hub.tunemill(project.folder, "lineage", "pipeline/trained", "--state", str(project.state))
    commit = hub.models[NAME].revisions["main"]
    assert f"hf://models/{NAME} ({commit[:12]})" in done.stdout, done.stdout + done.stderr


def test_a_second_run_computes_nothing_and_asks_for_the_commit_alone(hub, finished):
    project, _ = finished
    hub.requests.clear()
    assert set(states(tell(hub, project, "run", "--json", HF_TOKEN=TOKEN)).values()) == {"cached"}
    assert set(hub.requests) == {f"GET /api/models/{NAME}/revision/main"}


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_the_network_the_commit_that_was_found_last_is_used_and_said(hub, finished, environment):
    project, _ = finished
    for command in ("plan", "run"):
        done = tell(hub, project, command, "--json", **environment)
        assert set(states(done).values()) == {"cached"}
        notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
        commit = hub.models[NAME].revisions["main"]
        assert notes and all(f"going on with commit {commit}" in note for note in notes), done.stderr
        assert "last reached (20" in notes[0] and len(notes) == len(set(notes))


def test_a_commit_is_never_asked_for(hub, finished):
    project, _ = finished
    commit = hub.models[NAME].revisions["main"]
    hub.requests.clear()
    done = tell(hub, project, "plan", "--json", f"revision_of_model={commit}", HF_HUB_OFFLINE="1")
    assert set(states(done).values()) == {"cached"} and "note" not in done.stderr
    assert not hub.requests


def test_what_is_not_remembered_is_refused(hub, finished):
    project, _ = finished
    done = tell(hub, project, "plan", "base_model=tiny-org/other", HF_HUB_OFFLINE="1")
    assert (
        done.returncode == 1 and "Nothing is remembered of it here: run once with the network" in done.stderr
    )
    done = tell(hub, project, "plan", HF_TOKEN="hf_another_token_that_is_no_good")  # noqa: S106
    assert done.returncode == 1 and "for a private one log in: hf auth login" in done.stderr


def test_a_commit_that_changes_other_files_computes_nothing_and_fetches_nothing(hub, files, finished):
    project, _ = finished
    commit = hub.models[NAME].commit({**files, "README.md": b"# other words", "LICENSE": b"mine"}, "edited")
    hub.requests.clear()
    for revision in ("edited", commit):
        done = tell(hub, project, "run", "--json", f"revision_of_model={revision}", HF_TOKEN=TOKEN)
        assert set(states(done).values()) == {"cached"}
    # What is in a commit is asked for once.
    assert hub.requests.count(f"GET /api/models/{NAME}/revision/{commit}") == 1
    assert {request.rpartition("/")[2] for request in hub.requests} == {"edited", commit}
    # Python files are a part of it only where they may run.
    hub.models[NAME].commit({**files, "modeling_tiny.py": b"x = 1"}, "code")
    plan = states(tell(hub, project, "plan", "--json", "revision_of_model=code", HF_TOKEN=TOKEN))
    assert set(plan.values()) == {"cached"}


def test_a_commit_that_changes_what_is_needed_is_fetched(hub, files, finished):
    project, _ = finished
    words = files["tokenizer_config.json"].replace(b"{", b'{"a_new_setting": 1, ', 1)
    hub.models[NAME].commit({**files, "tokenizer_config.json": words}, "words")
    plan = states(tell(hub, project, "plan", "--json", "revision_of_model=words", HF_TOKEN=TOKEN))
    assert {plan["model_files"], plan["tokenizer_files"]} == {"run"}
    weights = files["model.safetensors"][:-1] + bytes([files["model.safetensors"][-1] ^ 1])
    hub.models[NAME].commit({**files, "model.safetensors": weights}, "weights")
    done = tell(hub, project, "plan", "--json", "revision_of_model=weights", HF_TOKEN=TOKEN)
    plan = states(done)
    assert (plan["model_files"], plan["tokenizer_files"]) == ("run", "cached")
    (node,) = [node for node in json.loads(done.stdout)["nodes"] if node["node"] == "model_files"]
    assert node["reasons"] == [f"repository: the contents of hf://models/{NAME} changed"]


def test_a_server_that_says_no_hashes_is_asked_for_its_commit(hub, files, tmp_path):
    hub.model("tiny-org/plain").commit({**files, "README.md": b"1"})
    project = make_project(tmp_path / "project", **{**KEYS, "base_model": "tiny-org/plain"})
    hub.tells_hashes = False
    try:
        assert tell(hub, project, "run", "--only", "tokenizer").returncode == 0
        assert states(tell(hub, project, "plan", "--json"))["tokenizer_files"] == "cached"
        hub.models["tiny-org/plain"].commit({**files, "README.md": b"2"})
        assert states(tell(hub, project, "plan", "--json"))["tokenizer_files"] == "run"
    finally:
        hub.tells_hashes = True


def test_the_token_is_written_nowhere(finished):
    project, said = finished
    for path in project.folder.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in "".join(done.stdout + done.stderr for done in said.values())


def test_a_config_of_the_hub_beside_a_model_of_this_machine(hub, files, tmp_path):
    settings = {**json.loads(files["config.json"]), "rms_norm_eps": 0.5}
    commit = hub.model("tiny-org/other-config").commit(
        {**files, "config.json": json.dumps(settings).encode()}
    )
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    keys = {**KEYS, "base_model": str(folder), "base_model_config": "tiny-org/other-config", "adapter": None}
    project = make_project(tmp_path / "project", **keys)
    hub.fetched.clear()
    done = states(tell(hub, project, "run", "--json", "--only", "base_model"))
    assert done["config_files"] == "computed" and "model_files" not in done and not hub.fetched
    again = tell(hub, project, "run", "--json", "--only", "base_model", HF_HUB_OFFLINE="1")
    nodes = json.loads(again.stdout)["nodes"]
    found = {node["node"]: node for node in nodes}
    assert {found[name]["state"] for name in ("config_files", "base_model")} == {"cached"}
    paths = {name: Path(found[name]["path"]) for name in ("config_files", "base_model")}
    assert {path.name for path in paths["config_files"].iterdir()} >= {"config.json"}
    assert json.loads((paths["base_model"] / "config.json").read_text())["rms_norm_eps"] == 0.5
    done = hub.tunemill(project.folder, "lineage", "pipeline/base_model", "--state", str(project.state))
    assert f"hf://models/tiny-org/other-config ({commit[:12]})" in done.stdout, done.stdout + done.stderr


def test_a_tokenizer_of_the_hub_beside_a_model_of_this_machine(hub, files, tmp_path):
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    hub.model("tiny-org/words").commit({name: data for name, data in files.items() if name in names})
    project = make_project(tmp_path / "project", tokenizer_config="tiny-org/words", quantization=None)
    done = states(tell(hub, project, "plan", "--json"))
    assert "tokenizer_files" in done and "model_files" not in done
    done = tell(hub, project, "run", "--only", "tokenizer")
    assert done.returncode == 0, done.stderr
    hub.models["tiny-org/words"].commit({"config.json": b"{}", "other.txt": b""})
    assert states(tell(hub, project, "plan", "--json"))["tokenizer_files"] == "run"
