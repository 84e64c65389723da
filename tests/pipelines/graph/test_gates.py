"""Gates in a YAML: what `check` says of those that nobody could pass."""

import pytest
import yaml
from support.project import make_project

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline

GATE = {"metric": "exact_match", "of": "quantized", "min": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("gates") / "project").folder


def problems(folder, *gates, **keys):
    config = yaml.safe_load((folder / "pipeline.yml").read_text())
    config = {key: value for key, value in {**config, **keys}.items() if value is not None}
    config["pipeline"] = {**config.get("pipeline", {}), "gates": list(gates)}
    path = folder / "gated.yml"
    path.write_text(yaml.safe_dump(config))
    try:
        return [load_pipeline(path).gates]
    except ConfigError as error:
        return [
            f"{problem.path}: {problem.message} {problem.suggestion or ''}" for problem in error.ordered()
        ]


def test_gates_are_read(folder):
    (gates,) = problems(folder, GATE, {**GATE, "max_drop_from": "merged", "margin": 0.02})
    assert [gate.node for gate in gates] == ["evaluation_of_quantized"] * 2
    assert gates[1].nodes == ("evaluation_of_quantized", "evaluation_of_merged")
    assert gates[1].words == "exact_match of quantized at least 0.9 and at most 0.02 worse than merged"


@pytest.mark.parametrize(
    ("gate", "keys", "said"),
    [
        ({"of": "quantised"}, {}, "gates[0].of: quantised is not evaluated; base, trained, merged, quantized is"),
        ({"of": "merged"}, {"pipeline": {"evaluate": ["quantized"]}}, "merged is not evaluated; quantized is"),
        ({"max_drop_from": "traind"}, {}, "gates[0].max_drop_from: traind is not evaluated"),
        ({}, {"test_datasets": None}, "nothing is evaluated here"),
        ({"metric": "exact_mach"}, {}, "gates[0].metric: exact_mach is no figure of evaluation_of_quantized"),
        ({}, {"pipeline": {"evaluation": {"exact_match": False}}}, "exact_match is no figure of"),
        ({"evaluation": "maths"}, {}, "gates[0].evaluation: there is no evaluation maths in pipeline.evaluations"),
        ({"min": None}, {}, "asks for nothing: give min, max or max_drop_from"),
        ({"max": 0.1}, {}, "min: 0.9 is more than max: 0.1"),
        ({"margin": 0.1}, {}, "margin: is how much may be lost on another model"),
        ({"max_drop_from": "quantized"}, {}, "is compared with itself"),
        ({"metric": "rows", "max_drop_from": "merged"}, {}, "of rows neither more nor less is worse"),
        ({"confidence": 1.5}, {}, "gates[0].confidence"),
        ({"cannot_tell": "maybe"}, {}, "gates[0].cannot_tell"),
        ({"minimum": 1}, {}, "gates[0].minimum: unknown key"),
    ],
)  # fmt: skip
def test_gates_that_nobody_could_pass_are_told(folder, gate, keys, said):
    given = {key: value for key, value in {**GATE, **gate}.items() if value is not None}
    found = problems(folder, given, **keys)
    assert any(isinstance(one, str) and said in one for one in found), found


def test_a_gate_that_stands_twice_is_told(folder):
    assert any("stands here twice" in str(one) for one in problems(folder, GATE, GATE))
