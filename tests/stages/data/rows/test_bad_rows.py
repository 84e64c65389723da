"""Rows that cannot be used stop a stage, or are set aside."""

import json
import tracemalloc

import pytest
from support.rows import Events

from tunemill.stages.data.rows.bad_rows import BadRows
from tunemill.stages.errors import RowError, RowPlace
from tunemill.stages.report import Report


def message_of(bad, likeness=None):
    with pytest.raises(RowError) as raised:
        bad.finish(Report(Events().sent.append), likeness)
    return str(raised.value).splitlines()


def test_the_first_ten_reasons_are_listed_and_all_rows_are_counted(tmp_path):
    bad = BadRows("rows.jsonl", "stop", tmp_path)
    for number in range(1, 13):
        bad.add(RowPlace("rows.jsonl", "line", 3 * number), f"reason {number}")
    bad.add(RowPlace("rows.jsonl", "line", 39), "reason 1")
    lines = message_of(bad)
    assert lines[0] == "13 rows of rows.jsonl cannot be used:"
    assert lines[1] == "  rows.jsonl:3, 39: reason 1" and lines[10] == "  rows.jsonl:30: reason 10"
    assert lines[11] == "  and 2 more, for other reasons" and len(lines) == 12
    assert bad.stops and not list(tmp_path.iterdir())


def test_rows_of_one_reason_are_one_line(tmp_path):
    bad = BadRows("folder", "stop", tmp_path)
    for number in (1, 2):
        bad.add(RowPlace("a.jsonl", "line", number), "the same")
    for number in range(4, 202):
        bad.add(RowPlace("b.jsonl", "line", number), "the same")
    bad.add(RowPlace("c.csv", "row", 1), "another")
    bad.add(RowPlace("c.csv", "row", 9), "another")
    assert message_of(bad)[1:] == [
        "  a.jsonl:1, 2; b.jsonl:4 and 197 more: the same",
        "  c.csv, rows 1, 9: another",
    ]


def test_how_to_go_on_is_said_where_some_rows_are_good(tmp_path):
    for good in (0, 3):
        bad = BadRows("rows.jsonl", "stop", tmp_path)
        bad.add(RowPlace("rows.jsonl", "line", 1), "empty")
        bad.add_good(good, {"text": "x"})
        assert ("bad_rows: skip" in message_of(bad)[-1]) == (good > 0)


def test_only_rows_of_another_kind_are_said_to_be_one(tmp_path):
    """A row with all the fields of a good one is a damaged one of the same kind."""
    for row, seen in (({"text": 5, "more": 1}, []), ({"body": "x"}, [([{"body": "x"}], False)])):
        bad, given = BadRows("rows.jsonl", "stop", tmp_path), []
        bad.add(RowPlace("rows.jsonl", "line", 1), "bad", "", row)
        bad.add_good(1, {"text": "x"})
        message_of(bad, lambda *arguments, given=given: given.append(arguments))
        assert given == seen


def test_what_is_kept_of_bad_rows_is_bounded(tmp_path):
    bad = BadRows("rows.jsonl", "stop", tmp_path)
    names = "x" * 5000
    tracemalloc.start()
    for number in range(1, 20_001):
        reason = f"{number} {names}" if number % 2 else names
        bad.add(RowPlace("rows.jsonl", "line", number), reason, names, {"text": names})
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000
    lines = message_of(bad)
    assert len(lines) == 12 and max(map(len, lines)) < 500
    assert lines[2] == f"  rows.jsonl:2, 4, 6 and 9997 more: {'x' * 400}…"


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
    assert events.of_type("table")[0]["rows"] == [["part.jsonl", 2, 1, "no field 'text'"]]


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
