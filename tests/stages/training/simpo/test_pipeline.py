"""`rl: simpo` from a YAML to a merged model, what of it runs again when a key changes, and whose keys are whose."""

import re

import pytest
from support.preference_project import preference_project
from support.project import nodes_in_state

from tunemill.pipelines.cli import main

AFTER = {"trained", "merged"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simpo") / "project"
    project = preference_project(folder, "simpo", test_datasets=None, val_set_size=2, quantization=None)
    return project, project.run()


@pytest.mark.slow
def test_every_node_runs_and_training_is_simpos(finished):
    project, nodes = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= AFTER | {"training_data"}
    assert nodes["trained"].stage == "simpo"
    metrics = nodes["trained"].published.manifest["metrics"]
    assert metrics["steps"] == 4 and 0 <= metrics["last_eval_rewards/accuracies"] <= 1
    assert metrics["last_nll_loss"] > 0 > metrics["last_logps/chosen"]
    assert main(["run", str(project.yaml), "--state", str(project.state)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("rl_beta=2", AFTER),
        ("simpo_gamma=1.2", AFTER),
        ("cpo_alpha=0", AFTER),
        ("simpo_gamma=0.5", set()),
        ("eval_steps=1", set()),
    ],
)
def test_what_runs_again(finished, override, runs):
    project, _ = finished
    planned = project.plan(override)
    assert {name for name, item in planned.items() if item.state == "run"} == runs


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("simpo_gamma=0.1", r"simpo_gamma: is read by simpo; this pipeline trains orpo"),
        ("cpo_alpha=0.1", r"cpo_alpha: is read by simpo; this pipeline trains orpo"),
        ("pipeline.simpo_gamma=0.1", r"pipeline\.simpo_gamma: "),
        ("datasets[0].simpo_gamma=0.1", r"datasets\[0\]\.simpo_gamma: "),
        ("trl.simpo_gamma=0.1", r"trl\.simpo_gamma: unknown key"),
    ],
)
def test_its_keys_are_refused_where_another_method_trains_at_any_depth(tmp_path, override, said, capsys):
    project = preference_project(tmp_path / "project", "orpo")
    assert main(["check", str(project.yaml), f"--{override}"]) == 1
    assert re.search(said, capsys.readouterr().err)
