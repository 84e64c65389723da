"""`tunemill logs`: which log of a node is shown, how it is named, followed and cut, and what is said of damage."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from support.terminal import run_in_terminal

from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.log_text import BLOCK, start_of_end
from tunemill.resources.building import END_FILE
from tunemill.resources.canonical import hash_document
from tunemill.resources.folders import remove_tree
from tunemill.resources.launcher import in_child, in_this_process
from tunemill.resources.refs import Ref
from tunemill.resources.store import KEY_PARTS, Store

CLI = [sys.executable, "-m", "tunemill.pipelines.cli"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state")


@pytest.fixture
def ask(store, tmp_path, capfdbinary, monkeypatch):
    """Arguments -> stdout as bytes, stderr as text."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0, state=store.root):
        capfdbinary.readouterr()
        assert main(["logs", *arguments, "--state", str(state)]) == code
        said = capfdbinary.readouterr()
        assert b"Traceback" not in said.err
        return said.out, said.err.decode()

    return call


def document(name):
    return {part: {} for part in KEY_PARTS} | {"stage": "sft", "version": name}


def computed(store, text, node="p/trained", name="1", started="2026-01-02T03:04:05+00:00"):
    """Publish an artifact with this log, None for no log, and point the node to it; its folder."""
    pipeline, _, node_name = node.partition("/")
    facts = {"pipeline": pipeline, "node": node_name, "inputs": {}, "metrics": {}, "started": started}
    key = hash_document(document(name))
    with store.building("sft", key, print, (), node) as building:
        if text is not None:
            (building.logs / "output.log").write_bytes(text)
        ready = store.prepare(building, document(name), {**facts, "seconds": 55.0}, lambda _: {})
        published = store.publish(building, ready)
        store.refs.write(pipeline, node_name, Ref("sft", key, published.digest))
    return published.folder


def tried(store, text, error=ValueError, node="p/trained", name="2"):
    """An attempt that ends with an error; its folder."""
    with (
        pytest.raises(error),
        store.building("sft", hash_document(document(name)), print, (), node) as building,
    ):
        (building.logs / "output.log").write_bytes(text)
        raise error
    return building.folder


def test_the_log_of_the_artifact_is_shown_and_named(store, ask):
    folder = computed(store, b"step 1\nstep 2\n")
    for name in ("trained", "p/trained", "asset://p/trained"):
        assert ask(name) == (
            b"step 1\nstep 2\n",
            "the log of p/trained: the artifact computed at 2026-01-02T03:05:00+00:00\n",
        )
    assert ask("trained", "--path") == (f"{folder}/logs/output.log\n".encode(), "")


def test_a_yaml_and_a_node(store, ask, tmp_path):
    computed(store, b"hello\n", node="named/trained")
    computed(store, b"another\n", node="other/trained", name="2")
    (tmp_path / "x.yml").write_text("base_model: model\nunknown_key: 1\npipeline: {name: named}\n")
    (tmp_path / "other.yml").write_text("base_model: model\n")
    assert ask("x.yml", "trained")[0] == b"hello\n"
    assert ask("other.yml", "trained")[0] == b"another\n"
    assert "did you mean named/trained?" in ask("x.yml", "traind", code=1)[1]
    assert "2 pipelines have such a node" in ask("trained", code=1)[1]
    assert "name one of its nodes: other/trained" in ask("other", code=1)[1]
    (tmp_path / "broken.yml").write_text("base_model: [\n")
    assert "broken.yml:" in ask("broken.yml", "trained", code=1)[1]
    assert "gone.yml" in ask("gone.yml", "trained", code=1)[1]
    assert "name a node of the pipeline" in ask("x.yml", code=1)[1]
    assert "name one node" in ask("x.yml", "a", "b", code=1)[1]


