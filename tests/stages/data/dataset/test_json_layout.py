"""Rows one a line, in an array or as objects of many lines: told apart by what a file begins with, not by its name."""

import json

import pyarrow as pa
import pytest
from support.rows import read_arrow, run_stage

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources import json_layout
from tunemill.stages.errors import RowError, SourceError

ARRAY = "not an object but an array; a row is an object of named fields"


def look(tmp_path, content, name="rows.jsonl"):
    """The good rows with their numbers, the numbers of the bad ones with why, and what is counted."""
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset, _ = run_stage(
        DATASET,
        DatasetConfig(path=str(source), bad_rows="skip"),
        tmp_path / f"out-{len(list(tmp_path.iterdir()))}",
    )
    good = [(json.loads(row["row"]), row["line"]) for row in read_arrow(dataset.rows)]
    unit = pa.ipc.open_file(pa.memory_map(str(dataset.rows))).schema.metadata[b"unit"].decode()
    rejected = dataset.path / "rejected.jsonl"
    entries = map(json.loads, rejected.read_text().splitlines()) if rejected.exists() else ()
    key = "line" if unit == "line" else "number"
    return good, [(entry[key], entry["reason"]) for entry in entries], unit


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize(
    ("content", "rows", "unit"),
    [
        ('[{"a":1},{"b":[2]}]', [({"a": 1}, 1), ({"b": [2]}, 2)], "row"),
        ('\n [{"a":1}]\n\n \n', [({"a": 1}, 1)], "row"),
        ('[\n  {\n    "a": 1\n  },\n  {"b": 2}\n]\n', [({"a": 1}, 1), ({"b": 2}, 2)], "row"),
        ('[{"a":1},\n{"b":2}]', [({"a": 1}, 1), ({"b": 2}, 2)], "row"),
        ('[{"a":1}\n,{"b":2}\n]', [({"a": 1}, 1), ({"b": 2}, 2)], "row"),
        ('[{"a":"]\\""},\r{"b":2}\r]\r', [({"a": ']"'}, 1), ({"b": 2}, 2)], "row"),
        ('{"a":1}\n{"b":2}', [({"a": 1}, 1), ({"b": 2}, 2)], "line"),
        ('{"a":"}{"}\n\n{"b":2}\n', [({"a": "}{"}, 1), ({"b": 2}, 3)], "line"),
        ('{"a":1}', [({"a": 1}, 1)], "line"),
        ('{\n  "a": 1,\n  "b": [\n    {}\n  ]\n}\n', [({"a": 1, "b": [{}]}, 1)], "row"),
        ('{\n  "a": 1\n}\n{\n  "b": 2\n}', [({"a": 1}, 1), ({"b": 2}, 2)], "row"),
        ('{"a": {\n  "b": 1}}\n{"c": 2}', [({"a": {"b": 1}}, 1), ({"c": 2}, 2)], "row"),
        ('{"a":1}{"b":2} {"c":3}\n', [({"a": 1}, 1), ({"b": 2}, 2), ({"c": 3}, 3)], "row"),
        ('{"a":1}\r{"b":2}\r', [({"a": 1}, 1), ({"b": 2}, 2)], "row"),
        ('{"a":"x\u2028y\u0085z"}\r\n{"b":2}\r\n', [({"a": "x\u2028y\u0085z"}, 1), ({"b": 2}, 2)], "line"),
    ],
)
def test_good_files(tmp_path, name, content, rows, unit):
    assert look(tmp_path, content, name) == (rows, [], unit)
    assert look(tmp_path, "\ufeff" + content, name) == (rows, [], unit)


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        ('[1]\n{"a":1}\n{"b":2}\n', [2, 3], [(1, ARRAY)]),
        ('[]\n{"a":1}\n', [2], [(1, ARRAY)]),
        ('[{"x":1},{"y":"]"}]\n\n{"a":1}\n', [3], [(1, ARRAY)]),
        ('{"a":1}\n[{"b":2}]\n{"c":3}\n[4]', [1, 3], [(2, ARRAY), (4, ARRAY)]),
        ('[{"a":1}] oops\n{"b":2}\n', [2], [(1, "invalid JSON: Extra data (column 11)")]),
        ('[{"a":}]\n{"b":2}\n', [2], [(1, "invalid JSON: Expecting value (column 7)")]),
        ('[1, 2\n{"a":1}\n', [2], [(1, "invalid JSON: Expecting ',' delimiter (column 6)")]),
        ('["x\n{"a":1}\n', [2], [(1, "invalid JSON: Unterminated string starting at (column 2)")]),
        ('{"a": [1,\n{"b":2}\n', [2], [(1, "invalid JSON: Expecting value (column 10)")]),
        ('{"a": 1, "b":\n{"b":2}\n{"c":3}\n', [2, 3], [(1, "invalid JSON: Expecting value (column 14)")]),
        ('{"a": "x\n{"b":2}\n', [2], [(1, "invalid JSON: Unterminated string starting at (column 7)")]),
        ('{"a":1}{"b":2}\n{"c":3}\n', [2], [(1, "invalid JSON: Extra data (column 8)")]),
        ('oops\n{"a":1}\n', [2], [(1, "invalid JSON: Expecting value (column 1)")]),
    ],
)
def test_a_bad_first_line_is_one_bad_row(tmp_path, content, good, bad):
    rows, rejected, unit = look(tmp_path, content)
    assert ([number for _, number in rows], rejected, unit) == (good, bad, "line")


