"""`lora_model_dir` by name: an adapter of the Hub, one that was adopted, and what another pipeline has trained.

The Hub is a server that speaks its API, and whoever asks it is a process of its own.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.hub import hub_server
from support.project import make_project, nodes_in_state

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything
from tunemill.pipelines.run.adopt import adopt
from tunemill.stages.training.sft.config import SftConfig

NAME = "tiny-org/tiny-lora"
TOKEN = "hf_only_for_these_tests_0123456789"  # noqa: S105
NEW = {"lora_r": None, "lora_alpha": None, "lora_target_linear": None}
SMALL = {"quantization": None, "test_datasets": None, "max_steps": 2}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A project that has trained an adapter."""
    project = make_project(tmp_path_factory.mktemp("first") / "project", **SMALL)
    finished = project.run()
    assert nodes_in_state(finished, "computed") == set(finished), finished
    return project


def trained(project):
    return project.plan()["trained"].cached.data


def further(folder, state, **keys):
    """A project on the same base that goes on from an adapter."""
    return make_project(folder, state, **{**SMALL, **NEW, "pipeline": {"name": "further"}, **keys})


def factors(folder):
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.slow
def test_what_another_pipeline_has_trained(first, tmp_path):
    project = further(
        tmp_path / "further", first.state, lora_model_dir="asset://pipeline/trained", learning_rate=1e-30
    )
    node = load_pipeline(project.yaml).node("trained")
    assert node.inputs["stored_adapter"] == ("asset://pipeline/trained",)
    finished = project.run()
    assert nodes_in_state(finished, "computed") == {"trained"}, finished
    # With next to no rate it is what it started from, to the last bit: merging finds that done.
    old, new = factors(trained(first)), factors(trained(project))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    assert nodes_in_state(project.plan(), "cached") == set(project.plan())
    # Trained otherwise it is another adapter, and what goes on from it is trained anew.
    first.run("learning_rate=0.01")
    assert nodes_in_state(project.plan(), "run") >= {"trained"}
    first.run()
    assert nodes_in_state(project.plan(), "cached") == set(project.plan())


@pytest.mark.slow
def test_one_that_was_adopted(first, tmp_path):
    state = tmp_path / "state"
    folder = shutil.copytree(trained(first), tmp_path / "adapter")
    project = further(tmp_path / "further", state, lora_model_dir="asset://mine")
    assert "adopt FOLDER --as mine" in " ".join(project.plan()["trained"].reasons)
    adopt(folder, "mine", project.store)
    assert nodes_in_state(project.run(), "failed") == set()
    assert not (factors(trained(project)).keys() ^ factors(folder).keys())
    # Where the folder lies does not count.
    local = further(tmp_path / "local", state, lora_model_dir=str(folder))
    local.run()
    assert all(
        torch.equal(tensor, factors(trained(project))[name])
        for name, tensor in factors(trained(local)).items()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"lora_model_dir": "asset://pipeline/merged"},
            "asset://pipeline/merged is of type Model, and trained takes",
        ),
        ({"lora_r": 8}, "lora_r: 8, but the adapter in lora_model_dir has 4"),
        (
            {"base_model": "other"},
            "in the adapter, and the base model takes .* It belongs to another base model",
        ),
    ],
)
def test_an_adapter_that_does_not_fit(first, tmp_path, keys, said):
    keys = {"lora_model_dir": "asset://pipeline/trained", **keys}
    project = further(tmp_path / "further", first.state, **keys)
    config = json.loads((project.folder / "model" / "config.json").read_text())
    other = shutil.copytree(project.folder / "model", project.folder / "other")
    (other / "config.json").write_text(json.dumps({**config, "hidden_size": 16}))
    failed = project.run()["trained"]
    assert failed.state == "failed"
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(failed.message)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lora_model_dir": "asset://further/trained"}, "is this pipeline's own result"),
        ({"lora_model_dir": "asset://x-y"}, "for example asset://sft/trained"),
        ({"lora_model_dir": "https://host/adapter"}, "lora_model_dir must be on this machine"),
        ({"lora_target_linear": True}, "shapes a new adapter, and lora_model_dir names one"),
    ],
)
def test_what_check_refuses(tmp_path, keys, said):
    project = further(tmp_path / "further", None, **{"lora_model_dir": "asset://other/trained", **keys})
    with pytest.raises(ConfigError, match=said):
        load_pipeline(project.yaml, look_at=everything)


