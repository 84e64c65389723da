"""docs/report.md: its commands write the page, and its pictures are there and small."""

import re
import shlex

from support.examples import ROOT

from tunemill.pipelines.cli import main

PAGE = (ROOT / "docs" / "report.md").read_text()
LARGEST = 150_000


def test_its_commands_say_where_the_page_is(project, monkeypatch, capsys):
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [words[0] for words in commands] == ["run", "report"]
    monkeypatch.chdir(project.folder)
    for words in reversed(commands):
        # The finished project in the place of the example, which trains for minutes.
        words = ["pipeline.yml" if word.endswith("pipeline.yml") else word for word in words]
        assert main([*words, "--state", str(project.state)]) == 0
    assert "report: report.html" in capsys.readouterr().out
    assert (project.folder / "report.html").is_file()


def test_its_pictures_are_there_and_small():
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"!\[[^\]]*\]\((pictures/[^)]*)\)", page.read_text()):
            assert 10_000 < (ROOT / "docs" / name).stat().st_size < LARGEST, name
    assert len(list((ROOT / "docs").glob("pictures/*"))) <= 9
