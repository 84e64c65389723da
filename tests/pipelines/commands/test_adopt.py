"""`adopt`: what exists already is an artifact from then on, and pipelines name it."""

import json

import pytest
from support.project import make_project
from support.tiny_model import make_model

from tunemill.pipelines.cli import main


def tell(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.slow
def test_a_model_is_copied_once_and_pipelines_name_it(tmp_path, capsys):
    model = make_model(tmp_path / "mine")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    project = make_project(tmp_path / "project", base_model="asset://mine", reinit_weights=None)
    state = ("--state", project.state)
    assert "tunemill adopt FOLDER --as mine" in " ".join(project.plan()["base_model"].reasons)
    code, out, err = tell(capsys, "adopt", model, "--as", "mine", *state, "--json")
    assert code == 0, err
    first = json.loads(out)
    assert first["artifact"] == "BaseModel"
    finished = project.run("max_steps=1")
    assert {item.state for item in finished.values()} == {"computed"}, finished
    # The folder may go, and the same bytes elsewhere are the same artifact.
    copy = model.rename(tmp_path / "elsewhere")
    assert (
        json.loads(tell(capsys, "adopt", copy, "--as", "mine", *state, "--json")[1])["path"] == first["path"]
    )
    assert {item.state for item in project.plan("max_steps=1").values()} == {"cached"}
    code, out, _ = tell(capsys, "lineage", "pipeline/merged", *state)
    assert code == 0 and "adopted/mine" in out
    # What was trained can be adopted in its turn, and keeps where it came from.
    merged = finished["merged"].published.data
    other = ("--state", tmp_path / "other")
    assert tell(capsys, "adopt", merged, "--as", "tuned", *other)[0] == 0
    code, out, _ = tell(capsys, "lineage", "adopted/tuned", *other)
    assert code == 0 and "sums.jsonl" in out
    assert tell(capsys, "cache", "verify", *other)[0] == 0
    assert tell(capsys, "status", *other)[0] == 0


@pytest.mark.parametrize(
    ("folder", "name", "said"),
    [
        ("nowhere", "x", "no such folder"),
        ("empty", "x", "holds neither a model"),
        ("empty", "a/b", "a name has up to 100 letters"),
        ("damaged", "x", "its index of weights is damaged"),
    ],
)
def test_what_cannot_be_adopted(tmp_path, capsys, folder, name, said):
    (tmp_path / "empty").mkdir()
    damaged = make_model(tmp_path / "damaged")
    (damaged / "model.safetensors.index.json").write_text("{")
    code, _, err = tell(capsys, "adopt", tmp_path / folder, "--as", name, "--state", tmp_path / "state")
    assert code == 1 and said in err
