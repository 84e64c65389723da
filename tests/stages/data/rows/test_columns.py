"""Columns are those of `pyarrow.array`, to the byte, and are made and read without pandas."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tunemill.stages.data.rows.columns import column, list_column, numbers_of

INTS, TEXTS = pa.list_(pa.int32()), pa.list_(pa.string())
CASES = [
    ([1, -2, 3], pa.int32()),
    ((1, 2**40), pa.int64()),
    (range(3), pa.int64()),
    ([], pa.int64()),
    ([True, False, True, True, False, False, True, False, True], pa.bool_()),
    ([], pa.bool_()),
    (["a", "", "é\n👩‍👩‍👧", "x" * 1000], pa.string()),
    ([], pa.string()),
    ([[1, 2], [], [3]], INTS),
    ([[], []], INTS),
    ([], INTS),
    ([np.array([1, 2], np.int32), np.array([], np.int32)], INTS),
    ([["user", "assistant"], [], ["é"]], TEXTS),
]


def written(array):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema([("x", array.type)])) as writer:
        writer.write_batch(pa.record_batch([array], names=["x"]))
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(("values", "kind"), CASES)
def test_columns_are_those_of_pyarrow(values, kind):
    ours, theirs = column(values, kind), pa.array(list(values), kind)
    ours.validate(full=True)
    assert ours.equals(theirs) and ours.type == theirs.type
    assert written(ours) == written(theirs)


def test_lists_of_flat_values():
    lists = list_column(np.array([5, 6, 7]), np.array([2, 0, 1]), pa.int32())
    assert lists.to_pylist() == [[5, 6], [], [7]]


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(OverflowError):
        column([2**31], pa.int32())
    with pytest.raises(AssertionError, match="less than"):
        list_column([], np.array([2**31 - 1, 1]), pa.int32())


def test_numbers_are_read_where_they_lie():
    array = column([1, 2, 3, 4], pa.int32())
    assert numbers_of(array[1:3]).tolist() == [2, 3] and numbers_of(array[4:]).tolist() == []
    assert numbers_of(column([[1], [2, 3]], INTS)[1].values).tolist() == [2, 3]
    assert not numbers_of(array).flags.writeable


def test_nothing_asks_for_pandas():
    code = (
        "import sys, pyarrow as pa; from tunemill.stages.data.rows.columns import column, numbers_of;"
        "made = column([['a']], pa.list_(pa.string())); numbers_of(column([1], pa.int32()));"
        "assert 'pandas' not in sys.modules; pa.array([1]); assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
