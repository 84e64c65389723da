"""docs/quantizing.md: its commands are accepted, and training for a type beats rounding to it afterwards."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.examples import ROOT, copy_examples

from tunemill.pipelines.cli import main

PAGE = (ROOT / "docs" / "quantizing.md").read_text()
COMMANDS = [
    shlex.split(line.split("#")[0])[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
]


def test_every_command_of_the_page_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) >= 3
    for words in COMMANDS:
        assert main(["plan", *words[1:], "--state", str(tmp_path / "state")]) == 0, words


@pytest.mark.slow
def test_training_for_int4_beats_rounding_to_it_afterwards(tmp_path: Path) -> None:
    """On rows that neither saw; both were trained on, from one model, over the same rows in the same order."""
    copy_examples(tmp_path)
    for_it, afterwards = (run(tmp_path, words) for words in COMMANDS[:2])
    qat, ptq = (nodes["evaluation_of_quantized"]["metrics"]["eval_loss"] for nodes in (for_it, afterwards))
    # Measured: .0359 and .0380. With the seed of the example: examples/qat/README.md has others, where it does not.
    assert qat < ptq, (qat, ptq)
    figures = for_it["quantized"]["metrics"]
    assert figures["max_abs_difference_to_training"] <= figures["max_abs_difference_to_training_bound"]
    assert figures["compared_tokens_held_out"] > 100
    for name in set(figures) - {"bytes_before", "bytes_after"}:
        assert re.search(r"kl|top1|share|max_abs|error|bound|quantized|bits|compared", name)


def run(folder: Path, words: list[str]) -> dict[str, Any]:
    """Nodes by name, of a command of the page."""
    command = [sys.executable, "-m", "tunemill.pipelines.cli", *words, "--json"]
    environment = {**os.environ, "TUNEMILL_HOME": str(folder / "state")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {node["node"]: node for node in json.loads(done.stdout)["nodes"]}
