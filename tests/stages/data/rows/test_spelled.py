"""Whatever is written into a YAML is read back from it."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunemill.pipelines.config.document import read_document
from tunemill.stages.data.rows.spelled import spelled, spelled_keys

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_value_is_read_back(value):
    assert yaml.safe_load(f"key: {spelled(value)}") == {"key": value}


@pytest.mark.parametrize(
    "text",
    ["yes", "No", "null", "~", "1", "1.5", ".5", "1e3", "0x1", ".inf", "", " a", "a b", "a: b", "a #b", "#", "- a",
     "[1]", "{a}", "'", '"', "&a", "*a", "!a", "%a", "@a", "`a", "2020-01-01", "12:30", "=", "<<", "é", "日本", "a\nb",
     "\x7f", "\x85", "\u2028", "\ufeff", "😀", "../a/b-c.jsonl", "./x", "a/b.jsonl", "null.jsonl", "true"],
)  # fmt: skip
def test_texts_that_yaml_would_take_for_something_else(tmp_path, text):
    """Read by our own reader, which differs from PyYAML in what numbers are."""
    path = tmp_path / "x.yml"
    path.write_text(f"base_model: {spelled(text)}\nmore: {{a: {spelled(text)}}}\n", encoding="utf-8")
    document = read_document(path, [])
    assert document.data == {"base_model": text, "more": {"a": text}} and not document.notes


def test_plain_names_are_not_quoted():
    for name in ("alpaca", "alpaca_chat.load_qa", "../data/rows-1.jsonl", "./a", "/abs/x", "field_1"):
        assert spelled(name) == name


def test_keys_in_a_sentence():
    assert spelled_keys({"type": "a"}) == "`type: a`"
    assert spelled_keys({"type": "a", "b": 1}) == "`type: a` with `b: 1`"
    assert (
        spelled_keys({"type": "a", "b": "x y", "c": {"d": [True]}})
        == '`type: a` with `b: "x y"` and `c: {d: [true]}`'
    )
    assert spelled_keys({"b": 1}) == "no `type` with `b: 1`" and spelled_keys({}) == "no `type`"
    assert spelled_keys({"type": "a", "b": 1, "c": 2, "d": 3}) == "`type: a` with `b: 1`, `c: 2` and `d: 3`"
