"""What libyaml reads is what PyYAML's own parser reads, to the place of every value."""

import random
from pathlib import Path

import pytest

from tunemill.pipelines.config import yaml_fast, yaml_text
from tunemill.pipelines.config.document import read_document
from tunemill.pipelines.config.yaml_fast import usual_nodes
from tunemill.pipelines.config.yaml_values import in_file, values_of

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SEEDS = [
    (EXAMPLES / "quickstart" / "pipeline.yml").read_text()[:700] + "\n",
    "a:\n  b:\n    - c: 1\n      d: \"x\"\n    - [e, f]\n  g:\n",
    "q: {a: b, c: d} # why\nr: 'it''s'\n- - a\n",
]  # fmt: skip
PIECES = [*":-#?&*!|>'\"%@`{}[],\n \\ä\t", "<<: ", "---\n", "- ", "|\n  x\n", "{a: 1}"]
PIECES += ["[1, 2]", " # c\n", '"\\x41"', "\ufeff"]


def _values(text: str, nodes: object) -> object:
    found = [values_of(node, in_file(text)) for node in nodes]
    return [(one.data, one.keys, one.values, one.problems, one.notes, one.broken) for one in found]


def test_random_texts_are_read_alike(monkeypatch):
    drawn, read = random.Random(1), 0
    for _ in range(4000):
        text = drawn.choice(SEEDS)
        for _ in range(drawn.randint(0, 3)):
            at = drawn.randrange(len(text) + 1)
            text = text[:at] + drawn.choice(PIECES) + text[at + drawn.randint(0, 2) :]
        fast = usual_nodes(text)
        if fast is None:
            continue
        with monkeypatch.context() as patch:
            patch.setattr(yaml_text, "usual_nodes", lambda _: None)
            slow = list(yaml_text.nodes_of(text))
        assert _values(text, fast) == _values(text, slow), text
        read += 1
    assert read > 300


# Braces within quotes (a regular expression) are left to the other parser.
UNUSUAL = {"evaluations"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yml")), ids=lambda path: path.parent.name)
def test_the_examples_are_usual(path):
    assert (usual_nodes(path.read_text()) is None) is (path.parent.name in UNUSUAL)


@pytest.mark.parametrize("text", ["[" * 9000 + "\n", "- " * 8000 + "\n", "a: [" * 3000 + "\n", "a\n" * 9000])
def test_what_would_end_the_process_or_is_too_much_is_left_to_the_other_parser(text):
    assert usual_nodes(text) is None


def test_a_file_that_is_asked_twice_is_parsed_once(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("base_model: never-seen-before\n")
    before = usual_nodes.cache_info().misses
    first, second = read_document(path), read_document(path)
    assert usual_nodes.cache_info().misses == before + 1
    # What is done to one reading is not seen in the other.
    first.data["base_model"] = "other"
    assert second.data["base_model"] == "never-seen-before"
    assert yaml_fast.MOST_CHARACTERS // 2 <= yaml_text.MAX_VALUES


def test_many_comments_above_an_unusual_line_take_no_time():
    text = "# said\nkey: 1 # said\n" * 60 + 'token: "<|end|>" # said\nodd: &anchor 1\n'
    assert usual_nodes(text) is None
