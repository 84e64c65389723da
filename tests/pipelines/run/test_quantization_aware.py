"""A pipeline that trains for a quantized model makes one, scores it, and says why it is made anew."""

from typing import Any

import pytest
from support.project import make_project, nodes_in_state

from tunemill.pipelines.graph.check_files import check_files

QAT = {"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 16}


@pytest.mark.slow
def test_it_makes_the_model_that_it_trained_for(tmp_path):
    project = make_project(tmp_path / "project", adapter=None, quantization=None, qat=QAT, max_steps=2)
    finished = project.run()
    assert {"trained", "quantized", "evaluation_of_quantized"} <= nodes_in_state(finished, "computed")
    published = project.store.lookup("quantized", finished["quantized"].key)
    assert published.manifest["metrics"]["max_abs_difference_to_training"] == 0
    planned = project.plan("qat.group_size=32")
    assert planned["trained"].state != "cached" and planned["training_data"].state == "cached"
    # What the training does not round for is another model.
    assert project.plan("qat=null")["trained"].state != "cached"


def test_a_type_that_no_model_is_stored_in_is_a_note(tmp_path):
    asked = {"weight_dtype": "mxfp4"}
    project = make_project(tmp_path / "project", adapter=None, quantization=None, qat=asked)
    assert "quantized" not in project.plan()
    (note,) = (problem for problem in check_files([project.yaml])[0].problems if problem.path == "qat")
    assert note.is_note and "stays in full precision" in note.message


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"quantization": {"weight_dtype": "int4"}}, "quantization", "Keep qat alone"),
        (
            {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True},
            "qat",
            "an adapter's product",
        ),
        ({"qat": {**QAT, "group": 3}}, "qat.group", "unknown key"),
    ],
)
def test_what_cannot_be_is_refused_in_check(tmp_path, keys: dict[str, Any], path: str, message: str):
    made = {"adapter": None, "quantization": None, "qat": QAT, **keys}
    project = make_project(tmp_path / "project", **made)
    problems = [problem for problem in check_files([project.yaml])[0].problems if not problem.is_note]
    assert [(problem.path, message in problem.message) for problem in problems] == [(path, True)], problems