def test_a_bad_row_among_objects_of_many_lines(tmp_path):
    content = '{\n "a": 1,\n}\n{\n "b": 2\n}\n{\n "c": NaN\n}\n'
    rows, rejected, _ = look(tmp_path, content)
    assert rows == [({"b": 2}, 2)]
    assert rejected == [
        (1, "invalid JSON: Expecting property name enclosed in double quotes (line 3)"),
        (3, "invalid JSON: NaN is not a JSON value (line 7)"),
    ]


def test_an_object_of_many_lines_that_is_cut_off(tmp_path):
    source = tmp_path / "rows.json"
    for number, content in enumerate(('{\n  "a": 1,\n  "b"', '{"m": [\n  1')):
        source.write_text(content)
        with pytest.raises(RowError, match=r"rows\.json, row 1: invalid JSON: Expecting .* \(line [23]\)"):
            run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / str(number))


def test_one_object_around_all_rows_is_no_row(tmp_path):
    source = tmp_path / "rows.json"
    source.write_text(json.dumps({"data": [{"a": 1}, {"a": 2}]}, indent=1))
    with pytest.raises(
        RowError, match=r"whose field 'data' holds an array of objects; rows are one JSON object a"
    ):
        run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "none")
    for number, row in enumerate(({"messages": [{"a": 1}]}, {"data": [1]}, {"data": [{"a": 1}], "b": 2})):
        assert look(tmp_path, json.dumps(row, indent=1), f"{number}.json")[0] == [(row, 1)]
    two = '{\n"data":[{}]}\n{\n"data":[{}]}'
    assert look(tmp_path, two)[0] == [({"data": [{}]}, 1), ({"data": [{}]}, 2)]


def test_byte_order_marks_of_files_behind_each_other(tmp_path):
    assert look(tmp_path, '\ufeff{"a":1}\n\ufeff{"b":2}\n\ufeff\n{"c":3}\n')[:2] == (
        [({"a": 1}, 1), ({"b": 2}, 2), ({"c": 3}, 4)],
        [],
    )
    assert look(tmp_path, '\ufeff{\n"a":1}\n\ufeff{\n"b":2}\n')[0] == [({"a": 1}, 1), ({"b": 2}, 2)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("content", ['{"a":1}\n{"b":2}\n', '[{"a":1}]'])
def test_wide_characters_are_refused_with_what_to_do(tmp_path, encoding, content):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(content.encode(encoding))
    with pytest.raises(SourceError, match=r"rows\.jsonl: text in UTF-16 or UTF-32.*iconv -f UTF-16 -t UTF-8"):
        run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "out")


def test_a_first_line_that_is_longer_than_what_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(json_layout, "LONGEST_LOOK", 64)
    long = "x" * 100
    assert look(tmp_path, json.dumps([{"a": long}, {"b": 2}]))[0] == [({"a": long}, 1), ({"b": 2}, 2)]
    assert look(tmp_path, f'{{"a":"{long}"}}\n{{"b":2}}\n')[2] == "line"
    assert look(tmp_path, f'{{"a":1}}\r{{"b":"{long}"}}\r')[0] == [({"a": 1}, 1), ({"b": long}, 2)]


def test_slices_count_rows_of_every_layout(tmp_path):
    for number, content in enumerate(
        (
            '\ufeff{"n":1}\n\ufeff\n\n{"n":2}\n[3]\n{"n":4}\n',
            '[{"n":1},{"n":2},\n3,{"n":4}]',
            '{"n":1}\r{"n":2}\r3\r{"n":4}',
        )
    ):
        source = tmp_path / f"{number}.json"
        source.write_text(content)
        config = DatasetConfig(path=str(source), bad_rows="skip", split="train[50%:]+train[:1]+train[-3:2]")
        dataset, _ = run_stage(DATASET, config, tmp_path / str(number))
        assert [json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)] == [4, 1, 2]
