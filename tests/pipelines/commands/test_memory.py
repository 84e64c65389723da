"""`plan --memory`: what it says of a project, from a child process, and what people read."""

import json
from dataclasses import replace
from typing import Any

import pytest
from support.project import Project, make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.memory import PARTS, SOMETIMES, show_estimate
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.plan import make_plan
from tunemill.pipelines.run.memory import above, estimates
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_this_process
from tunemill.stages.memory import Estimate, Saving, beside_server


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which nothing has run."""
    return make_project(tmp_path_factory.mktemp("memory") / "project")


@pytest.mark.slow
def test_each_training_has_its_parts(fresh: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(fresh.yaml), "--state", str(fresh.state), "--memory", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (found,) = document["memory"].values()
    assert list(document["memory"]) == ["trained"]
    assert all(found[part] > 0 for part in PARTS if part not in SOMETIMES)
    assert not any(found[part] for part in SOMETIMES)
    assert found["total"] < sum(found[part] for part in PARTS if part != "total")
    assert [one["setting"] for one in found["savings"]]
    assert not (fresh.state / "artifacts").exists(), "a plan computes nothing"


def planned(project: Project, *overrides: str, **more: Any) -> Any:
    return make_plan(load_pipeline(project.yaml, overrides), project.store, **more)


@pytest.mark.slow
def test_a_quantized_base_is_estimated_as_one(fresh: Project) -> None:
    found = {
        bits: estimates(planned(fresh, f"load_in_4bit={bits == 4}"), fresh.store, in_this_process)["trained"]
        for bits in (4, 16)
    }
    assert found[4].weights < found[16].weights


def test_what_is_left_alone_is_not_estimated(fresh: Project) -> None:
    assert estimates(planned(fresh, only=["tokenizer"]), fresh.store, in_this_process) == {}


def test_a_model_that_is_gone_is_a_sentence(fresh: Project) -> None:
    nodes = planned(fresh)
    config = fresh.folder / "model" / "config.json"
    text = config.read_text()
    config.unlink()
    try:
        found = estimates(nodes, fresh.store, in_this_process)
    finally:
        config.write_text(text)
    assert "config.json is not on this machine yet" in found["trained"]


def test_an_estimate_that_crashes_is_a_sentence_too(fresh: Project) -> None:
    def crash(_call: Any, _sink: Any) -> None:
        raise LaunchError(
            "the stage's process ended with exit code 1; the end of a file:\nTraceback\nKeyError: 1"
        )

    found = estimates(planned(fresh), fresh.store, crash)
    assert found == {"trained": "it could not be estimated: KeyError: 1"}


def test_the_artifacts_above_are_what_is_looked_at(project: Project) -> None:
    nodes = planned(project)
    trained = next(item for item in nodes if item.node.name == "trained")
    found = above(trained.node, nodes, project.store)
    assert found["base_model"].folder and found["training_data"].folder
    assert found["sft.base_model"] == found["base_model"] and found["base_model.tokenizer"].folder
    assert found["base_model"].settings["base_model"] == str(project.folder / "model")


def test_people_read_the_parts_and_the_largest_saving_first(capsys: pytest.CaptureFixture[str]) -> None:
    savings = [Saving("gradient_checkpointing: true", 3_000_000), Saving("adapter: lora", 2_000_000)]
    shown = Estimate(1000, 2000, 3000, 4000, 5000, 9_000_000, "A Card", 8_000_000, savings, ["of 512 tokens"])
    show_estimate("trained", shown)
    text = capsys.readouterr().out
    assert "does not fit into the 8.0 MB" in text and "A Card" in text and "note: of 512 tokens" in text
    assert text.index("gradient_checkpointing") < text.index("adapter: lora")
    assert "\x1b" not in text and "generation" not in text
    show_estimate("trained", replace(shown, generation=7000))
    assert "generation   7.0 kB" in capsys.readouterr().out
    fits = replace(shown, total=6_000_000)
    show_estimate("trained", fits)
    assert "It fits into" in capsys.readouterr().out
    show_estimate("trained", beside_server(fits, 0.3))
    text = capsys.readouterr().out
    assert "server       2.4 MB" in text and "total        8.4 MB" in text and "does not fit into" in text
    assert beside_server(replace(fits, capacity=None), 0.3) == replace(fits, capacity=None)
