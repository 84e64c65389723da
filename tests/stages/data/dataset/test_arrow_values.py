"""Values of Parquet and Arrow that Python or JSON does not have: bad rows with a number, a column and a reason."""

import json
from datetime import date
from decimal import Decimal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.rows import read_arrow, run_stage

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.errors import RowError, SourceError


def numbers(values, kind):
    """Values of a type of Arrow, given by the numbers that it is stored as."""
    return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def texts(*values, kind=None):
    """A column of texts of which nobody has looked whether they are UTF-8."""
    return pa.array(values, pa.binary()).view(kind or pa.string())


def parquet(path, column, **options):
    pq.write_table(pa.table({"n": list(range(len(column))), "x": column}), path, **options)
    return path


def arrow(path, column):
    table = pa.table({"n": list(range(len(column))), "x": column})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def skipped(path, folder, **config):
    """The good rows by number, and the bad ones as (number, reason)."""
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(path), bad_rows="skip", **config), folder)
    good = {row["line"]: json.loads(row["row"]) for row in read_arrow(dataset.rows)}
    rejected = dataset.path / "rejected.jsonl"
    bad = [json.loads(line) for line in rejected.read_text().splitlines()] if rejected.exists() else []
    return good, [(row["number"], row["reason"]) for row in bad]


FAR = 10**18
KEYED = pa.map_(pa.string(), pa.int64())
BAD = {
    "a timestamp after the year 9999": (numbers([0, FAR], pa.timestamp("us")), "x", "outside of the years 1 to 9999"),
    "one before the year 1": (numbers([0, -FAR], pa.timestamp("us")), "x", "-29719-04-05 22:13:20"),
    "one far beyond": (numbers([0, FAR], pa.timestamp("ms")), "x", "timestamp[ms] 1000000000000000000, which is out"),
    "one with a time zone": (
        numbers([0, 253402300799 * 10**6], pa.timestamp("us", "Europe/Berlin")), "x", "10000-01-01 00:59:59",
    ),
    "a date": (numbers([0, 10**7], pa.date32()), "x", "holds the date32[day] 29349-01-26, which is outside"),
    "a time of no day": (numbers([0, 86_400_000_000], pa.time64("us")), "x", "86400000000, which is no time of a day"),
    "a time below zero": (numbers([0, -5], pa.time32("ms")), "x", "holds the time32[ms] -5, which is no time of a day"),
    "a map with a key twice": (
        pa.array([[("a", 1)], [("a", 1), ("b", 2), ("a", 3)]], KEYED), "x", "is a map that has the key 'a' twice",
    ),
    "a map of structs": (
        pa.array([None, [({"k": 1}, 1)]], pa.map_(pa.struct([("k", pa.int64())]), pa.int64())),
        "x", "is a map whose keys are no plain values",
    ),
    "a length of time": (numbers([None, 5], pa.duration("us")), "x", "holds a length of time, which has no form"),
    "one that Python does not have": (numbers([None, 10**17], pa.duration("s")), "x", "holds a length of time"),
    "bytes": (pa.array([None, b"a"]), "x", "a value of bytes has no form in JSON"),
    "a text that is not UTF-8": (texts(b"a", b"b\xff"), "x", "is not UTF-8: byte 2 of its text"),
    "NaN": (pa.array([1.0, float("nan")]), "x", "cannot be written as JSON"),
    "infinity in half a float": (pa.array(np.array([1, np.inf], np.float16)), "x", "cannot be written as JSON"),
    "one in a list": (
        pa.ListArray.from_arrays([0, 1, 3], numbers([0, 0, FAR], pa.timestamp("us"))), "x[1]", "outside of the years",
    ),
    "one in a struct in a list": (
        pa.ListArray.from_arrays(
            [0, 1, 2], pa.StructArray.from_arrays([numbers([0, FAR], pa.timestamp("us"))], ["when"])
        ),
        "x[0].when", "outside of the years",
    ),
    "a text in a list": (pa.ListArray.from_arrays([0, 1, 2], texts(b"a", b"\xff")), "x[0]", "is not UTF-8"),
    "a JSON text in a list": (
        pa.ListArray.from_arrays(
            pa.array([0, 1, 2], pa.int32()), pa.ExtensionArray.from_storage(pa.json_(), texts(b"1", b"\xff"))
        ),
        "x[0]", "is not UTF-8",
    ),
    "a map in a struct": (
        pa.StructArray.from_arrays([pa.array([[], [("k", 1), ("k", 2)]], KEYED)], ["m"]), "x.m", "the key 'k' twice",
    ),
    "a value of a map": (
        pa.MapArray.from_arrays([0, 0, 1], ["k"], numbers([FAR], pa.timestamp("us"))), "x['k']", "outside of the years",
    ),
}  # fmt: skip


