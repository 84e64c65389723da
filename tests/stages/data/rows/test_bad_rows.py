"""Rows that cannot be used stop a stage, or are set aside."""

import json

import pytest
from support.rows import Events

from tunemill.stages.data.rows.bad_rows import BadRows
from tunemill.stages.errors import RowError, RowPlace
from tunemill.stages.report import Report


def test_the_first_ten_are_listed_and_all_are_counted(tmp_path):
    bad = BadRows("rows.jsonl", "stop", tmp_path)
    for number in range(1, 13):
        bad.add(RowPlace("rows.jsonl", "line", 3 * number), f"reason {number}")
    with pytest.raises(RowError, match=r"12 rows of rows.jsonl cannot be used:") as raised:
        bad.finish(Report(Events().sent.append))
    lines = str(raised.value).splitlines()
    assert lines[1] == "  rows.jsonl:3: reason 1" and lines[10] == "  rows.jsonl:30: reason 10"
    assert lines[11] == "  and 2 more" and len(lines) == 12
    assert bad.stops and not list(tmp_path.iterdir())


def test_a_row_number_is_not_called_a_line(tmp_path):
    bad = BadRows("rows.csv", "stop", tmp_path)
    bad.add(RowPlace("rows.csv", "row", 4), "too few values")
    with pytest.raises(
        RowError, match=r"1 row of rows.csv cannot be used:\n  rows.csv, row 4: too few values"
    ):
        bad.finish(Report(Events().sent.append))


def test_skipped_rows_are_set_aside_with_their_reason(tmp_path):
    events = Events()
    bad = BadRows("folder", "skip", tmp_path)
    bad.add(RowPlace("part.jsonl", "line", 2), "no field 'text'", '{"txt":"é"}')
    assert not bad.stops
    bad.finish(Report(events.sent.append))
    (line,) = (tmp_path / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "file": "part.jsonl",
        "line": 2,
        "reason": "no field 'text'",
        "row": '{"txt":"é"}',
    }
    assert events.summary["rejected"] == 1
    assert events.of_type("table")[0]["rows"] == [["part.jsonl", 2, "no field 'text'"]]


def test_nothing_set_aside_leaves_no_file_and_a_count(tmp_path):
    events = Events()
    BadRows("rows.jsonl", "skip", tmp_path).finish(Report(events.sent.append))
    assert events.summary == {"rejected": 0} and not list(tmp_path.iterdir())


def test_the_name_of_a_single_file_is_no_part_of_the_result(tmp_path):
    contents = []
    for name in ("one.jsonl", "other.jsonl"):
        folder = tmp_path / name
        folder.mkdir()
        bad = BadRows(name, "skip", folder)
        bad.add(RowPlace(name, "line", 1), "empty")
        bad.finish(Report(Events().sent.append))
        contents.append((folder / "rejected.jsonl").read_bytes())
    assert contents[0] == contents[1]
