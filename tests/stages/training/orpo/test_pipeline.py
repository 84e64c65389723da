"""`rl: orpo` from a YAML to a merged, quantized model; and what of it runs again when a key changes."""

import pytest
from support.preference_project import pair, preference_project, write_rows
from support.project import nodes_in_state

from tunemill.pipelines.cli import main

AFTER = {"trained", "merged", "quantized"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = preference_project(tmp_path_factory.mktemp("orpo") / "project", "orpo")
    return project, project.run()


@pytest.mark.slow
def test_every_node_runs_and_training_is_orpos(finished):
    project, nodes = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= AFTER | {"training_data", "evaluation_data"}
    assert nodes["trained"].stage == "orpo" and not [
        name for name in nodes if name.startswith("evaluation_of_")
    ]
    metrics = nodes["trained"].published.manifest["metrics"]
    assert metrics["steps"] == 4 and 0 <= metrics["last_eval_rewards/accuracies"] <= 1
    assert {item.state for item in project.plan().values()} == {"cached"}
    assert main(["run", str(project.yaml), "--state", str(project.state)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("orpo_alpha=0.3", AFTER),
        ("lora_r=2", AFTER),
        ("eval_steps=1", set()),
        ("micro_batch_size=2", AFTER),
        ("val_set_size=0", set()),
    ],
)
def test_what_runs_again(finished, override, runs):
    project, _ = finished
    planned = project.plan(override)
    assert {name for name, item in planned.items() if item.state == "run"} == runs


@pytest.mark.slow
def test_other_held_out_rows_train_nothing_again(finished):
    project, _ = finished
    write_rows(project.folder, "others", pair, "uvw")
    states = {name: item.state for name, item in project.run().items()}
    assert states["evaluation_data"] == "computed" and states["trained"] == "cached"


def test_supervised_keys_are_refused_and_others_methods_are_not_trained(tmp_path, capsys):
    project = preference_project(tmp_path / "project", "orpo")
    assert main(["run", str(project.yaml), "--sample_packing=true", "--state", str(project.state)]) == 1
    refusal = capsys.readouterr().err
    assert "sample_packing: is read by training_data, pretraining_data, sft" in refusal
    assert "this pipeline trains orpo" in refusal
