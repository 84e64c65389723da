"""Models that bring code of their own: run only where that is asked for, and then from the artifact alone."""

import json

import pytest
from support.project import make_project
from support.tiny_model import Heard, make_model, workspace
from support.tiny_tokenizer import make_tokenizer

from tunemill.resources.launcher import in_child
from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.errors import SourceError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig

CONFIGURATION = """
from transformers import LlamaConfig
class OwnConfig(LlamaConfig):
    model_type = "tiny_own"
"""
MODELING = """
import pathlib
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
with (pathlib.Path({marks!r})).open("a") as file:
    file.write("x")
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
OWN = {
    "model_type": "tiny_own",
    "architectures": ["OwnForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    },
}


def own_model(folder, **changes):
    """A model whose code writes a letter into `marks` beside its folder each time that it is run."""
    make_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **OWN, **changes}))
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODELING.format(marks=str(folder.parent / "marks")))
    return folder


def run(folder, out, **settings):
    heard = Heard()
    made = workspace(out)
    tokenizer = Tokenizer(make_tokenizer(out.parent / "tokenizer"))
    config = BaseModelConfig(base_model=str(folder), **settings)
    base_model(config, tokenizer=tokenizer, upstream=None, out=made, report=heard.report)
    return made.data, heard


def test_code_that_is_not_trusted_is_not_run(tmp_path):
    folder = own_model(tmp_path / "own")
    with pytest.raises(SourceError, match=r"no model of type 'tiny_own'.*trust_remote_code: true"):
        run(folder, tmp_path / "out")
    known = own_model(tmp_path / "known", model_type="llama", architectures=["LlamaForCausalLM"])
    data, heard = run(known, tmp_path / "out2")
    assert any("transformers' own class" in event["message"] for event in heard.of("log"))
    assert "auto_map" not in json.loads((data / "config.json").read_text())
    assert not list(data.glob("*.py")) and not (tmp_path / "marks").exists()


def test_code_in_another_repository_is_refused(tmp_path):
    named = {"AutoConfig": "other/repo--configuration_own.OwnConfig"}
    folder = own_model(tmp_path / "own", auto_map=named)
    with pytest.raises(
        SourceError, match=r"code in another repository \(other/repo--configuration_own\.OwnConfig\)"
    ):
        run(folder, tmp_path / "out", trust_remote_code=True)


def test_code_that_cannot_be_used_is_refused(tmp_path):
    folder = own_model(tmp_path / "own")
    (folder / "modeling_own.py").write_text("import a_package_that_nobody_has")
    with pytest.raises(SourceError, match=r"the code that its config.json names cannot be used"):
        run(folder, tmp_path / "out", trust_remote_code=True)


@pytest.mark.slow
def test_trusted_code_is_run_in_every_node_from_the_artifact(tmp_path):
    project = make_project(
        tmp_path / "project",
        base_model="own",
        reinit_weights=None,
        trust_remote_code=True,
        datasets=[{"path": "data/sums.jsonl", "type": "chat_template"}],
        max_steps=2,
    )
    folder = own_model(project.folder / "own")
    finished = project.run(launch=in_child)
    assert {item.state for item in finished.values()} == {"computed"}, finished
    for node in ("base_model", "trained", "merged", "quantized"):
        data = finished[node].published.data
        assert (data / "modeling_own.py").read_bytes() == (folder / "modeling_own.py").read_bytes(), node
    assert (
        json.loads((finished["merged"].published.data / "config.json").read_text())["auto_map"]
        == OWN["auto_map"]
    )
    assert finished["base_model"].published.manifest["metrics"]["code"]
    # Once for each process that has loaded the model.
    assert len((project.folder / "marks").read_text()) >= 6
    (folder / "modeling_own.py").write_text((folder / "modeling_own.py").read_text() + "# other")
    assert project.plan()["base_model"].state == "run"
