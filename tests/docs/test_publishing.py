"""docs/publishing.md: its YAML is valid, and its commands are accepted."""

import re
import shlex

from support.examples import ROOT, copy_examples

from tunemill.pipelines.cli import make_parser
from tunemill.pipelines.graph.load import load_pipeline

PAGE = (ROOT / "docs" / "publishing.md").read_text()


def test_its_yaml_is_valid(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    folder = copy_examples(tmp_path) / "quickstart"
    (folder / "signing-key.pem").write_text("")
    text = re.sub(r"^pipeline:\n(?:[ ].*\n)*", "", (folder / "pipeline.yml").read_text(), flags=re.M)
    (folder / "x.yml").write_text(f"{text}\n{block}")
    pipeline = load_pipeline(folder / "x.yml")
    assert [target.place for target in pipeline.targets] == ["team/dates", str(folder / "given" / "dates")]
    assert pipeline.node("published").inputs["model"] == ("merged",)


def test_its_commands_are_accepted():
    lines = [line.split("#")[0] for line in PAGE.splitlines() if line.startswith(".venv/bin/tunemill ")]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)[1:]
        assert make_parser(words[:1]).parse_args(words).command
