"""Rows of a file become JSON text, and bad files say where they are bad."""

import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.rows import files_of, read_arrow, run_stage, write_lines

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources.unpacking import READ_SIZE
from tunemill.stages.errors import RowError, SourceError

ROWS = [{"b": "é", "a": 1}, {"b": "line\nbreak", "a": [1.5, None, True]}, {"b": "", "a": {"x": "]"}}]


def snapshot(tmp_path, path, **config):
    return run_stage(DATASET, DatasetConfig(path=str(path), **config), tmp_path / "out")


def unit_of(dataset):
    return pa.ipc.open_file(pa.memory_map(str(dataset.rows))).schema.metadata[b"unit"].decode()


def values(dataset):
    return [json.loads(row["row"]) for row in read_arrow(dataset.rows)]


def test_json_lines_keep_key_order_and_lines(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"b":"é","a":1}\n\n  { "b" : "x" }  \n', encoding="utf-8")
    dataset, events = snapshot(tmp_path, source)
    assert read_arrow(dataset.rows) == [
        {"row": '{"b":"é","a":1}', "line": 1, "file": ""},
        {"row": '{"b":"x"}', "line": 3, "file": ""},
    ]
    assert events.summary == {"rows": 2, "source": "file"}
    assert unit_of(dataset) == "line"


def test_another_name_gives_the_same_bytes(tmp_path):
    one, other = write_lines(tmp_path / "one.jsonl", ROWS), write_lines(tmp_path / "other.ndjson", ROWS)
    first, _ = run_stage(DATASET, DatasetConfig(path=str(one)), tmp_path / "1")
    second, _ = run_stage(DATASET, DatasetConfig(path=str(other)), tmp_path / "2")
    assert files_of(first) == files_of(second)
    assert DatasetConfig(path=str(one)).semantic() == DatasetConfig(path=str(other)).semantic()


def test_white_space_in_the_source_does_not_change_the_bytes(tmp_path):
    loose, tight = tmp_path / "loose.jsonl", tmp_path / "tight.jsonl"
    loose.write_text("".join(json.dumps(row, separators=(" , ", " : ")) + " \r\n" for row in ROWS))
    tight.write_text(
        "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in ROWS)
    )
    one, _ = run_stage(DATASET, DatasetConfig(path=str(loose)), tmp_path / "one")
    other, _ = run_stage(DATASET, DatasetConfig(path=str(tight)), tmp_path / "other")
    assert files_of(one) == files_of(other)


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array(tmp_path, indent):
    source = tmp_path / "rows.json"
    source.write_text("\ufeff" + json.dumps(ROWS, indent=indent), encoding="utf-8")
    dataset, _ = snapshot(tmp_path, source)
    assert values(dataset) == ROWS
    assert [row["line"] for row in read_arrow(dataset.rows)] == [1, 2, 3]
    assert unit_of(dataset) == "row"


