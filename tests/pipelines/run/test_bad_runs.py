"""Real pipelines over data that is no good: their checks say so, in a run, in the status and in Dagster."""

import json

import dagster as dg
import pytest
from support.project import chat_row, make_project

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.cli import main
from tunemill.resources.launcher import in_this_process

QUESTION_ALONE = json.dumps({"messages": [{"role": "user", "content": "who?"}]}) + "\n"


@pytest.fixture
def bad(tmp_path):
    """A project whose rows are damaged, repeated, masked, too long, and held out as well as trained on."""
    project = make_project(tmp_path / "project", pipeline={"bad_rows": "skip"}, sequence_len=64)
    rows = [chat_row(f"{a} + 7", str(a + 7)) for a in range(4)] * 3
    rows += ["no json\n"] * 2 + [QUESTION_ALONE] * 3 + [chat_row("tell " * 300, "x " * 300)]
    (project.folder / "data" / "sums.jsonl").write_text("".join(rows))
    (project.folder / "data" / "echoes.jsonl").write_text(chat_row("say a", "a"))
    return project


def run(project, capsys, *arguments):
    code = main(["run", str(project.yaml), "--state", str(project.state), *arguments])
    return code, capsys.readouterr().out


@pytest.mark.slow
def test_bad_rows_are_told_by_the_run_the_status_and_dagster(bad, capsys):
    code, out = run(bad, capsys, "--only", "leakage", "--json")
    told = {(one["node"], one["check"]): one for one in json.loads(out)["checks"] if one["state"] == "failed"}
    assert code == 0, "a warning stops nothing"
    assert set(told) == {
        ("dataset_sums", "rows_fit_the_format"),
        ("tokenized_sums", "rows_have_something_to_train_on"),
        ("training_data", "rows_are_distinct"),
        ("training_data", "few_rows_are_dropped"),
        ("tokenized_sums", "row_lengths_are_alike"),
        ("leakage", "held_out_rows_are_unseen"),
    }
    assert all(one["severity"] == "warning" and one["advice"] for one in told.values())
    # Everything is cached now, and told again.
    _, out = run(bad, capsys, "--only", "leakage")
    assert "2 of 18 rows set aside (11.1%; at most 5%)" in out and "what to do" in out
    assert main(["status", "--state", str(bad.state), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)["checks"]
    assert {(one["node"], one["check"]) for one in status} == set(told)
    assert main(["status", "--state", str(bad.state)]) == 0
    assert "few_rows_are_dropped" in capsys.readouterr().out
    in_dagster(bad, set(told))


def in_dagster(project, told):
    definitions = build_definitions(project.folder, project.state, in_this_process)
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize(
            definitions.assets,
            instance=instance,
            selection=dg.AssetSelection.assets(["pipeline", "leakage"]).upstream(),
        )
    evaluations = outcome.get_asset_check_evaluations()
    failing = {(one.asset_key.path[-1], one.check_name) for one in evaluations if not one.passed}
    assert outcome.success and failing == told
    one = next(e for e in evaluations if e.check_name == "rows_fit_the_format" and not e.passed)
    assert one.severity == dg.AssetCheckSeverity.WARN and not one.blocking
    assert "rejected.jsonl" in one.metadata["what to do"].value


@pytest.mark.slow
def test_a_training_that_learns_nothing_and_one_that_breaks_are_told(tmp_path, capsys):
    project = make_project(tmp_path / "project", learning_rate=1e-30, max_steps=12)
    code, out = run(project, capsys, "--only", "trained", "--json")
    (told,) = (one for one in json.loads(out)["checks"] if one["state"] == "failed")
    assert code == 0 and (told["check"], told["severity"]) == ("weights_have_changed", "error")
    project.edit(learning_rate=3.0, max_steps=40, eval_steps=10, max_grad_norm=1000.0)
    _, out = run(project, capsys, "--only", "trained", "--json")
    told = {one["check"]: one for one in json.loads(out)["checks"] if one["state"] == "failed"}
    assert "gradient_is_healthy" in told and told["gradient_is_healthy"]["advice"]


def test_a_healthy_run_raises_no_alarm(finished_project, capsys):
    _, out = run(finished_project, capsys, "--json")
    checks = json.loads(out)["checks"]
    assert {one["state"] for one in checks} == {"passed", "not known"}
    assert {"weights_have_changed", "merge_is_proven", "loads_as_it_was_saved"} <= {
        one["check"] for one in checks if one["state"] == "passed"
    }
