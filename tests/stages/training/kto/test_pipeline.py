"""`rl: kto` from a YAML to a merged model; the reference is computed once for all trainings."""

import json

import pytest
from support.preference_project import preference_project
from support.project import nodes_in_state

pytestmark = pytest.mark.slow

AFTER = {"trained", "merged"}
REFERENCES = {"reference_logprobs", "held_out_logprobs"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = preference_project(
        tmp_path_factory.mktemp("kto") / "project",
        "kto",
        micro_batch_size=2,
        remove_unused_columns=False,
        quantization=None,
        pipeline={"evaluate": ["trained"]},
    )
    return project, project.run()


def test_every_node_runs_and_the_first_step_is_where_the_reference_is(finished):
    project, nodes = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= AFTER | REFERENCES
    assert nodes["trained"].stage == "kto"
    log = nodes["trained"].published.folder / "logs" / "metrics.jsonl"
    first = json.loads(log.read_text().splitlines()[0])
    assert first["loss"] == 0.5 and first["kl"] == 0
    metrics = nodes["trained"].published.manifest["metrics"]
    assert metrics["last_eval_rewards/margins"] != 0 and metrics["desirable_rows"] == 5
    scored = nodes["evaluation_of_trained"].published.manifest["metrics"]
    assert scored["rows"] == 4 and 0 <= scored["reward_accuracy"] <= 1 and scored["kl"] > 0
    assert {item.state for item in project.plan().values()} == {"cached"}


@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("rl_beta=0.3", AFTER),
        ("kto_desirable_weight=1.3", AFTER),
        ("kto_undesirable_weight=0.8", AFTER),
        ("eval_steps=1", set()),
        ("micro_batch_size=1", AFTER | REFERENCES),
    ],
)
def test_what_runs_again(finished, override, runs):
    project, _ = finished
    planned = project.plan(override)
    assert {
        name for name, item in planned.items() if item.state == "run" and "evaluation" not in name
    } == runs
