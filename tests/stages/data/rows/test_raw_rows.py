"""Rows of a dataset are read back as `json` reads them."""

import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.rows import run_stage

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.rows.nulls import without_nulls
from tunemill.stages.data.rows.raw_rows import raw_batches
from tunemill.stages.data.sources.json_exactly import values_of
from tunemill.stages.errors import RowPlace

TEXT = st.text(max_size=5)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
INNER = st.lists(PLAIN, max_size=3) | st.dictionaries(TEXT, PLAIN, max_size=3)
ROWS = st.dictionaries(TEXT, PLAIN | INNER | st.lists(INNER, max_size=2), max_size=3)


def same(one, other):
    """Whether two values are equal and of the same types, which 1, 1.0 and True are not."""
    return repr(one) == repr(other)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, max_size=4))
def test_values_are_those_of_json(rows):
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    assert same(values_of(texts), rows)


@pytest.mark.parametrize(
    "number",
    [
        *(2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**18, 10**400, 0, -1),
        *(1e18, 1e19, -1e19, 1e300, 5e-324, -0.0, 0.1, 1e16, 1e-5, 1.7976931348623157e308),
    ],
)
def test_numbers_are_those_of_json(number):
    for value in ({"a": number}, {"a": [{"b": [number]}]}, {"a": [0.5, {"b": 1}], "c": number}):
        assert same(values_of([json.dumps({"x": 1}), json.dumps(value)]), [{"x": 1}, value])


def test_rows_come_back_with_their_places(tmp_path):
    deep = {"a": json.loads("[" * 250 + "]" * 250)}
    rows = [{"a": 1, "b": None}, {"a": "null"}, {"a": [{"b": None, "c": 2**70}]}, deep, {"a": 0.1}]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n\n".join(map(json.dumps, rows)))
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "out")
    (found,) = raw_batches(dataset.rows, "rows.jsonl")
    assert same([row.value for row in found], [without_nulls(row) for row in rows])
    assert [json.loads(row.text) for row in found] == rows
    assert [row.number for row in found] == [1, 2, 3, 4, 5]
    assert [row.place for row in found] == [RowPlace("rows.jsonl", "line", line) for line in (1, 3, 5, 7, 9)]


def test_what_only_json_reads_is_read(tmp_path):
    """A dataset that something else has written."""
    texts = ['{"a":NaN}', '{"b":"\\ud800"}']
    batch = pa.record_batch([texts, [1, 2], ["", ""]], names=["row", "line", "file"])
    with pa.ipc.new_file(str(tmp_path / "rows.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    (found,) = raw_batches(tmp_path / "rows.arrow", "name")
    assert same([row.value for row in found], list(map(json.loads, texts)))
