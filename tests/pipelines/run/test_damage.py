"""Damaged state: every small file of it may be garbage, and nothing but a recomputation comes of it."""

import shutil
import socket
import subprocess
import sys

import pytest
from support.project import make_project, nodes_in_state

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.materialize import Session, device
from tunemill.resources.folders import remove_tree
from tunemill.resources.launcher import in_this_process

GARBAGE = [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b'{"files": {"data/x": 1}}']


def write(path, contents):
    path.chmod(0o644)
    path.write_bytes(contents)


@pytest.mark.parametrize("contents", GARBAGE)
def test_a_damaged_ref_is_no_ref(project, contents):
    ref = project.state / "refs" / "pipeline" / "merged.json"
    write(ref, contents)
    assert nodes_in_state(project.plan(), "run") == set()
    assert main(["status", "--state", str(project.state)]) == 0
    assert main(["cache", "prune", "--dry-run", "--state", str(project.state)]) == 1
    project.run()
    assert main(["cache", "prune", "--dry-run", "--state", str(project.state)]) == 0


@pytest.mark.parametrize("contents", GARBAGE)
def test_a_damaged_manifest_is_a_miss(project, contents):
    folder = project.plan()["evaluation_data"].cached.folder
    write(folder / "manifest.json", contents)
    assert project.plan()["evaluation_data"].reasons == ("its manifest is damaged",)
    state = ["--state", str(project.state)]
    assert [main([*command, *state]) for command in (["status"], ["cache", "ls"], ["cache", "verify"])] == [
        1,
        0,
        1,
    ]
    assert nodes_in_state(project.run(), "computed") == {"evaluation_data"}


@pytest.mark.parametrize("contents", GARBAGE)
def test_a_damaged_key_document_explains_nothing(project, contents):
    write(project.plan()["trained"].cached.folder / "key.json", contents)
    (reason,) = project.plan("learning_rate=0.5")["trained"].reasons
    assert "nothing to compare with" in reason


def test_a_damaged_stat_cache_is_thrown_away(project):
    project.store.stat_cache.path.write_bytes(b"garbage" * 1000)
    assert nodes_in_state(project.plan(), "run") == set()


def test_a_failure_behind_a_result_is_told(project):
    """The lineage file of a cached artifact is garbage of the same size, and its node must be materialized."""
    published = project.plan()["tokenizer"].cached
    lineage = published.data / "tunemill_lineage.json"
    write(lineage, b"x" * lineage.stat().st_size)
    (project.state / "refs" / "pipeline" / "tokenizer.json").unlink()
    finished = project.run()
    assert finished["tokenizer"].state == "failed"
    assert finished["tokenizer"].message.startswith(f"{lineage} is damaged; `tunemill cache verify`")
    assert finished["tokenized_sums"].state == "skipped"


def test_a_source_that_changes_while_it_is_read_is_not_published(project):
    path = project.folder / "data" / "sums.jsonl"
    original = path.read_text()
    path.write_text(original.replace("2 + 3", "3 + 2"))

    def edit_then_launch(call, sink):
        path.write_text(original.replace("2 + 3", "1 + 4"))
        in_this_process(call, sink)

    finished = project.run(launch=edit_then_launch)
    assert finished["dataset_sums"].state == "failed"
    assert "changed while it was read; nothing was published" in finished["dataset_sums"].message


def test_an_adapter_is_no_base_model(project):
    other = make_project(project.folder / "other", state=project.state)
    other.edit(base_model="asset://pipeline/trained", reinit_weights=False, pipeline={"name": "other"})
    finished = other.run()
    assert "asset://pipeline/trained is of type Adapter" in finished["tokenizer"].message


def test_text_that_looks_like_markup_is_shown_as_it_is(project, capsys):
    assert main(["plan", str(project.yaml), "--state", str(project.state), "--tokens=['[/INST]']",
                 "--lora_modules_to_save=[lm_head]"]) == 0  # fmt: skip
    assert "[/INST]" in capsys.readouterr().out


HOLDER = """
import sys, time
from pathlib import Path
from tunemill.resources.lease import lease
with lease(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_gpu_stage_waits_for_the_gpu_and_a_dead_holder_does_not_keep_it(project):
    gpu = project.state / "devices" / f"gpu-{socket.gethostname()}-all.lease"
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(gpu)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    pipeline = load_pipeline(project.yaml)
    session, said = Session(pipeline, project.store), []

    def observe(event):
        said.append(event["message"])
        child.kill()
        child.wait()

    with device(session, pipeline.node("training_data"), observe):
        assert said == []
    with device(session, pipeline.node("trained"), observe):
        assert gpu.exists()
    assert said[0].startswith(f"for the GPU: waiting for process {child.pid} on ")
    assert not gpu.exists()


def loop(path):
    path.symlink_to(path.name)


def dangling_link(path):
    path.symlink_to("nowhere")


def a_file(path):
    path.write_text("x")


def a_folder(path):
    (path / "sub").mkdir(parents=True)


def deeply_nested(path):
    path.write_text("[" * 100_000)


def wrong_types(path):
    path.write_text('{"stage": 3, "key": [], "digest": null, "files": 3}')


PLACES = {
    "a ref": "refs/pipeline/merged.json",
    "a pipeline's refs": "refs/pipeline",
    "all refs": "refs",
    "all artifacts": "artifacts",
    "a stage's artifacts": "artifacts/sft",
    "an artifact": "artifacts/sft/{key}",
    "a manifest": "artifacts/sft/{key}/manifest.json",
    "a key document": "artifacts/sft/{key}/key.json",
    "data": "artifacts/sft/{key}/data",
    "a lineage": "artifacts/sft/{key}/data/tunemill_lineage.json",
    "the hashes of files": "stat_cache.sqlite",
    "what is being built": "building",
    "what was set aside": "set_aside",
    "the lock": "prune.lock",
    "the trash": "trash",
}
COMMANDS = [
    ["status"], ["cache", "ls"], ["cache", "verify"], ["cache", "prune", "--dry-run"], ["cache", "prune"],
    ["lineage", "pipeline/trained"], ["plan", "{yaml}"], ["plan", "{yaml}", "--learning_rate=0.7"],
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_damage_ends_in_a_traceback(finished_project, tmp_path, place, capsys):
    key = finished_project.plan()["trained"].cached.key
    for damage in (loop, dangling_link, a_file, a_folder, deeply_nested, wrong_types):
        folder = tmp_path / damage.__name__
        shutil.copytree(finished_project.folder, folder, symlinks=True)
        path = folder / ".tunemill" / PLACES[place].format(key=key)
        remove_tree(path)
        damage(path)
        for command in COMMANDS:
            given = [part.format(yaml=folder / "pipeline.yml") for part in command]
            assert main([*given, "--state", str(folder / ".tunemill")]) in (0, 1), (damage, command)
            assert "Traceback" not in "".join(capsys.readouterr())
        remove_tree(folder)
