"""docs/gates.md: its YAML is valid, and its table of keys is that of a gate."""

import re

from support.examples import ROOT, copy_examples

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.evaluation.gate import Gate

PAGE = (ROOT / "docs" / "gates.md").read_text()


def test_its_yaml_is_valid(tmp_path):
    block, leakage = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    folder = copy_examples(tmp_path) / "quickstart"
    text = (folder / "pipeline.yml").read_text()
    (folder / "x.yml").write_text(re.sub(r"^pipeline:\n(?:[ ].*\n)*", "", text, flags=re.M) + block)
    gates = load_pipeline(folder / "x.yml").gates
    assert len(gates) == 3 and gates[1].cannot_tell == "pass"
    (folder / "y.yml").write_text(re.sub(r"^pipeline:\n(?:[ ].*\n)*", "", text, flags=re.M) + leakage)
    assert [gate.words for gate in load_pipeline(folder / "y.yml").gates] == [
        "no held-out row is trained on (leakage)"
    ]


def test_every_key_is_on_it():
    (rows,) = re.findall(r"^\| key \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.M)
    named = {key for row in rows.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(Gate.model_fields)
