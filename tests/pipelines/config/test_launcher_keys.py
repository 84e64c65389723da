"""Processes are a place: what goes into a step is in the key, however it is shared."""

import argparse
import re
import time

import pytest
from support import bodies
from support.project import make_project

from tunemill.pipelines.commands.launchers import launcher_overrides
from tunemill.pipelines.config.machine import gpu_count
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.spread import spread_call
from tunemill.stages.errors import SettingError

TWO = "pipeline.launcher.processes=2"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(
        tmp_path_factory.mktemp("launcher") / "p", micro_batch_size=2, gradient_accumulation_steps=None
    )


def trained(project, *overrides):
    return load_pipeline(project.yaml, overrides).node("trained").config


def refused(project, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_pipeline(project.yaml, overrides)
    return str(caught.value)


def test_one_process_is_as_before(project):
    pipeline = load_pipeline(project.yaml)
    config = pipeline.node("trained").config
    assert config.ranks == 1 and pipeline.batch is None and config.gradient_accumulation_steps == 1


def test_the_same_global_batch_has_the_same_key(project):
    ways = [
        ["gradient_accumulation_steps=8"],
        ["pipeline.launcher.processes=8"],
        [TWO, "gradient_accumulation_steps=4"],
        ["pipeline.global_batch_size=16"],
        [TWO, "pipeline.global_batch_size=16"],
        ["pipeline.launcher.processes=8", "pipeline.global_batch_size=16"],
    ]
    configs = [trained(project, *way) for way in ways]
    assert [config.semantic() for config in configs] == [configs[0].semantic()] * len(ways)
    assert [config.ranks for config in configs] == [1, 8, 2, 1, 2, 8]
    assert trained(project, TWO).semantic() != trained(project).semantic()


@pytest.mark.parametrize("two", ['"2"', "2.0"])
def test_numbers_count_however_they_are_written(project, two):
    size = "pipeline.global_batch_size=16"
    assert trained(project, size, f"micro_batch_size={two}").gradient_accumulation_steps == 8
    assert trained(project, TWO, f"gradient_accumulation_steps={two}").gradient_accumulation_steps == 4


def test_what_goes_into_a_step_is_said(project):
    said = str(load_pipeline(project.yaml, [TWO, "pipeline.global_batch_size=16"]).batch)
    assert said == "global batch 16 = 2 micro x 4 accumulation x 2 replicas"


def test_texts_that_are_read_as_far_as_steps_go_are_read_for_all_processes(project):
    texts = ["datasets=null", "test_datasets=null", "pretraining_dataset=[{path: data/sums.jsonl}]"]
    nodes = [
        load_pipeline(project.yaml, [*texts, *way]).node("training_data")
        for way in ([TWO], ["gradient_accumulation_steps=2"])
    ]
    assert nodes[0].config.semantic() == nodes[1].config.semantic()


def test_a_global_batch_that_cannot_be_shared_names_what_could(project):
    said = refused(project, "pipeline.launcher.processes=3", "pipeline.global_batch_size=16")
    assert "16 sequences cannot be shared by 3 processes with micro_batch_size: 2" in said
    assert "global_batch_size: 12 or 18" in said and "processes: 1, 2, 4, 8" in said


def test_a_slip_in_a_global_batch_is_answered_at_once(project):
    began = time.process_time()
    said = refused(project, "pipeline.launcher.processes=4", "pipeline.global_batch_size=4000000004")
    assert "micro_batch_size: 1" in said and "and more" in said and time.process_time() - began < 10


def test_accumulation_beside_a_global_batch_asks_for_nothing(project):
    pipeline = load_pipeline(project.yaml, ["gradient_accumulation_steps=3", "pipeline.global_batch_size=8"])
    notes = [note.message for note in pipeline.notes if note.path == "gradient_accumulation_steps"]
    assert notes == ["asks for nothing: pipeline.global_batch_size: 8 makes it 4"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tensor_parallel_size=2", "tensor_parallel_size"),
        ("dp_replicate_size=4", "The sizes must multiply to their number"),
        ("profiler_steps=2", "profiler_steps: a trace of one process"),
        ("auto_find_batch_size=true", "auto_find_batch_size: one process may run out"),
    ],
)
def test_what_is_not_proven_with_several_processes_is_refused(override, said, project):
    assert said in refused(project, TWO, override)
    load_pipeline(project.yaml, [override])