def test_json_array_whose_elements_lie_across_reads(tmp_path):
    rows = [{"n": n, "text": "x" * (READ_SIZE // 3 + n), "end": [[n]]} for n in range(12)]
    rows += [{"flags": [True, None, False] * 80_000}, {"numbers": [1234567.25] * 200_000}]
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(rows))
    dataset, _ = snapshot(tmp_path, source)
    assert values(dataset) == rows


def test_json_with_lines_inside_dot_json(tmp_path):
    source = write_lines(tmp_path / "rows.json", ROWS)
    dataset, _ = snapshot(tmp_path, source)
    assert values(dataset) == ROWS


def test_csv(tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text('question,answer\n"a, b","two\nlines"\n7,\n', encoding="utf-8")
    dataset, _ = snapshot(tmp_path, source)
    assert values(dataset) == [{"question": "a, b", "answer": "two\nlines"}, {"question": "7", "answer": ""}]
    assert [row["line"] for row in read_arrow(dataset.rows)] == [2, 4]


def test_parquet(tmp_path):
    source = tmp_path / "rows.parquet"
    messages = [[{"role": "user", "content": "hi"}], [{"role": "user", "content": None}]]
    pq.write_table(pa.table({"messages": messages, "n": [1, 2]}), source)
    dataset, _ = snapshot(tmp_path, source)
    assert values(dataset) == [{"messages": messages[0], "n": 1}, {"messages": messages[1], "n": 2}]


def test_ds_type_wins_over_the_extension(tmp_path):
    source = write_lines(tmp_path / "rows.dat", ROWS)
    with pytest.raises(SourceError, match=r"extension '\.dat'.*set ds_type: json, csv, tsv, parquet"):
        run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "none")
    dataset, _ = snapshot(tmp_path, source, ds_type="json")
    assert values(dataset) == ROWS


def test_bad_rows_are_listed_with_line_and_reason(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'{"a":1}\n[1]\n{bad}\n\n{"x":NaN}\n{"y":"\xff"}\n{"z":"\\ud800"}\n"s"\n{"w":1e999}\n')
    with pytest.raises(RowError) as caught:
        snapshot(tmp_path, source)
    assert str(caught.value).splitlines() == [
        "7 rows of rows.jsonl cannot be used:",
        "  rows.jsonl:2: not an object but an array; a row is an object of named fields",
        "  rows.jsonl:3: invalid JSON: Expecting property name enclosed in double quotes (column 2)",
        "  rows.jsonl:5: invalid JSON: NaN is not a JSON value",
        "  rows.jsonl:6: not UTF-8: byte 7 of the line",
        "  rows.jsonl:7: a string holds half a surrogate pair, which is not a character",
        "  rows.jsonl:8: not an object but a string; a row is an object of named fields",
        "  rows.jsonl:9: 1e999 is larger than a number can be, which is 1.797e308",
        "`pipeline: {bad_rows: skip}` in the YAML sets such rows aside and goes on with the others",
    ]


def test_bad_rows_of_one_reason_are_one_line_and_all_are_counted(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"a":1}\n' + "oops\n" * 2500)
    with pytest.raises(RowError) as caught:
        snapshot(tmp_path, source)
    assert str(caught.value).splitlines()[:2] == [
        "2500 rows of rows.jsonl cannot be used:",
        "  rows.jsonl:2, 3, 4 and 2497 more: invalid JSON: Expecting value (column 1)",
    ]
    source.write_text("oops\n" * 3)
    with pytest.raises(RowError, match=r"1, 2, 3: invalid JSON: Expecting value \(column 1\)$"):
        snapshot(tmp_path / "again", source)


@pytest.mark.parametrize("text", ['[{"a":1}, {"b":2} {"c":3}]', '[{"a":1}, {"b":}]', '[{"a":1}, {"b":2}'])
def test_broken_json_array(tmp_path, text):
    source = tmp_path / "rows.json"
    source.write_text(text)
    with pytest.raises(RowError, match=r"rows\.json, row 2: invalid JSON"):
        snapshot(tmp_path, source)


def test_text_after_a_json_array(tmp_path):
    source = tmp_path / "rows.json"
    source.write_text('[\n{"a":1}]\n{"b":2}')
    with pytest.raises(RowError, match=r"rows\.json, row 2: .*more after the closing bracket.* \(line 3\)"):
        snapshot(tmp_path, source)


def test_csv_row_with_too_few_values(tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("a,b\n1,2\n3\n")
    with pytest.raises(RowError, match=r"rows\.csv:3: 1 values, the header has 2 columns"):
        snapshot(tmp_path, source)


def test_csv_with_a_repeated_column(tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("a,a\n1,2\n")
    with pytest.raises(SourceError, match=r"names \['a'\] more than once"):
        snapshot(tmp_path, source)


def test_parquet_values_without_a_json_form(tmp_path):
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": [b"\x00"]}), source)
    with pytest.raises(RowError, match=r"rows\.parquet, row 1: column 'image' cannot be .*bytes"):
        snapshot(tmp_path, source)


def test_not_parquet(tmp_path):
    source = write_lines(tmp_path / "rows.parquet", ROWS)
    with pytest.raises(SourceError, match="not a file of Parquet rows"):
        snapshot(tmp_path, source)


def test_damaged_parquet(tmp_path):
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(5000)]}), source, compression="gzip")
    content = bytearray(source.read_bytes())
    content[100:600] = bytes(500)
    source.write_bytes(content)
    with pytest.raises(SourceError, match="damaged"):
        snapshot(tmp_path, source)


