"""Follow docs/adding-a-template.md literally, in a copy of the project."""

import pytest
from support.project import make_project

pytestmark = pytest.mark.slow
PAGE = "adding-a-template.md"
SUMS = {"datasets": [{"path": "data/sums.jsonl", "type": "chat_template"}], "test_datasets": None}


def test_rows_are_rendered_and_masked_by_the_new_template(copy, tmp_path):
    project = make_project(tmp_path / "it", **SUMS, chat_template="zephyr", eval_max_new_tokens=None)
    notes, prepared = copy.tunemill(project, "check", "preprocess --debug")
    assert notes == []
    row = prepared["examples"][1]
    texts = [(piece["trained"], "".join(piece["tokens"])) for piece in row["pieces"]]
    assert "".join(text for _, text in texts) == "<|user|>\n0 + 1<|im_end|>\n<|assistant|>\n1<|im_end|>\n"
    assert [text for trained, text in texts if trained] == ["1<|im_end|>"]


def test_a_wrong_name_is_told_the_new_one(copy, tmp_path):
    project = make_project(tmp_path / "it", **SUMS, chat_template="zefyr", eval_max_new_tokens=None)
    assert '"suggestion": "zephyr"' in copy.refused(project)
