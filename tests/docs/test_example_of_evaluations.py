"""examples/evaluations: it runs as it is shipped, for fewer steps, and its rows are those that its script writes."""

import json
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from support.examples import ROOT, copy_examples

from tunemill.pipelines.cli import main

FOLDER = ROOT / "examples" / "evaluations"


def test_its_rows_are_those_that_its_script_writes():
    spec = spec_from_file_location("make_rows", FOLDER / "make_rows.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [json.loads(line) for line in (FOLDER / "data" / "forms.jsonl").open()]
    assert rows == module.rows() and len(rows) == 120


@pytest.mark.slow
def test_it_runs_and_says_what_its_page_shows(tmp_path, capsys):
    folder = copy_examples(tmp_path) / "evaluations"
    given = [str(folder / "pipeline.yml"), "--state", str(tmp_path / "state"), "--json"]
    text = (folder / "pipeline.yml").read_text()
    (folder / "pipeline.yml").write_text(text.replace("max_steps: 240", "max_steps: 20"))
    code = main(["run", *given])
    told = json.loads(capsys.readouterr().out)
    assert {node["state"] for node in told["nodes"]} == {"computed"}, told
    gates = {gate["gate"]: gate["state"] for gate in told["gates"]}
    assert len(gates) == 3 and (code == 0) == (set(gates.values()) == {"passed"}), gates
    compare = ["diff", "evaluations/evaluation_forms_of_base", "evaluations/evaluation_forms_of_merged"]
    assert main([*compare, "--state", str(tmp_path / "state")]) == 0
    assert "120 rows" in capsys.readouterr().out
    # Another metric generates nothing.
    metrics = folder / "metrics.py"
    metrics.write_text(metrics.read_text().replace("abs(", "3 * abs("))
    main(["run", *given])
    states = {node["node"]: node["state"] for node in json.loads(capsys.readouterr().out)["nodes"]}
    computed = {name for name, state in states.items() if state == "computed"}
    assert computed == {"evaluation_forms_of_base", "evaluation_forms_of_merged"}, states
