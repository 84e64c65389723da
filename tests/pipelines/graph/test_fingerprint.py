"""A changed stage has a raised version, or somebody said that its results are the same."""

import ast

from tunemill.pipelines.graph.nodes import fingerprint


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


def test_a_helper_that_a_stage_imports_is_part_of_its_fingerprint():
    stage = next(stage for stage in fingerprint.STAGES if stage.name == "evaluation")
    body = fingerprint.STAGES_FOLDER / "evaluation" / "body.py"
    assert list(fingerprint._imports(body)), "the body imports helpers"
    assert fingerprint.fingerprint(stage) == fingerprint.fingerprint(stage)
