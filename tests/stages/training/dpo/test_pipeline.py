"""`rl: dpo` from a YAML to a merged model; the reference is computed once for all trainings."""

import json
import math

import pytest
from support.preference_project import preference_project
from support.project import nodes_in_state

AFTER = {"trained", "merged"}
REFERENCES = {"reference_logprobs", "held_out_logprobs"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = preference_project(tmp_path_factory.mktemp("dpo") / "project", "dpo", quantization=None)
    return project, project.run()


def test_the_first_step_is_where_the_reference_is(finished):
    _, nodes = finished
    assert nodes_in_state(nodes, "computed") == set(nodes) >= AFTER | REFERENCES
    log = nodes["trained"].published.folder / "logs" / "metrics.jsonl"
    first = json.loads(log.read_text().splitlines()[0])
    assert first["rewards/margins"] == 0 and first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    metrics = nodes["trained"].published.manifest["metrics"]
    assert metrics["last_eval_rewards/margins"] != 0


@pytest.mark.parametrize(
    ("override", "runs"),
    [
        ("rl_beta=0.3", AFTER),
        ("learning_rate=0.002", AFTER),
        ("lora_r=2", AFTER),
        ("eval_steps=1", set()),
        ("micro_batch_size=2", AFTER | REFERENCES),
        ("sequence_len=100", AFTER | REFERENCES),
    ],
)
def test_what_runs_again(finished, override, runs):
    project, _ = finished
    planned = project.plan(override)
    assert {name for name, item in planned.items() if item.state == "run"} - {
        "training_data",
        "evaluation_data",
        "leakage",
    } == runs


def test_models_of_ipo_are_evaluated_as_those_of_dpo(finished):
    project, _ = finished
    planned = project.plan("rl=ipo", "pipeline.evaluate=null", "quantization.weight_dtype=int8")
    made = {"base", "trained", "merged", "quantized"}
    assert {f"evaluation_of_{model}" for model in made} <= planned.keys()
