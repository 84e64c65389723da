"""A changed stage has a raised version, or somebody said that its results are the same."""

import ast
import shutil
from pathlib import Path

import pytest

from tunemill.pipelines.graph import fingerprint
from tunemill.stages.registry import METHODS

ROOT = Path(__file__).resolve().parents[3]


def test_every_fingerprint_is_recorded():
    now, recorded = fingerprint.current(), fingerprint.recorded()
    moved = sorted(name for name in {*now, *recorded} if now.get(name) != recorded.get(name))
    assert not moved, (
        f"the source of {moved} changed. If results change, raise `version` in the stage's stage.py; then, or if "
        f"results stay the same, run: python -m tunemill.pipelines.graph.fingerprint record {' '.join(moved)}"
    )


def test_comments_docstrings_and_formatting_do_not_move_a_fingerprint():
    plain = "def f(a, b):\n    return [a, b]\n"
    dressed = '"""Doc."""\n# why\ndef f(\n    a, b,\n):\n    """What."""\n    return [\n        a,  # why\n        b]\n'
    changed = "def f(a, b):\n    return [b, a]\n"

    def meaning(text):
        return fingerprint._meaning(ast.parse(text))

    assert meaning(plain) == meaning(dressed) != meaning(changed)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The fingerprints of a copy of the stages and kernels, which a test may edit."""
    for folder in ("stages", "kernels", "resources"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    monkeypatch.setattr(fingerprint, "STAGES_FOLDER", tmp_path / "stages")
    return tmp_path


def prints():
    return fingerprint.fingerprints(fingerprint.STAGES)


def moved(before):
    now = prints()
    return {name for name in now if now[name] != before[name]}


def test_a_copy_has_the_same_fingerprints(copied):
    assert copied == fingerprint.ROOT
    assert prints() == {name: entry["fingerprint"] for name, entry in fingerprint.recorded().items()}


@pytest.mark.parametrize(
    "reference",
    [
        "from tunemill.stages.faraway.deeper.helper import help",
        "from tunemill.stages.faraway.deeper import helper",
        "import tunemill.stages.faraway.deeper.helper",
        'HELPER = "tunemill.stages.faraway.deeper.helper"',
        'HELPER = "tunemill.stages.faraway.deeper.helper:help"',
        'HELPERS = "tunemill.stages.faraway.deeper."',
    ],
)
def test_an_edit_of_a_module_two_folders_away_moves_who_names_it(copied, reference):
    helper = copied / "stages" / "faraway" / "deeper" / "helper.py"
    helper.parent.mkdir(parents=True)
    helper.write_text("def help():\n    return 1\n")
    unnamed = prints()
    body = copied / "stages" / "evaluation" / "answers" / "body.py"
    body.write_text(f"{body.read_text()}\n\n{reference}\n")
    assert moved(unnamed) == {"evaluation"}
    before = prints()
    helper.write_text("def help():\n    return 2\n")
    assert moved(before) == {"evaluation"}


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("stages/training/orpo/loss.py", {"orpo"}),
        ("stages/training/sft/body.py", {"sft"}),
        ("stages/training/loop_body.py", set(METHODS)),
        ("stages/training/kernels/liger_body.py", set(METHODS)),
        ("kernels/functions/rope.py", set(METHODS)),
        ("stages/data/tokenized/formats/completion.py", {"tokenized"}),
        ("stages/data/synthetic/body.py", {"synthetic"}),
        ("stages/data/sources/split.py", {"dataset", "pretraining_data"}),
        ("stages/models/merged/fold_body.py", {"merged"}),
        ("stages/report.py", set()),
    ],
)
def test_an_edit_moves_the_stages_that_it_may_change_and_no_other(copied, file, stages):
    before = prints()
    path = copied / file
    path.write_text(f"{path.read_text()}\n\nNEW = 1\n")
    assert moved(before) == stages


def test_an_edit_of_a_chat_template_moves_the_stages_that_render_it(copied):
    before = prints()
    template = copied / "stages" / "data" / "conversations" / "templates" / "chatml.jinja"
    template.write_text(template.read_text() + " ")
    assert moved(before) == {"tokenizer", "tokenized", "preferences", "prompts"}


def test_no_stage_lies_inside_another():
    folders = [fingerprint.folder_of_body(stage) for stage in fingerprint.STAGES]
    assert len(set(folders)) == len(folders)
    assert not [(a, b) for a in folders for b in folders if a in b.parents]
