"""Keys: one spelling, and nothing foreign gets in."""

from pathlib import Path

import pytest

from tunemill.resources.canonical import canonical_json, hash_document, hash_listing


def test_order_of_names_does_not_matter():
    assert hash_document({"a": 1, "b": {"c": 2, "d": 3}}) == hash_document({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": ["x", "y"]}, {"a": ["xy"]}),
        ({"a": ["1", "23"]}, {"a": ["12", "3"]}),
        ({"a": "b", "c": "d"}, {"a": "bc", "d": ""}),
        ({"ä": 1}, {"a": 1}),
    ],
)
def test_different_documents_have_different_keys(one, other):
    assert hash_document(one) != hash_document(other)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Path("x"), r"\$\.a\[0\]: a PosixPath cannot enter a key"),
        ((1, 2), r"a tuple cannot enter a key"),
        ({1, 2}, r"a set cannot enter a key"),
        (float("nan"), r"not finite"),
        (float("inf"), r"not finite"),
        (b"x", r"a bytes cannot enter a key"),
        ({1: 2}, r"the name 1 cannot enter a key"),
    ],
)
def test_foreign_types_are_refused_with_their_place(value, message):
    with pytest.raises(TypeError, match=message):
        hash_document({"a": [value]})


def test_the_key_of_a_document_never_changes():
    # A golden value: if this moves, every store in the world becomes cold. Raise SCHEMA on purpose instead.
    document = {
        "schema": 1,
        "stage": "x",
        "config": {"learning_rate": 2e-4, "text": "ü", "flag": True, "none": None},
    }
    assert canonical_json(document) == (
        '{"config":{"flag":true,"learning_rate":0.0002,"none":null,"text":"\\u00fc"},"schema":1,"stage":"x"}'
    )
    assert hash_document(document) == "ec74ccbe6f525cd6113ca7058aec40f879650d595c13152b9237070bf7820f94"


def test_a_listing_depends_on_names_and_contents():
    assert hash_listing({"a": "1", "b": "2"}) != hash_listing({"a": "2", "b": "1"})
    assert hash_listing({"a": "1"}) != hash_listing({"b": "1"})
