"""Stored log-probabilities of a row in each way in which they are written, and what they are said of."""

import math

import numpy as np
import pytest

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.stored_logprobs.entries import candidates, places, taught_row

LABELS = np.array([-100, -100, 7, 8, 2, -100], np.int32)


def test_one_entry_for_each_token() -> None:
    assert list(places(6, LABELS)) == [2, 3, 4]


def test_one_entry_for_each_trained_token() -> None:
    assert list(places(3, LABELS)) == [0, 1, 2]
    # The first token of a row has a label and is predicted from nothing.
    assert list(places(2, np.array([5, -100, 6], np.int32))) == [1]


def test_entries_of_the_last_tokens() -> None:
    assert list(places(4, LABELS)) == [0, 1, 2]
    assert list(places(2, LABELS)) == [None, None, 0]


def test_more_entries_than_tokens_are_refused() -> None:
    with pytest.raises(BadRowError, match="7 entries of log-probabilities, and the row has 6 tokens"):
        list(places(7, LABELS))


@pytest.mark.parametrize(
    ("entry", "ids"),
    [
        ([{"token": "token_id:3", "logprob": -0.5}, {"token": "token_id:4", "logprob": -2}], None),
        ([{"token_id": 3, "logprob": -0.5, "token": "a"}, {"token_id": 4, "logprob": -2}], None),
        ({"3": {"logprob": -0.5, "rank": 1}, "4": {"logprob": -2.0}}, None),
        ({"3": -0.5, "4": -2.0, "5": -math.inf, "6": None, "7": -1e39, "8": -(10**400)}, None),
        ([-0.5, -2], [3, 4]),
    ],
)
def test_the_ways_to_write_an_entry(entry: object, ids: object) -> None:
    assert candidates(entry, ids, 10) == {3: -0.5, 4: -2.0}


@pytest.mark.parametrize("entry", [None, [], {}])
def test_an_entry_that_says_nothing(entry: object) -> None:
    assert candidates(entry, None, 10) == {}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ([{"token": "hello", "logprob": -1}], "'hello' is no id of a token"),
        ({"1" * 5000: -1}, "'1111.* is no id of a token"),
        ({"12": -1}, "of the token 12, and the tokenizer has 0 to 9"),
        ({"1": 0.5}, "0.5 is no log-probability"),
        ({"1": "x"}, "'x' is no log-probability"),
        ({"1": True}, "True is no log-probability"),
        ({"1": math.nan}, "nan is no log-probability"),
        ([-1.0], "beside plain numbers the field 'target_token_ids' has as many token ids"),
        (["x", {}], "log-probabilities without tokens"),
        (3, "3 says of no tokens how likely they are"),
    ],
)
def test_what_is_none_is_refused(entry: object, said: str) -> None:
    with pytest.raises(BadRowError, match=said):
        candidates(entry, None, 10)


def test_a_row_in_the_order_of_its_tokens_the_likeliest_first() -> None:
    row = {"said": [{"1": -2.0, "3": -0.25}, {}, {"2": -0.5}]}
    found = taught_row(row, 5, "said", LABELS, 10, temperature=2.0)
    assert (found.row, found.positions.tolist(), found.counts.tolist()) == (5, [2, 3, 4], [2, 0, 1])
    assert found.token_ids.tolist() == [3, 1, 2]
    # Times the temperature that they were computed at.
    assert found.log_p.tolist() == [-0.5, -4.0, -1.0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"other": 1}, "no list of log-probabilities in field 'said'; the row has"),
        ({"said": "x"}, "it is 'x'"),
        ({"said": [{}, {}, {}]}, "has nothing for any of the 3 tokens that are trained"),
    ],
)
def test_a_row_without_is_refused(row: dict[str, object], said: str) -> None:
    with pytest.raises(BadRowError, match=said):
        taught_row(row, 1, "said", LABELS, 10, 1.0)