@pytest.mark.parametrize("write", [parquet, arrow])
@pytest.mark.parametrize("name", BAD)
def test_a_value_that_cannot_be_had_makes_one_bad_row(tmp_path, name, write):
    column, place, reason = BAD[name]
    path = write(tmp_path / f"rows.{write.__name__}", column)
    with pytest.raises(RowError) as error:
        run_stage(DATASET, DatasetConfig(path=str(path)), tmp_path / "stop")
    assert f"rows.{write.__name__}, row 2: column '{place}' " in str(error.value).replace('"', "'")
    assert reason in str(error.value)
    good, bad = skipped(path, tmp_path / "skip")
    assert (list(good), [number for number, _ in bad]) == ([1], [2])


GOOD = {
    "times with nanoseconds": (numbers([1, 5_000_000_000], pa.time64("ns")), ["00:00:00.000000001", "00:00:05"]),
    "timestamps with nanoseconds": (numbers([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
    "the last year": (numbers([253402300799], pa.timestamp("s")), ["9999-12-31T23:59:59"]),
    "the first year": (pa.array([date(1, 1, 1)]), ["0001-01-01"]),
    "decimals": (pa.array([Decimal("1.10")], pa.decimal128(38, 2)), ["1.10"]),
    "half floats": (pa.array(np.array([1.5], np.float16)), [1.5]),
    "a dictionary": (pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array(["a"])), ["a", None]),
    "maps": (pa.array([[("a", 1), ("b", 2)], []], KEYED), [{"a": 1, "b": 2}, {}]),
    "large unsigned numbers": (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
}  # fmt: skip


@pytest.mark.parametrize("write", [parquet, arrow])
@pytest.mark.parametrize("name", GOOD)
def test_values_that_have_a_form_keep_it(tmp_path, name, write):
    column, expected = GOOD[name]
    good, bad = skipped(write(tmp_path / f"rows.{write.__name__}", column), tmp_path / "out")
    assert ([row["x"] for row in good.values()], bad) == (expected, [])


def test_a_dictionary_that_holds_a_null(tmp_path):
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None]))
    good, bad = skipped(arrow(tmp_path / "rows.arrow", column), tmp_path / "out")
    assert ([row["x"] for row in good.values()], bad) == (["a", None, None], [])


def test_runs_of_equal_values(tmp_path):
    """Of times, which are read one by one, and of dates, one of which has no value; Parquet has no such type."""
    ends = pa.array([2, 3], pa.int32())
    times = pa.RunEndEncodedArray.from_arrays(ends, numbers([0, 1], pa.time64("ns")))
    good, bad = skipped(arrow(tmp_path / "times.arrow", times), tmp_path / "times")
    assert [row["x"] for row in good.values()] == ["00:00:00", "00:00:00", "00:00:00.000000001"]
    assert bad == []
    dates = pa.RunEndEncodedArray.from_arrays(ends, numbers([0, 10**9], pa.date32()))
    good, bad = skipped(arrow(tmp_path / "dates.arrow", dates), tmp_path / "dates")
    assert [row["x"] for row in good.values()] == ["1970-01-01", "1970-01-01"]
    assert [number for number, _ in bad] == [3]


@pytest.mark.parametrize("write", [parquet, arrow])
def test_good_rows_beside_bad_ones_stay_with_their_numbers(tmp_path, write):
    far = {3, 700, 1024, 2048, 2999}
    column = numbers([FAR if number in far else number for number in range(3000)], pa.timestamp("us"))
    path = write(tmp_path / f"rows.{write.__name__}", column)
    good, bad = skipped(path, tmp_path / "out")
    assert {number: row["n"] for number, row in good.items()} == {
        n + 1: n for n in range(3000) if n not in far
    }
    assert [number for number, _ in bad] == [number + 1 for number in sorted(far)]
    part, bad = skipped(path, tmp_path / "part", split="train[699:702]")
    assert (list(part), len(bad)) == ([700, 702], 1)