def test_without_an_adapter_it_is_noted(tmp_path):
    project = further(tmp_path / "further", None, lora_model_dir=NAME, adapter=None)
    project.edit(lora_model_dir=NAME)
    pipeline = load_pipeline(project.yaml)
    assert "adapter_files" not in {node.name for node in pipeline.nodes}
    assert "lora_model_dir" in {note.path for note in pipeline.notes if note.kind == "idle"}


@pytest.fixture(scope="module")
def hub():
    with hub_server() as server:
        yield server


@pytest.fixture(scope="module")
def from_hub(hub, first, tmp_path_factory):
    """A project that goes on from a private adapter of the Hub, its files there, and what its run said."""
    files = {path.name: path.read_bytes() for path in trained(first).iterdir()}
    hub.model(NAME, token=TOKEN).commit({**files, "README.md": b"# x", "adapter_model.bin": b"pickle"})
    project = further(tmp_path_factory.mktemp("further") / "project", first.state, lora_model_dir=NAME)
    return project, files, tell(hub, project, "run", HF_TOKEN=TOKEN)


def tell(hub, project, command, **environment):
    arguments = (command, str(project.yaml), "--state", str(project.state), "--only", "trained", "--json")
    done = hub.tunemill(project.folder, *arguments, **environment)
    assert TOKEN not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = json.loads(done.stdout)["nodes"]
    return {node["node"]: node for node in nodes}, done.stderr


@pytest.mark.slow
def test_one_of_the_hub_is_fetched_and_trained_further(hub, from_hub):
    """At a commit that is written down, and without the network afterwards."""
    project, _, (nodes, _) = from_hub
    assert {name for name, node in nodes.items() if node["state"] == "computed"} == {
        "adapter_files",
        "trained",
    }
    commit = hub.models[NAME].revisions["main"]
    assert nodes["adapter_files"]["metrics"]["commit"] == commit
    fetched = project.store.refs.read("further", "adapter_files")
    assert fetched.digest in (trained(project) / "tunemill_lineage.json").read_text()
    hub.requests.clear()
    nodes, said = tell(hub, project, "plan", HF_HUB_OFFLINE="1")
    assert not hub.requests and f"going on with commit {commit}" in said
    assert {nodes[name]["state"] for name in ("adapter_files", "trained")} == {"cached"}


@pytest.mark.slow
def test_other_words_about_it_train_nothing_anew(hub, from_hub):
    project, files, _ = from_hub
    hub.models[NAME].commit({**files, "README.md": b"# y"})
    nodes, _ = tell(hub, project, "run", HF_TOKEN=TOKEN)
    assert not [name for name, node in nodes.items() if node["state"] == "computed"]


@pytest.mark.slow
def test_a_name_of_another_base_is_told(first, tmp_path):
    folder = shutil.copytree(trained(first), tmp_path / "adapter")
    given = {"adapter": "lora", "learning_rate": 0.1, "lora_model_dir": str(folder)}
    assert not list(SftConfig(**given, base_on_hub="owner/base").doubts())
    config = folder / "adapter_config.json"
    config.chmod(0o644)
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "Owner/Base"}))
    assert not list(SftConfig(**given, base_on_hub="owner/base").doubts())
    (said,) = SftConfig(**given, base_on_hub="owner/other").doubts()
    assert "it was trained on Owner/Base, and base_model is owner/other" in said
    assert not list(SftConfig(**given).doubts())


@pytest.mark.slow
def test_damaged_factors_are_told(first, tmp_path):
    folder = shutil.copytree(trained(first), tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:200])
    project = further(tmp_path / "further", first.state, lora_model_dir=str(folder))
    assert "adapter_model.safetensors: damaged" in project.run()["trained"].message
