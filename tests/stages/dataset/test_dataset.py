"""Rows of a file become JSON text, and bad files say where they are bad."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from support.rows import files_of, read_arrow, run_stage, write_lines

from tunemill.stages.dataset.config import DatasetConfig
from tunemill.stages.dataset.sources import READ_SIZE
from tunemill.stages.dataset.stage import DATASET
from tunemill.stages.errors import RowError, SettingError, SourceError

ROWS = [{"b": "é", "a": 1}, {"b": "line\nbreak", "a": [1.5, None, True]}, {"b": "", "a": {"x": "]"}}]


def snapshot(tmp_path, path, **config):
    return run_stage(DATASET, DatasetConfig(path=str(path), **config), tmp_path / "out")


def values(dataset):
    return [json.loads(row["row"]) for row in read_arrow(dataset.rows)]


def test_json_lines_keep_key_order_and_lines(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"b":"é","a":1}\n\n  { "b" : "x" }  \n', encoding="utf-8")
    dataset, events = snapshot(tmp_path, source)
    assert read_arrow(dataset.rows) == [
        {"row": '{"b":"é","a":1}', "line": 1},
        {"row": '{"b":"x"}', "line": 3},
    ]
    assert events.summary == {"rows": 2}


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
    assert [row["line"] for row in read_arrow(dataset.rows)] == [1, 2]


def test_parquet(tmp_path):
    source = tmp_path / "rows.parquet"
    messages = [[{"role": "user", "content": "hi"}], [{"role": "user", "content": None}]]
    pq.write_table(pa.table({"messages": messages, "n": [1, 2]}), source)
    dataset, _ = snapshot(tmp_path, source)
    assert values(dataset) == [{"messages": messages[0], "n": 1}, {"messages": messages[1], "n": 2}]


def test_ds_type_wins_over_the_extension(tmp_path):
    source = write_lines(tmp_path / "rows.txt", ROWS)
    with pytest.raises(SourceError, match=r"extension '\.txt'.*set ds_type: json, csv or parquet"):
        run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "none")
    dataset, _ = snapshot(tmp_path, source, ds_type="json")
    assert values(dataset) == ROWS


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[7:]", range(7, 10)),
        ("train[-2:]", range(8, 10)),
        ("train[2:-2]", range(2, 8)),
        ("train[10%:]", range(1, 10)),
        ("train[:25%]", range(2)),
        ("train[25%:75%]", range(2, 8)),
        ("train[-30%:]", range(7, 10)),
        ("train[3:30%]", None),
    ],
)
def test_split(tmp_path, split, expected):
    source = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(10)])
    if expected is None:
        with pytest.raises(RowError, match="has no rows in split"):
            snapshot(tmp_path, source, split=split)
        return
    dataset, _ = snapshot(tmp_path, source, split=split)
    assert [value["n"] for value in values(dataset)] == list(expected)


def test_split_beyond_the_rows(tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(SettingError, match=r"train\[:200\] asks for row 200, but the file has 3 rows"):
        snapshot(tmp_path, source, split="train[:200]")


@pytest.mark.parametrize(
    "split", ["test", "train[:10%]+train[-10%:]", "train[5]", "train[:x]", "train[:5%](pct1)"]
)
def test_splits_that_a_file_does_not_have(split):
    with pytest.raises(ValidationError, match="not a split of a local file"):
        DatasetConfig(path="rows.jsonl", split=split)


def test_hub_configuration_is_refused():
    with pytest.raises(ValidationError, match="not supported yet"):
        DatasetConfig(path="rows.jsonl", name="main")


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
        "  rows.jsonl:9: cannot be written as JSON: Out of range float values are not JSON compliant",
    ]


def test_only_ten_bad_rows_are_listed_and_all_are_counted(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"a":1}\n' + "oops\n" * 2500)
    with pytest.raises(RowError, match=r"(?s)^2500 rows of .*rows\.jsonl:11: .*\n  and 2490 more$") as caught:
        snapshot(tmp_path, source)
    assert "rows.jsonl:12" not in str(caught.value)


@pytest.mark.parametrize("text", ['[{"a":1}, {"b":2} {"c":3}]', '[{"a":1}, {"b":}]', '[{"a":1}, {"b":2}'])
def test_broken_json_array(tmp_path, text):
    source = tmp_path / "rows.json"
    source.write_text(text)
    with pytest.raises(RowError, match=r"rows\.json, row 2: invalid JSON"):
        snapshot(tmp_path, source)


def test_text_after_a_json_array(tmp_path):
    source = tmp_path / "rows.json"
    source.write_text('[{"a":1}]\n{"b":2}')
    with pytest.raises(SourceError, match="more after the closing bracket"):
        snapshot(tmp_path, source)


def test_csv_row_with_too_few_values(tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("a,b\n1,2\n3\n")
    with pytest.raises(RowError, match=r"rows\.csv, row 2: 1 values, the header has 2 columns"):
        snapshot(tmp_path, source)


def test_csv_with_a_repeated_column(tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("a,a\n1,2\n")
    with pytest.raises(SourceError, match=r"names \['a'\] more than once"):
        snapshot(tmp_path, source)


def test_parquet_values_without_a_json_form(tmp_path):
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": [b"\x00"]}), source)
    with pytest.raises(RowError, match=r"rows\.parquet, row 1: cannot be written as JSON: .*bytes"):
        snapshot(tmp_path, source)


def test_not_parquet(tmp_path):
    source = write_lines(tmp_path / "rows.parquet", ROWS)
    with pytest.raises(SourceError, match="not a Parquet file"):
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
    assert DatasetConfig(path="/a.txt").semantic() == {}


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


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(SourceError, match="is a folder; name one file in it"):
        snapshot(tmp_path, tmp_path)
