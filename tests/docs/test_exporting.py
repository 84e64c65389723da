"""docs/exporting.md: its YAML is valid, its command is accepted, and what it lists is what there is."""

import re
import shlex
from importlib.util import find_spec
from typing import get_args

from support.examples import ROOT, copy_examples

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.check_files import check_files
from tunemill.stages.models.exported_gguf.proof_logits_body import LARGEST_KL
from tunemill.stages.models.exports import KType, PlainType
from tunemill.stages.models.gguf_families import FAMILIES

PAGE = (ROOT / "docs" / "exporting.md").read_text()


def test_its_yaml_is_valid(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    folder = copy_examples(tmp_path) / "quickstart"
    text = (folder / "pipeline.yml").read_text()
    # What an adapter for llama.cpp cannot have.
    kept = re.sub(r"^(pipeline:\n(?:[ ].*\n)*|lora_modules_to_save:.*\n)", "", text, flags=re.M)
    (folder / "x.yml").write_text(f"{kept}\n{block}")
    problems = [one.message for one in check_files([folder / "x.yml"])[0].problems if not one.is_note]
    if find_spec("llmcompressor") is None:
        assert len(problems) == 1 and "llmcompressor, which is not installed" in problems.pop()
    assert not problems


def test_its_command_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(copy_examples(tmp_path).parent)
    (line,) = (line for line in PAGE.splitlines() if line.startswith(".venv/bin/tunemill run "))
    words = shlex.split(line)[2:]
    assert main(["plan", *words, "--state", str(tmp_path / "state")]) == 0


def test_every_type_and_family_is_on_it():
    types = {*get_args(PlainType), *get_args(KType)}
    assert set(re.findall(r"`((?:b?f\d\d|mxfp4|q\d_\w+))`", PAGE)) == types == LARGEST_KL.keys()
    named = re.search(r"^Models: (.*)\. `check`", PAGE, re.M)[1].replace("-", "").replace(" ", "")
    assert named.split(",") == [name.removesuffix("ForCausalLM") for name in FAMILIES]