def test_what_is_set_aside_shows_the_columns_that_could_be_read(tmp_path):
    path = parquet(tmp_path / "rows.parquet", numbers([0, -FAR], pa.timestamp("us")))
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(path), bad_rows="skip"), tmp_path / "out")
    rejected = json.loads((dataset.path / "rejected.jsonl").read_text())
    assert json.loads(rejected["row"]) == {"n": 1, "x": "-29719-04-05 22:13:20.000000"}


def test_a_saved_dataset_has_the_same_bad_rows(tmp_path):
    table = pa.table({"n": [1, 2, 3], "x": numbers([0, FAR, 1], pa.timestamp("us"))})
    datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"))
    dataset, _ = run_stage(
        DATASET, DatasetConfig(path=str(tmp_path / "saved"), bad_rows="skip"), tmp_path / "out"
    )
    assert [json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)] == [1, 3]
    with pytest.raises(RowError, match="saved, row 2: column 'x' holds the timestamp"):
        run_stage(DATASET, DatasetConfig(path=str(tmp_path / "saved")), tmp_path / "stop")


REFUSED = {
    "a time zone": (
        {"x": numbers([0], pa.timestamp("us", "Nowhere/Here"))}, r"column 'x' has the time zone 'Nowhere/Here'",
    ),
    "one in a list": (
        {"x": pa.ListArray.from_arrays([0, 1], numbers([0], pa.timestamp("us", "Nowhere/Here")))}, r"column 'x\[\]'",
    ),
}  # fmt: skip


def write_table(path, table):
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        opener = pa.ipc.new_stream if path.name.startswith("stream") else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, opener(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("file", ["rows.parquet", "rows.arrow", "stream.arrow"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_column_of_which_nothing_can_be_read(tmp_path, name, file):
    columns, message = REFUSED[name]
    with pytest.raises(SourceError, match=rf"{file}: {message}"):
        run_stage(
            DATASET,
            DatasetConfig(path=str(write_table(tmp_path / file, pa.table(columns)))),
            tmp_path / "out",
        )


@pytest.mark.parametrize("file", ["rows.parquet", "rows.arrow", "stream.arrow"])
@pytest.mark.parametrize("rows", [1, 0])
def test_two_columns_of_one_name(tmp_path, file, rows):
    table = pa.Table.from_arrays([pa.array(["a"] * rows), pa.array(["b"] * rows)], ["text", "text"])
    path = write_table(tmp_path / file, table)
    with pytest.raises(
        SourceError, match=rf"{file}: it names \['text'\] more than once among its columns; rename"
    ):
        run_stage(DATASET, DatasetConfig(path=str(path)), tmp_path / "out")


@pytest.mark.parametrize("file", ["rows.parquet", "rows.arrow"])
def test_two_fields_of_one_name_in_a_list_of_structs(tmp_path, file):
    inner = pa.StructArray.from_arrays([pa.array(["a"]), pa.array(["b"])], ["role", "role"])
    table = pa.table({"messages": pa.ListArray.from_arrays([0, 1], inner)})
    path = write_table(tmp_path / file, table)
    with pytest.raises(
        SourceError, match=r"column 'messages\[\]' names its fields \['role'\] more than once"
    ):
        run_stage(DATASET, DatasetConfig(path=str(path)), tmp_path / "out")


def test_json_of_a_column_that_is_none(tmp_path):
    texts = ['{"a":1}', "{oops", "[" * 100_000, '{"a":1,"a":2}', "[NaN]"]
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts))
    good, bad = skipped(arrow(tmp_path / "rows.arrow", column), tmp_path / "out")
    assert good == {1: {"n": 0, "x": {"a": 1}}}
    assert [number for number, _ in bad] == [2, 3, 4, 5]
    assert bad[0][1].startswith("column 'x' is no JSON, as its type says: Expecting")
    assert bad[2][1].startswith("column 'x' is no JSON, as its type says: the key 'a' stands twice")
