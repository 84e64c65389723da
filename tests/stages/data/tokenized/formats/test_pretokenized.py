"""Rows that are tokens already."""

import pytest
from support.formats import FormatBench

from tunemill.stages.data.conversations.example import BadRowError


@pytest.fixture(scope="module")
def bench():
    return FormatBench("chatml")


def test_taken_as_they_are(bench):
    rows = [
        {"input_ids": [271, 299, 99], "attention_mask": [1, 1, 1], "labels": [271, -100, 99]},
        {"input_ids": [5, 6], "text": "unused"},
        {"input_ids": [5, 6, 1], "attention_mask": [1, 1, 0]},
    ]
    samples = bench.samples(rows)
    assert [sample.ids for sample in samples] == [[271, 299, 99], [5, 6], [5, 6, 1]]
    assert [sample.labels for sample in samples] == [[271, -100, 99], [5, 6], [5, 6, -100]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "Hi"}, r"no field 'input_ids'; the row has \['text'\]\. Without type: rows must be tokens"),
        ({"input_ids": []}, "'input_ids' is empty"),
        ({"input_ids": "5 6"}, "'input_ids' must be a list of integers, not '5 6'"),
        ({"input_ids": [5, 6.0]}, "has 6.0"),
        ({"input_ids": [5, True]}, "has True"),
        ({"input_ids": [5, None]}, "has None"),
        ({"input_ids": [5, 4000]}, "input_ids: 4000 is no token: the tokenizer's are 0 to 3999"),
        ({"input_ids": [-100, 5]}, "input_ids: -100 is no token"),
        ({"input_ids": [5, 6], "labels": [5]}, "2 input_ids and 1 labels"),
        (
            {"input_ids": [5, 6], "labels": [5, -1]},
            "labels: -1 is no token: the tokenizer's are 0 to 3999 or -100",
        ),
        ({"input_ids": [5, 6], "labels": None}, "'labels' must be a list"),
        ({"input_ids": [5, 6], "attention_mask": [1]}, "2 input_ids and 1 attention_mask"),
        ({"input_ids": [5, 6], "attention_mask": [1, 2]}, "must be a list of 0 and 1"),
        ({"input_ids": [5, 6], "attention_mask": [0, 1]}, "hides tokens that others follow"),
        ({"input_ids": [5, 6], "attention_mask": [1, 0], "labels": [5, 6]}, "its label must be -100"),
    ],
)
def test_bad_rows(bench, row, reason):
    with pytest.raises(BadRowError, match=reason):
        bench.format().read(row)
