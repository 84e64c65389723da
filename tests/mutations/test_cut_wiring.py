"""The cutter finds what a key steers; and (slow) each cut of a key of training is noticed by the key's cases."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutations.cut_wiring import ROOT, cut, defaults, reads_of, training_sources

from tunemill.stages.registry import STAGES

SCRIPT = Path(__file__).with_name("cut_wiring.py")
KEYS = """
class BatchKeys(StageConfig):
    seed: int = Field(42, description="é")
    size: Runtime[int | None] = Field(None)

    @property
    def seeds(self):
        return [self.seed, "é", self.seed]

    @model_validator(mode="after")
    def _check(self):
        return self.seed > 1

    def idle(self):
        yield self.size
"""
BODY = "def body(config, other):\n    use('é', config.seed, other.seed)\n    config.seed = other.size\n"
SOURCES = {"stages/training/keys/batches.py": KEYS, "stages/training/body.py": BODY}

VALIDATED, NAME = re.compile(r"@field_validator\(([^)]*)\)"), re.compile(r'"(\w+)"')


def test_reads_and_defaults_are_found() -> None:
    assert defaults(SOURCES) == {"seed": "42", "size": "None"}
    reads = reads_of(SOURCES)
    assert [read.source for read in reads["seed"].wiring] == ["self.seed", "self.seed", "config.seed"]
    assert [read.text for read in reads["seed"].checks] == ["return self.seed > 1"]
    assert not reads["size"].wiring
    assert [read.text for read in reads["size"].checks] == ["yield self.size"]


def test_a_cut_changes_nothing_but_the_reads() -> None:
    reads = reads_of(SOURCES)["seed"].wiring
    body = [read for read in reads if read.file.endswith("body.py")]
    assert cut(BODY, body, "42") == BODY.replace("'é', config.seed", "'é', (42)")
    keys = [read for read in reads if read.file.endswith("batches.py")]
    assert cut(KEYS, keys, "42") == KEYS.replace('[self.seed, "é", self.seed]', '[(42), "é", (42)]')


def test_every_key_of_training_has_a_default_and_a_read() -> None:
    sources = training_sources(ROOT)
    assert set(defaults(sources)) == {
        name
        for stage in STAGES
        for kind in stage.config.__mro__
        # What online learning reads is not cut: a training of it takes too long for hundreds of cuts.
        if ".stages.training." in f"{kind.__module__}." and ".training.online." not in kind.__module__
        for name in stage.config.model_fields.keys() & vars(kind).get("__annotations__", {}).keys()
    }
    for default in defaults(sources).values():
        ast.literal_eval(default)
    # Of a key that has no right value but off, its validator is the only reader.
    refused = {
        name for text in sources.values() for found in VALIDATED.findall(text) for name in NAME.findall(found)
    }
    for key, reads in reads_of(sources).items():
        assert reads.wiring or reads.checks or key in refused, f"{key}: nothing reads it"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--each-read"]], ids=["keys", "reads"])
def test_every_cut_is_noticed(arguments: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = subprocess.run(
        [sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, f"{found.stdout[-6000:]}\n{found.stderr[-2000:]}"