def test_what_the_extension_says_is_part_of_the_key():
    assert DatasetConfig(path="/a.csv").semantic() != DatasetConfig(path="/a.jsonl").semantic()
    assert DatasetConfig(path="/a.JSON").semantic() == DatasetConfig(path="/b", ds_type="json").semantic()
    assert DatasetConfig(path="/a.csv", ds_type="json").ds_type == "json"
    assert DatasetConfig(path="/a.jsonl.gz").semantic() == DatasetConfig(path="/a.jsonl").semantic()
    assert DatasetConfig(path="/a.dat").semantic() == {}
    assert DatasetConfig(path="https://x.y/a.csv?v=1.json").ds_type == "csv"


@pytest.mark.parametrize(
    ("name", "text"), [("r.jsonl", ""), ("r.jsonl", "\n \n"), ("r.json", "[]"), ("r.csv", "a\n")]
)
def test_empty(tmp_path, name, text):
    source = tmp_path / name
    source.write_text(text)
    with pytest.raises(RowError, match=f"{name} has no rows"):
        snapshot(tmp_path, source)


def test_missing_file_suggests_the_nearest(tmp_path):
    write_lines(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(SourceError, match=r"trian\.jsonl does not exist; did you mean .*/train\.jsonl\?"):
        snapshot(tmp_path, tmp_path / "trian.jsonl")


def test_bad_rows_are_set_aside(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"a":1}\n{bad}\n\n{"a":2}\n[3]\n')
    dataset, events = snapshot(tmp_path, source, bad_rows="skip")
    assert [(row["row"], row["line"]) for row in read_arrow(dataset.rows)] == [('{"a":1}', 1), ('{"a":2}', 4)]
    assert events.summary == {"rows": 2, "rejected": 2, "source": "file"}
    rejected = [json.loads(line) for line in (dataset.path / "rejected.jsonl").read_text().splitlines()]
    assert rejected == [
        {
            "line": 2,
            "reason": "invalid JSON: Expecting property name enclosed in double quotes (column 2)",
            "row": "{bad}",
        },
        {"line": 5, "reason": "not an object but an array; a row is an object of named fields", "row": "[3]"},
    ]


def test_nothing_is_set_aside_when_all_rows_are_good(tmp_path):
    dataset, events = snapshot(tmp_path, write_lines(tmp_path / "rows.jsonl", ROWS), bad_rows="skip")
    assert list(files_of(dataset)) == ["rows.arrow"]
    assert events.summary["rejected"] == 0


def test_skipping_every_row_is_an_error(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("1\n2\n")
    with pytest.raises(
        RowError, match=r"no row of rows\.jsonl is left(.|\n)*rows\.jsonl:1, 2: not an object but a number"
    ):
        snapshot(tmp_path, source, bad_rows="skip")


def test_dates_and_decimals_become_text(tmp_path):
    source = tmp_path / "rows.parquet"
    zone = datetime.timezone(datetime.timedelta(hours=2))
    row = {
        "day": datetime.date(2026, 11, 21),
        "clock": datetime.time(9, 30),
        "moment": datetime.datetime(2026, 11, 21, 9, 30, 0, 250000),
        "zoned": datetime.datetime(2026, 11, 21, 9, 30, tzinfo=zone),
        "price": decimal.Decimal("12.50"),
        "nested": [{"at": datetime.date(2026, 1, 2)}],
        "pairs": {"b": 1, "a": 2},
    }
    types = pa.schema(
        [
            ("day", pa.date32()),
            ("clock", pa.time64("us")),
            ("moment", pa.timestamp("us")),
            ("zoned", pa.timestamp("ms", tz="+02:00")),
            ("price", pa.decimal128(6, 2)),
            ("nested", pa.list_(pa.struct([("at", pa.date32())]))),
            ("pairs", pa.map_(pa.string(), pa.int64())),
        ]
    )
    pq.write_table(pa.Table.from_pylist([{**row, "pairs": list(row["pairs"].items())}], schema=types), source)
    dataset, _ = snapshot(tmp_path, source)
    assert values(dataset) == [
        {
            "day": "2026-11-21",
            "clock": "09:30:00",
            "moment": "2026-11-21T09:30:00.250000",
            "zoned": "2026-11-21T09:30:00+02:00",
            "price": "12.50",
            "nested": [{"at": "2026-01-02"}],
            "pairs": {"b": 1, "a": 2},
        }
    ]


def test_not_a_number_names_its_column(tmp_path):
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"score": [1.0, float("nan")]}), source)
    with pytest.raises(RowError, match=r"rows\.parquet, row 2: column 'score' cannot be written as JSON"):
        snapshot(tmp_path, source)