@pytest.mark.parametrize(
    ("error", "words"), [(ValueError, "that failed at"), (KeyboardInterrupt, "that was interrupted at")]
)
def test_an_attempt_since_then_comes_first(store, ask, error, words):
    computed(store, b"the artifact's\n")
    folder = tried(store, b"the attempt's\n", error)
    out, said = ask("trained")
    now = datetime.now(UTC).isoformat()[:15]
    assert out == b"the attempt's\n" and f"an attempt {words} {now}" in said
    assert ask("trained", "--path")[0].decode() == f"{folder}/logs/output.log\n"
    # Once the node has an artifact again, the attempt is no news.
    computed(store, b"the new one's\n", name="3")
    assert ask("trained")[0] == b"the new one's\n"


def test_a_first_attempt_is_found_and_its_node_is_named(store, ask):
    assert "nothing has been computed" in ask("trained", code=1)[1]
    tried(store, b"half\n")
    assert ask("trained")[0] == b"half\n"
    assert "did you mean p/trained?" in ask("p/traned", code=1)[1]


def test_an_attempt_that_was_killed_is_found(store, ask):
    folder = tried(store, b"half\n")
    (folder / END_FILE).unlink()
    assert "an attempt that broke off at 20" in ask("trained")[1]


def test_the_list_has_every_log_of_the_node(store, ask):
    first = computed(store, b"1\n", name="1")
    store.set_aside("sft", first.name)
    second = computed(store, b"22\n", name="1", started="2026-01-03T00:00:00+00:00")
    third = computed(store, None, name="3", started="2026-01-04T00:00:00+00:00")
    attempted = tried(store, b"4444\n")
    computed(store, b"not mine\n", node="p/merged", name="5")
    lines = ask("trained", "--list")[0].decode().splitlines()
    words = [line.split()[:5] for line in lines[1:]]
    assert [line[0] for line in words] == ["failed", "computed", "computed", "set"]
    assert words[0][2:] == ["5", "B", f"{attempted}/logs/output.log"] and words[1][2:4] == ["no", "log"]
    assert words[2][1:] == ["2026-01-03T00:00:55+00:00", "3", "B", f"{second}/logs/output.log"]
    assert f"{third}/logs/output.log" in lines[2] and "not mine" not in "".join(lines)


@pytest.mark.parametrize("text", [b"", None])
def test_an_empty_log_is_said_to_be_empty(store, ask, text):
    computed(store, text)
    out, said = ask("trained")
    assert out == b"" and ("it is empty" if text is not None else "its stage wrote none") in said
    out, said = ask("trained", "--follow")
    assert "nothing runs, so there is nothing to follow" in said
    assert bool(ask("trained", "--path", code=int(text is None))[0]) == (text is not None)


def lines_of(text, count):
    return text[start_of_end(io.BytesIO(text), count) :]


def test_the_last_lines(store, ask):
    computed(store, b"1\n2\n3\n4")
    assert ask("trained", "-n", "2")[0] == b"3\n4"
    assert ask("trained", "--lines", "9")[0] == b"1\n2\n3\n4"
    out, said = ask("trained", "-n0")
    assert out == b"" and "empty" not in said
    for wrong in ("-1", "x", "1.5", "²"):
        with pytest.raises(SystemExit):
            ask("trained", f"-n={wrong}")


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        (b"1\n2\n3\n", 2, b"2\n3\n"),
        (b"1\r\n2\r\n3\r\n", 2, b"2\r\n3\r\n"),
        (b"1\r2\r3\r", 1, b"3\r"),
        (b"1\n\n\n", 2, b"\n\n"),
        (b"\n", 1, b"\n"),
        (b"", 3, b""),
        (b"one", 1, b"one"),
    ],
)
def test_where_the_last_lines_begin(text, count, expected):
    assert lines_of(text, count) == expected


def test_line_ends_on_the_edge_of_a_block():
    for shift in range(4):
        text = b"a\r\n" + b"x" * (BLOCK - 3 + shift) + b"\r\n"
        assert lines_of(text, 1) == text[3:] and lines_of(text, 2) == text
        text = b"a\n" + b"x" * (BLOCK - 3 + shift) + b"\r" + b"y" * (BLOCK - 1)
        assert lines_of(text, 1) == b"y" * (BLOCK - 1) and lines_of(text, 2) == text[2:]


