"""Gates as Dagster's checks: what follows a failed one is not made."""

import json

import dagster as dg
import pytest
from support.ui import serve

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.cli import main
from tunemill.resources.launcher import in_this_process

EVALUATION = dg.AssetKey(["pipeline", "evaluation_of_quantized"])
# No model of these projects answers anything: 0 of 4 rows are right.
FAILS = {"metric": "exact_match", "of": "quantized", "min": 0.9}
CANNOT_TELL = {**FAILS, "min": 0.1}
PASSES = {"metric": "exact_match", "of": "quantized", "max": 0.9}


@dg.asset(deps=[EVALUATION])
def shipped() -> None:
    """Stands for whatever follows an evaluation."""


def materialized(project, *selected, gates, checks_only=False):
    """A run of Dagster over the evaluation and what follows; the checks' results, and what was made."""
    project.edit(pipeline={"gates": gates})
    definitions = build_definitions(project.folder, project.state, in_this_process)
    checks = list(definitions.asset_checks)
    selection = dg.AssetSelection.assets(*selected)
    if checks_only:
        selection = selection | dg.AssetSelection.checks(*checks)
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize(
            [*definitions.assets, *checks, shipped],
            instance=instance,
            selection=selection,
            raise_on_error=False,
        )
    made = {event.asset_key.path[-1] for event in outcome.get_asset_materialization_events()}
    # Checks of stages stop nothing.
    gates = [check for check in outcome.get_asset_check_evaluations() if check.blocking]
    return outcome.success, gates, made


def test_past_a_failed_gate_nothing_is_made_and_the_check_says_why(project):
    success, (check,), made = materialized(project, EVALUATION, shipped.key, gates=[FAILS])
    assert not success and made == {"evaluation_of_quantized"}
    assert not check.passed and check.severity == dg.AssetCheckSeverity.ERROR and check.blocking
    assert check.asset_key == EVALUATION and check.check_name == "exact_match_min"
    assert check.description.startswith("failed: exact_match 0 (95% interval 0 to 0.4899, 4 rows) is beyond")
    figures = {name: entry.value for name, entry in check.metadata.items()}
    assert figures["outcome"] == "failed" and figures["min"] == 0.9 and figures["rows"] == 4
    # The evaluation comes from the cache again; its check is asked again.
    success, (check,), made = materialized(project, EVALUATION, shipped.key, gates=[PASSES])
    assert success and made == {"evaluation_of_quantized", "shipped"} and check.passed


def test_whether_too_few_rows_block_is_as_the_yaml_says(project):
    success, (check,), made = materialized(project, EVALUATION, shipped.key, gates=[CANNOT_TELL])
    assert not success and "shipped" not in made and check.description.startswith("cannot tell: ")
    passing = {**CANNOT_TELL, "cannot_tell": "pass"}
    success, (check,), made = materialized(project, EVALUATION, shipped.key, gates=[passing])
    assert success and "shipped" in made
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN


@pytest.mark.parametrize(("gate", "made"), [(FAILS, set()), (PASSES, {"shipped"})])
def test_the_gate_of_an_evaluation_that_is_in_place_holds_what_follows_too(project, gate, made):
    assert materialized(project, shipped.key, gates=[gate], checks_only=True)[2] == made


def test_a_comparison_waits_for_both_evaluations(project):
    other = dg.AssetKey(["pipeline", "evaluation_of_merged"])
    gate = {"metric": "perplexity", "of": "quantized", "max_drop_from": "merged", "margin": 1e6}
    success, (check,), _ = materialized(project, EVALUATION, other, gates=[gate, PASSES][:1])
    assert success and check.passed and check.check_name == "perplexity_beside_merged"


def run(project, capsys, *arguments):
    code = main([*arguments, "--state", str(project.state)])
    return code, capsys.readouterr().out


def test_the_command_line_shows_gates_and_counts_them(project, capsys):
    project.edit(pipeline={"gates": [PASSES, FAILS]})
    code, out = run(project, capsys, "run", str(project.yaml))
    assert code == 1 and "exact_match of quantized at least 0.9" in out
    assert out.index("is beyond the bound, at least 0.9") < out.index(
        "evaluation_of_base" if "evaluation_of_base" in out else "model "
    )
    code, out = run(project, capsys, "run", str(project.yaml), "--json")
    gates = json.loads(out)["gates"]
    assert code == 1 and [gate["state"] for gate in gates] == ["passed", "failed"]
    assert gates[1]["blocks"] and gates[1]["numbers"]["high"] == pytest.approx(0.4899, abs=1e-4)
    code, out = run(project, capsys, "plan", str(project.yaml))
    assert code == 0 and "is beyond the bound" in out and "nothing to run" in out
    code, out = run(project, capsys, "status", "--json")
    assert [gate["state"] for gate in json.loads(out)["gates"]] == ["passed", "failed"]
    assert "at least 0.9" in run(project, capsys, "status")[1]
    # An edit of the evaluation: nobody knows before it has run.
    project.edit(eval_max_new_tokens=5)
    _, out = run(project, capsys, "plan", str(project.yaml), "--json")
    gates = json.loads(out)["gates"]
    assert {gate["state"] for gate in gates} == {"not known"} and not any(gate["blocks"] for gate in gates)
    project.edit(pipeline={"gates": [CANNOT_TELL]}, eval_max_new_tokens=4)
    assert run(project, capsys, "run", str(project.yaml))[0] == 1
    project.edit(pipeline={"gates": [{**CANNOT_TELL, "cannot_tell": "pass"}]})
    code, out = run(project, capsys, "run", str(project.yaml))
    assert code == 0 and "cannot tell, passes" in out


@pytest.mark.slow
def test_the_page_of_the_evaluation_shows_the_gate(project):
    project.edit(pipeline={"gates": [FAILS]})
    node, name = ["pipeline", "evaluation_of_quantized"], "exact_match_min"
    with serve(project) as ui:
        (check,) = (one for one in ui.checks().values() if one["blocking"])
        assert check["blocking"] and check["description"] == "exact_match of quantized at least 0.9"
        assert ui.wait(ui.launch([node], [(node, name)])) == "FAILURE"
        told = ui.checks()[f"{'/'.join(node)} {name}"]["executionForLatestMaterialization"]
    assert told["status"] == "FAILED" and told["evaluation"]["severity"] == "ERROR"
    assert told["evaluation"]["description"].startswith(
        "failed: exact_match 0 (95% interval 0 to 0.4899, 4 rows)"
    )
    # The gate is edited. It says so at once, and is asked alone: nothing is materialized.
    project.edit(pipeline={"gates": [{**PASSES, "min": 0.0}]})
    name = "exact_match_min_max"
    with serve(project) as ui:
        (check,) = (one for one in ui.checks().values() if one["blocking"])
        assert check["description"] == "exact_match of quantized at least 0 and at most 0.9"
        assert ui.wait(ui.launch([], [(node, name)])) == "SUCCESS"
        told = ui.checks()[f"{'/'.join(node)} {name}"]["executionForLatestMaterialization"]
    assert told["status"] == "SUCCEEDED" and told["evaluation"]["description"].startswith("passed: ")
