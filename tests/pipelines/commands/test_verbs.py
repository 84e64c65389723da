"""Axolotl's verbs: each brings the nodes that it means up to date, and says what to write where there are none."""

import json

import pytest

from tunemill.pipelines.cli import VERBS, main
from tunemill.pipelines.config.overrides import override_of
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.verb_places import VERBS as NODES
from tunemill.pipelines.graph.verb_places import nodes_of_verb


@pytest.fixture
def project(finished_project):
    return finished_project


@pytest.fixture
def call(project, capsys):
    def call(*arguments, code=0):
        verb, *more = arguments
        assert main([verb, str(project.yaml), "--state", str(project.state), *more]) == code
        return capsys.readouterr()

    return call


def test_every_verb_has_nodes():
    assert set(VERBS) == set(NODES)


@pytest.mark.parametrize(
    ("verb", "nodes"),
    [
        ("train", {"trained"}),
        ("merge-lora", {"merged"}),
        ("quantize", {"quantized"}),
        ("evaluate", {f"evaluation_of_{what}" for what in ("base", "trained", "merged", "quantized")}),
    ],
)
def test_a_verb_means_nodes(verb, nodes, project):
    assert nodes_of_verb(verb, load_pipeline(project.yaml)) == nodes


def test_the_harness_is_known_by_what_it_computes_with(project):
    pipeline = load_pipeline(project.yaml, ["lm_eval_tasks=[arc_easy]", "pipeline.evaluate=[merged]"])
    assert nodes_of_verb("lm-eval", pipeline) == {"evaluation_lm_eval_of_merged"}
    assert nodes_of_verb("evaluate", pipeline) >= {"evaluation_lm_eval_of_merged", "evaluation_of_merged"}


def test_what_the_verb_does_not_need_is_left_alone(call):
    nodes = {item["node"]: item["state"] for item in json.loads(call("merge-lora", "--json").out)["nodes"]}
    assert nodes["merged"] == nodes["trained"] == "cached"
    assert nodes["quantized"] == nodes["evaluation_of_base"] == "left alone"


@pytest.mark.parametrize(
    ("verb", "overrides", "said"),
    [
        ("merge-lora", ["adapter=null", "lora_target_linear=null"], "Write adapter: lora"),
        ("quantize", ["quantization=null"], "Write quantization: {weight_dtype: int8}"),
        ("evaluate", ["pipeline.evaluate=[]"], "val_set_size: 0.05"),
        ("lm-eval", [], "Write lm_eval_tasks"),
    ],
)
def test_a_verb_without_nodes_says_what_to_write(verb, overrides, said, call):
    # Settings of an adapter beside none are only noted.
    assert said in call(verb, *overrides, code=1).err


def test_options_of_quantize_are_keys_of_quantization(project, capsys):
    """A wrong one is told as `check` tells it, so it was read as that key."""
    code = main(["quantize", str(project.yaml), "--weight-dtype", "int5", "--state", str(project.state)])
    assert code == 1 and "quantization.weight_dtype" in capsys.readouterr().err


def test_an_adapter_is_taken_where_it_is_the_pipelines_own(call, project):
    for folder in ("outputs", "outputs/trained"):
        call("merge-lora", "--lora-model-dir", str(project.folder / folder))
    said = call("merge-lora", "--lora-model-dir", str(project.folder / "model"), code=1).err
    assert "no adapter of this pipeline" in said and "tunemill inference" in said


def test_machines_are_not_rented(call):
    assert "rents no machines" in call("train", "--cloud", "cloud.yml", code=1).err


def test_train_shows_rows(call):
    """As `axolotl train --debug`: the rows of each dataset, then the training."""
    said = call("train", "--debug-num-examples", "1", "--debug-text-only").out
    assert "tokenized_sums" in said or "sums" in said
    assert "all" in said and "cached" in said


def test_overrides_come_as_on_axolotls_command_line(project, capsys):
    code = main(
        ["train", str(project.yaml), "--learning-rate", "fast", "--state", str(project.state), "--json"]
    )
    assert code == 1 and "--learning-rate fast" in capsys.readouterr().out
    assert override_of("quantization.weight_dtype=int4").parts == ("quantization", "weight_dtype")
