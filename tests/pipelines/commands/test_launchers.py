"""`tunemill train --launcher`: a whole pipeline whose training runs in two processes."""

import json

import pytest

from tunemill.pipelines.cli import main


@pytest.mark.slow
def test_a_training_in_two_processes_is_that_of_its_global_batch(project, capsys):
    """What two have trained is found by whoever asks for the same steps: from the command line, and from Dagster."""
    two = ["--launcher", "torchrun", "--num-processes", "2"]
    assert main(["train", str(project.yaml), "--state", str(project.state), *two, "--json"]) == 0
    nodes = {node["node"]: node for node in json.loads(capsys.readouterr().out)["nodes"]}
    assert nodes["trained"]["state"] == "computed"
    assert nodes["trained"]["metrics"]["processes"] == 2
    assert nodes["trained"]["metrics"]["exchanged_by"] == "DistributedDataParallel"
    trained = project.plan("gradient_accumulation_steps=2")["trained"]
    assert trained.state == "cached" and trained.cached.manifest["config"]["processes"] == 2
    assert (trained.cached.folder / "logs" / "rank_1.log").is_file()
    again = project.run("pipeline.launcher.processes=2", only={"trained"})
    assert again["trained"].state == "cached" and again["trained"].published.key == trained.key