def test_of_a_huge_log_only_the_end_is_read(store, ask):
    folder = computed(store, b"") / "logs" / "output.log"
    folder.chmod(0o644)
    with folder.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    started = time.monotonic()
    assert ask("trained", "-n", "1")[0] == b"the end\n"
    assert time.monotonic() - started < 2


def test_a_pipe_gets_the_bytes_and_a_terminal_what_can_be_shown(store, ask, tmp_path):
    text = "\x1b]0;title\x07\x1b[31mred\tgr\u00fc\u00df 10%\r20%\r\nlatin ".encode() + b"\xfc\x00\n"
    computed(store, text)
    assert ask("trained")[0] == text
    command = [*CLI, "logs", "trained", "--state", str(store.root)]
    shown = run_in_terminal(command, tmp_path)
    drawn = "".join(piece for _, piece in shown.pieces)
    assert shown.returncode == 0 and "\x1b" not in drawn and "\x07" not in drawn
    lines = drawn.replace("\r\n", "\n").splitlines()[1:]
    assert lines == ["\\x1b]0;title\\x07\\x1b[31mred\tgr\u00fc\u00df 10%", "20%", "latin \\xfc\\x00"]


def test_a_reader_that_has_seen_enough(store, tmp_path):
    computed(store, b"line\n" * 200_000)
    command = [*CLI, "logs", "trained", "--state", str(store.root)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait(30) == 128 + signal.SIGPIPE and said.count("\n") == 1


class Follower:
    """`tunemill logs trained --follow` in a process of its own."""

    def __init__(self, store, *options):
        command = [*CLI, "logs", "trained", "--follow", *options, "--state", str(store.root)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.out = b""

    def wait_for(self, text):
        deadline = time.monotonic() + 20
        while text not in self.out:
            assert time.monotonic() < deadline and self.process.poll() is None, self.process.communicate()
            self.out += self.process.stdout.read() or b""
            time.sleep(0.02)

    def end(self):
        os.set_blocking(self.process.stdout.fileno(), True)
        out, said = self.process.communicate(timeout=20)
        return self.out + out, said.decode(), self.process.returncode


def test_following_an_attempt_till_it_is_an_artifact(store):
    key = hash_document(document("1"))
    with (
        store.building("sft", key, print, (), "p/trained") as building,
        (building.logs / "output.log").open("ab", 0) as log,
    ):
        follower = Follower(store, "-n", "1")
        log.write(b"1\n2\n")
        follower.wait_for(b"2\n")
        log.write(b"3\n")
        follower.wait_for(b"3\n")
        log.write(b"last\n")
        facts = {"inputs": {}, "pipeline": "p", "node": "trained", "started": "2026-01-02T03:04:05+00:00"}
        store.publish(building, store.prepare(building, document("1"), facts, lambda _: {}))
    out, said, code = follower.end()
    assert out.endswith(b"2\n3\nlast\n") and code == 0
    assert "an attempt that runs since" in said
    assert "this was the log of p/trained: the artifact computed at 2026-01-02" in said


def test_following_an_attempt_that_has_no_log_yet_till_it_fails(store):
    key = hash_document(document("1"))
    with pytest.raises(ValueError), store.building("sft", key, print, (), "p/trained") as building:
        follower = Follower(store)
        time.sleep(1.5)
        assert follower.process.poll() is None
        (building.logs / "output.log").write_bytes(b"late\n")
        follower.wait_for(b"late\n")
        raise ValueError
    out, said, code = follower.end()
    assert (
        out == b"late\n" and code == 0 and "this was the log of p/trained: an attempt that failed at" in said
    )


def test_ctrl_c_ends_following_quietly(store):
    with store.building("sft", hash_document(document("1")), print, (), "p/trained") as building:
        (building.logs / "output.log").write_bytes(b"on and on\n")
        follower = Follower(store)
        follower.wait_for(b"on and on\n")
        follower.process.send_signal(signal.SIGINT)
        _, said, code = follower.end()
    assert code == 130 and said.count("\n") == 1 and "Traceback" not in said


def test_damage_is_told(store, ask):
    folder = computed(store, b"hello\n")
    folder.chmod(0o755)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text("[]")
    assert ask("trained")[0] == b"hello\n"
    logs = folder / "logs"
    logs.chmod(0o755)
    (logs / "output.log").unlink()
    os.mkfifo(logs / "output.log")
    assert "is no regular file" in ask("trained", code=1)[1]
    assert "computed" in ask("trained", "--list")[0].decode()
    (logs / "output.log").unlink()
    (logs / "output.log").symlink_to("output.log")
    assert "output.log" in ask("trained", code=1)[1]
    assert "computed" in ask("trained", "--list")[0].decode()
    remove_tree(folder)
    assert "it is gone from the store" in ask("trained", code=1)[1]
    remove_tree(store.root / "building")
    (store.root / "building").write_text("no folder")
    assert "gone" in ask("trained", code=1)[1]


def test_the_log_of_what_only_the_team_has_is_brought(store, ask, tmp_path):
    """And where it was set aside, that one is shown, and named so."""
    folder = computed(store, b"here\n")
    (tmp_path / "team").mkdir()
    team = (tmp_path / "team").as_uri()
    published = store.lookup("sft", folder.name)
    store.before(team).share(published, print)
    remove_tree(folder)
    assert ask("trained", "--store", team)[0] == b"here\n"
    store.set_aside("sft", folder.name)
    out, said = ask("trained", "--store", "off")
    assert out == b"here\n" and "an artifact that was set aside, computed at 2026" in said
    assert "set_aside" in ask("trained", "--store", "off", "--path")[0].decode()


def test_damaged_notes_of_an_attempt_hide_no_log(store, ask):
    computed(store, b"old\n", name="2")
    folder = tried(store, b"new\n")
    for text in (
        "[]",
        "{",
        '{"node": 1, "started": "x"}',
        '{"how": 3, "at": -1}',
        '{"how": "failed", "at": 1e99}',
    ):
        (folder / "node.json").write_text(text)
        (folder / END_FILE).write_text(text)
        assert ask("trained")[0] == b"new\n"
        assert "new" not in ask("trained", "--list")[1]


def test_a_path_and_a_digest_of_a_result(project, ask):
    ref = project.store.refs.read("pipeline", "merged")
    said = {
        ask(str(what), state=project.state, code=0)[1]
        for what in ("merged", ref.digest[:12], project.folder / "outputs" / "merged")
    }
    assert len(said) == 1 and "pipeline/merged has no log" not in said
    assert "pipeline/merged: the artifact computed at" in said.pop()
    shutil.copytree(project.store.folder(ref.stage, ref.key) / "data", project.folder / "copy")
    assert "stayed where it was computed" in ask(str(project.folder / "copy"), code=1)[1]


def test_a_run_that_crashes_names_the_command_that_shows_its_log(fresh_project, ask):
    project = fresh_project
    code = "import os\n\ndef crash(row):\n    print('about to crash', flush=True)\n    os._exit(7)\n"
    (project.folder / "shaping.py").write_text(code)
    project.edit(datasets=[{"path": "data/sums.jsonl", "type": "shaping.crash"}], test_datasets=None)

    def launch(call, sink):
        (in_child if "tokenized" in call.body else in_this_process)(call, sink)

    finished = project.run(launch=launch)
    (failed,) = [item for item in finished.values() if item.state == "failed"]
    command = f"tunemill logs pipeline/{failed.node} --state {project.state}"
    assert failed.message.endswith(f"\nthe whole log: {command}") and "exit code 7" in failed.message
    out, said = ask(*command.split()[2:3], state=project.state)
    assert b"about to crash" in out and f"pipeline/{failed.node}: an attempt that failed at" in said