def test_on_a_machine_with_several_gpus_what_is_not_proven_is_trained_in_one_process(project, monkeypatch):
    monkeypatch.setattr("tunemill.pipelines.config.launcher_keys.gpu_count", lambda: 2)
    assert trained(project).ranks == 2
    several = load_pipeline(project.yaml, ["auto_find_batch_size=true"])
    note = next(note for note in several.notes if note.path == "pipeline.launcher")
    assert note.is_note and "though there are 2 GPUs: with 2 processes: auto_find" in note.message
    assert trained(project, "auto_find_batch_size=true").ranks == 1
    # Who has asked for them is told what stands against it, and another mistake is none of theirs.
    assert "one process may run out" in refused(
        project, "pipeline.launcher.kind=torchrun", "auto_find_batch_size=true"
    )
    assert "GPUs" not in refused(project, "learning_rate=fast", "auto_find_batch_size=true")


def test_keys_of_ddp_ask_for_nothing_in_one_process_alone(project):
    asked = ["ddp=true", "ddp_timeout=60", "ddp_broadcast_buffers=true", "dp_replicate_size=2"]
    alone = {note.path for note in load_pipeline(project.yaml, asked).notes}
    assert alone == {one.partition("=")[0] for one in asked}
    assert not load_pipeline(project.yaml, [TWO, *asked]).notes


def test_a_number_of_processes_asks_for_nothing_where_one_trains(project):
    (note,) = load_pipeline(
        project.yaml, ["pipeline.launcher.kind=python", "pipeline.launcher.processes=8"]
    ).notes
    assert (note.path, note.kind) == ("pipeline.launcher.processes", "idle")


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_there_is_none_of_is_refused(port, project):
    said = refused(project, f"pipeline.launcher={{processes: 1, nodes: 2, rendezvous: 'a:{port}'}}")
    assert "ports are numbered from 1 to 65535" in said


@pytest.mark.parametrize(
    ("files", "named", "count"),
    [
        ([], None, 0), (["nvidia0"], None, 1), (["nvidia0", "nvidia1", "nvidiactl"], None, 2), (["kfd"], None, 1),
        (["nvidia0", "nvidia1"], "1", 1), (["nvidia0", "nvidia1"], "0,1", 2), (["nvidia0"], "", 0),
        (["nvidia0"], "-1", 0), (["nvidia0", "nvidia1"], "GPU-4f, GPU-1e", 2),
    ],
)  # fmt: skip
def test_gpus_that_are_visible_are_counted(files, named, count, tmp_path, monkeypatch):
    for file in files:
        (tmp_path / file).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpu_count(tmp_path) == count


def test_options_of_launchers_are_keys(project):
    def asked(launcher=None, num_processes=None, behind=()):
        options = argparse.Namespace(
            cloud=None, launcher=launcher, num_processes=num_processes, launcher_arguments=list(behind)
        )
        return trained(project, *launcher_overrides(options)).ranks

    assert asked("torchrun", "2") == 2 and asked("python") == 1 and asked() == 1
    assert (
        asked("torchrun", behind=["--nproc_per_node=2"]) == 2 and asked(behind=["--num_processes", "3"]) == 3
    )
    with pytest.raises(SettingError, match=re.escape("-- --rdzv_id=1: of a launcher's own arguments only")):
        asked("torchrun", behind=["--rdzv_id=1"])
    with pytest.raises(ConfigError, match=r"launcher\.processes"):
        asked("torchrun", "many")


def test_how_long_a_process_may_hang_reaches_the_call(project):
    def call(*overrides):
        pipeline = load_pipeline(project.yaml, overrides)
        folders = dict.fromkeys(("data", "checkpoints", "logs"), "")
        bare = bodies.call_of(bodies.among_ranks, folders, "", processes=2)
        return spread_call(bare, pipeline.node("trained"), pipeline, "key")

    assert call(TWO).hangs_after == 20 and call(TWO, "pipeline.launcher.hangs_after=90").hangs_after == 90
    assert (
        trained(project, TWO, "pipeline.launcher.hangs_after=90").semantic()
        == trained(project, TWO).semantic()
    )
    assert "hangs_after" in refused(project, TWO, "pipeline.launcher.hangs_after=-1")


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ("{kind: ray, processes: 2, hangs_after: 9}", "Ray's workers"),
        ("{processes: 1, hangs_after: 9}", "one process"),
    ],
)
def test_it_is_noted_where_nobody_is_looked_at(project, launcher, said):
    notes = load_pipeline(project.yaml, [f"pipeline.launcher={launcher}"]).notes
    (note,) = (note for note in notes if note.path == "pipeline.launcher.hangs_after")
    assert said in note.message
