"""Machines and Ray's workers are a place too, whoever's words are used for them."""

import argparse
import re
import shlex

import pytest
import yaml
from support.own_environment import ROOT
from support.project import make_project

from tunemill.pipelines.commands.launchers import launcher_overrides
from tunemill.pipelines.config.overrides import override_of
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.spread import spread_call
from tunemill.resources.calls import Call, Nodes, Ray, call_of
from tunemill.resources.errors import LaunchError
from tunemill.stages.errors import SettingError

LAUNCHER = "pipeline.launcher"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("launcher") / "p")


@pytest.fixture(scope="module")
def alone(project):
    return load_pipeline(project.yaml, ["gradient_accumulation_steps=4"]).node("trained").config.semantic()


CALL = Call("m:body", "m:C", {}, {}, "m:W", {}, "m:R", "m:E")


def placed(pipeline):
    return spread_call(CALL, pipeline.node("trained"), pipeline, "0123456789")


@pytest.mark.parametrize(
    ("ways", "ray"),
    [
        (["use_ray=true", "ray_num_workers=4", "ray_run_name=mine", "resources_per_worker={GPU: 1}"],
         Ray(None, {"GPU": 1}, "mine")),
        ([f"{LAUNCHER}={{kind: ray, processes: 4, address: 'head:6379'}}"],
         Ray("head:6379", {}, "pipeline-trained-01234567")),
        (["use_ray=true", f"{LAUNCHER}={{processes: 4, resources_per_worker: {{CPU: 2}}}}"],
         Ray(None, {"CPU": 2}, "pipeline-trained-01234567")),
    ],
)  # fmt: skip
def test_workers_of_ray_are_a_place(ways, ray, project, alone):
    pipeline = load_pipeline(project.yaml, ways)
    assert pipeline.node("trained").config.semantic() == alone and not pipeline.notes
    assert placed(pipeline).ray == ray and placed(pipeline).nodes is None
    assert spread_call(CALL, pipeline.node("training_data"), pipeline, "k") == CALL


def test_one_worker_of_ray_is_one_too(project):
    pipeline = load_pipeline(project.yaml, ["use_ray=true"])
    assert pipeline.node("trained").config.ranks == 1 and placed(pipeline).ray is not None


def test_machines_are_a_place(project, alone):
    launcher = f"{LAUNCHER}={{processes: 2, nodes: 2, rendezvous: 'a:29500'}}"
    pipeline = load_pipeline(project.yaml, [launcher])
    assert pipeline.node("trained").config.semantic() == alone and pipeline.node("trained").config.ranks == 4
    call = placed(pipeline)
    assert call.nodes == Nodes(2, 0, "a:29500", "0123456789")


def test_a_machine_that_only_helps_publishes_nothing(project):
    launcher = f"{LAUNCHER}={{processes: 2, nodes: 2, node_rank: 1, rendezvous: 'a:29500'}}"
    pipeline = load_pipeline(project.yaml, [launcher])
    with pytest.raises(LaunchError, match="this machine only helps the first one"):
        placed(pipeline)
    joins = spread_call(CALL, pipeline.node("trained"), pipeline, "k", joins=True)
    assert joins.nodes == Nodes(2, 1, "a:29500", "k")


def test_a_call_is_read_as_it_was_written():
    from dataclasses import asdict, replace

    for call in (
        CALL,
        replace(CALL, nodes=Nodes(2, 1, "a:1", "k")),
        replace(CALL, ray=Ray(None, {"CPU": 1}, "n")),
    ):
        assert call_of(asdict(call)) == call


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([f"{LAUNCHER}={{kind: ray}}"], "kind: ray needs the number of workers"),
        ([f"{LAUNCHER}={{processes: 2, address: 'a:1'}}"], "address: only kind: ray reads it"),
        ([f"{LAUNCHER}={{kind: ray, processes: 2, address: 'ray://a:1'}}"], "tunemill run --on ray://a:1"),
        ([f"{LAUNCHER}={{kind: ray, processes: 2, nodes: 2}}"], "nodes: kind: ray takes none"),
        ([f"{LAUNCHER}={{processes: 2, nodes: 2}}"], "give rendezvous: HOST:PORT"),
        ([f"{LAUNCHER}={{processes: 2, nodes: 2, rendezvous: a}}"], "rendezvous"),
        ([f"{LAUNCHER}={{processes: 2, nodes: 2, node_rank: 2, rendezvous: 'a:1'}}"], "numbered from 0 to 1"),
        ([f"{LAUNCHER}={{processes: 2, node_rank: 1}}"], "give nodes, how many there are"),
        (["use_ray=true", f"{LAUNCHER}.kind=torchrun"], "use_ray: true asks for Ray"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides, said, project):
    with pytest.raises(ConfigError) as caught:
        load_pipeline(project.yaml, overrides)
    assert said in str(caught.value)


def test_words_of_ray_ask_for_nothing_without_it(project):
    notes = load_pipeline(project.yaml, ["ray_num_workers=4", "resources_per_worker={GPU: 1}"]).notes
    assert {note.path: note.message for note in notes} == dict.fromkeys(
        ("ray_num_workers", "resources_per_worker"), "asks for nothing: only use_ray: true reads it"
    )


def given(*behind):
    options = argparse.Namespace(
        cloud=None, launcher="torchrun", num_processes=None, launcher_arguments=behind
    )
    return [override.text for override in launcher_overrides(options)]


def test_a_launchers_own_arguments_set_the_keys():
    behind = ["--nproc_per_node=2", "--nnodes", "2", "--node-rank=1", "--rdzv-endpoint", "10.0.0.1:29500"]
    assert given(*behind) == [
        "pipeline.launcher.kind=torchrun", "pipeline.launcher.processes=2", "pipeline.launcher.nodes=2",
        "pipeline.launcher.node_rank=1", "pipeline.launcher.rendezvous=10.0.0.1:29500",
    ]  # fmt: skip
    for wrong in (["--max-restarts=3"], ["--nnodes"], ["2"]):
        with pytest.raises(SettingError, match="only --num-processes"):
            given(*wrong)


def test_what_the_page_says_is_read(project):
    page = (ROOT / "docs" / "scale.md").read_text()
    section = page[page.index("\n## Several machines") : page.index("\n### A run from a laptop")]
    (block,) = re.findall(r"^```yaml\n(.*?)^```", section, re.M | re.S)
    launcher = yaml.safe_load(block)["pipeline"]["launcher"]
    assert load_pipeline(project.yaml, [f"{LAUNCHER}={launcher}"]).launcher.kind == "ray"
    (commands,) = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    for rank, line in enumerate(commands.splitlines()):
        overrides = [override_of(text) for text in given(*shlex.split(line.partition(" -- ")[2]))]
        assert load_pipeline(project.yaml, overrides).launcher.node_rank == rank
