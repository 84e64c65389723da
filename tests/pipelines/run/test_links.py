"""Links to results: nothing of the user's is replaced, and a result without its link is a result."""

import pytest

from tunemill.pipelines.cli import main


def a_file(place):
    place.write_text("mine")
    return place


def an_empty_folder(place):
    place.mkdir()
    return place


def a_folder(place):
    place.mkdir()
    return a_file(place / "file")


def a_link_to_a_folder(place):
    (place.parent / "of the user").mkdir()
    place.symlink_to("of the user")
    return place


def a_link_to_nowhere(place):
    place.symlink_to("nowhere/data")
    return place


def state_of(path):
    return (path.is_symlink() and path.readlink(), path.is_dir(), path.is_file() and path.read_text())


@pytest.mark.parametrize("thing", [a_file, an_empty_folder, a_folder, a_link_to_a_folder, a_link_to_nowhere])
@pytest.mark.parametrize("refresh", [[], ["merged"]], ids=["cached", "computed"])
def test_what_the_user_has_there_stays(project, thing, refresh):
    folder = project.folder / "elsewhere"
    folder.mkdir()
    kept = thing(folder / "merged")
    before = state_of(kept)
    finished = project.run("output_dir=elsewhere", refresh=refresh)
    assert {item.state for item in finished.values()} <= {"cached", "computed"}
    assert state_of(kept) == before
    merged = finished["merged"]
    assert "elsewhere/merged: no link could be put there" in merged.note
    assert merged.note.endswith(f"The result itself is in {merged.published.data}")
    assert (folder / "quantized").readlink() == finished["quantized"].published.data
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("output_dir", "reason"), [("a_file", "Not a directory|File exists"), ("a_file/in", "Not a directory")]
)
def test_a_result_without_its_link_is_a_result(project, output_dir, reason, capsys):
    (project.folder / "a_file").write_text("mine")
    command = ["run", str(project.yaml), f"--output_dir={output_dir}", "--state", str(project.state)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"{output_dir}/merged: no link could be put there (" in said.err
    assert any(words in said.err for words in reason.split("|"))
    assert (project.folder / "a_file").read_text() == "mine"


def test_a_link_of_ours_follows_the_result(project):
    link = project.folder / "outputs" / "trained"
    before = link.readlink()
    trained = project.run("learning_rate=0.002")["trained"]
    assert link.readlink() == trained.published.data != before
    link.unlink()
    link.symlink_to(f"/another/store/artifacts/sft/{'0' * 64}/data")
    assert project.run("learning_rate=0.002")["trained"].note is None
    assert link.readlink() == trained.published.data
