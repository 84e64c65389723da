"""Rows that are no CSV: each is one bad row with its line, and those around it are read."""

import json
import random

import pytest
from support.rows import read_arrow, run_stage

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources import csv_files
from tunemill.stages.data.sources.csv_files import csv_rows
from tunemill.stages.errors import RowError, SourceError

HEADER = b"a,b\n"


def read(tmp_path, content, delimiter=","):
    """The good rows by line, and the bad ones."""
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    rows = list(csv_rows(path, delimiter))
    good = {row.number: list(row.value.values()) for row in rows if row.problem is None}
    return good, {row.number: row.problem for row in rows if row.problem is not None}


OPEN, AFTER = "never closed", "text behind a closing quote"
CASES = {
    "text behind a closing quote": (b'"Hello" she said,world\n1,2\n', {3: ["1", "2"]}, {2: AFTER}),
    "a quote behind a comma in one line": (b'"Hello," she said,world\n1,2\n', {3: ["1", "2"]}, {2: AFTER}),
    "a quote that is never closed": (b'1,2\n"x,y\n3,4\n', {2: ["1", "2"], 4: ["3", "4"]}, {3: OPEN}),
    "one that is never closed in the last value": (b'1,"x\n3,4\n', {3: ["3", "4"]}, {2: OPEN}),
    "one in the last line": (b'1,2\n3,"x', {2: ["1", "2"]}, {3: OPEN}),
    "one before quoted rows": (b'"x,y\n"3","4"\n"5","6"\n', {3: ["3", "4"], 4: ["5", "6"]}, {2: OPEN}),
    "one before a row with a quoted second value": (b'1,"x\n3,"4"\n', {3: ["3", "4"]}, {2: OPEN}),
    "one before rows with quotes in the text": (
        b'"x,y\n3,4\nsay "hi",5\n', {3: ["3", "4"], 4: ['say "hi"', "5"]}, {2: OPEN},
    ),
    "two": (b'"x,y\n3,4\n"z,w\n5,6\n', {3: ["3", "4"], 5: ["5", "6"]}, {2: OPEN, 4: OPEN}),
    "one behind a value of two lines": (b'"x\ny","z\n3,4\n', {4: ["3", "4"]}, {2: OPEN}),
    "a text of two lines with more behind its quote": (b'"one\ntwo" more,x\n3,4\n', {4: ["3", "4"]}, {2: AFTER}),
    "more behind a quote, then a value of two lines": (b'"x" y,"one\ntwo"\n3,4\n', {4: ["3", "4"]}, {2: AFTER}),
    "paragraphs": (b'"one, two\n\nthree, four" five,x\n3,4\n', {5: ["3", "4"]}, {2: AFTER}),
    "too many values": (b"1,2,3\n4,5\n", {3: ["4", "5"]}, {2: "3 values, the header has 2 columns"}),
    "too few": (b"1\n4,5\n", {3: ["4", "5"]}, {2: "1 values, the header has 2 columns"}),
    "values of several lines": (
        b'"one\ntwo\r\nthree",x\r\n\n3,4,5\n6,7\n', {2: ["one\ntwo\r\nthree", "x"], 7: ["6", "7"]}, {6: "3 values"},
    ),
    "a NUL byte": (b"1,\0\n3,4\n", {3: ["3", "4"]}, {2: "holds a NUL byte, number 3 of the line"}),
    "bytes that are not UTF-8": (b"\xc3\xa9,\xe9\n3,4\n", {3: ["3", "4"]}, {2: "not UTF-8: byte 4 of the line"}),
    "such bytes in a second line": (b'"x\ny\xff",z\n3,4\n', {4: ["3", "4"]}, {2: "not UTF-8: byte 2 of line 3"}),
    "a lone half of a pair": (b"\xed\xa0\x80,1\n3,4\n", {3: ["3", "4"]}, {2: "not UTF-8: byte 1 of the line"}),
    "both": (b'"x" \xff,1\n3,4\n', {3: ["3", "4"]}, {2: AFTER}),
    "quotes that are right": (b'"say ""hi""",""\n"""x""","a,b"\n', {2: ['say "hi"', ""], 3: ['"x"', "a,b"]}, {}),
    "quotes inside of a bare value": (b'5" pipe,x"y"\n', {2: ['5" pipe', 'x"y"']}, {}),
    "ends of lines of an old Mac": (b"1,2\r3,4\r", {2: ["1", "2"], 3: ["3", "4"]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_row_that_is_no_csv(tmp_path, name):
    content, expected, problems = CASES[name]
    good, bad = read(tmp_path, HEADER + content)
    assert good == expected
    assert list(bad) == list(problems)
    assert all(reason in bad[line] for line, reason in problems.items()), bad


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("quotes that are right", "both")])
def test_tsv_has_the_same_bad_rows(tmp_path, name):
    content, expected, problems = CASES[name]
    good, bad = read(tmp_path, (HEADER + content).replace(b",", b"\t"), "\t")
    assert good == {line: [value.replace(",", "\t") for value in values] for line, values in expected.items()}
    assert list(bad) == list(problems)


def test_one_column_whose_text_has_more_behind_its_quote(tmp_path):
    good, bad = read(tmp_path, b'text\n"one\ntwo\nthree" four\nfive\n')
    assert (good, list(bad)) == ({5: ["five"]}, [2])
    assert read(tmp_path, b'text\n"one\ntwo" three "four\nfive\n')[0] == {4: ["five"]}


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_row_costs_no_other(tmp_path, seed):
    """Rows of quoted and bare values, into some of which a fault is put."""
    draw = random.Random(seed)
    faults = ['"x" y,1', '"x" y,"1"', "1,2,3", '1,"2" 3', "1,\0"]
    lines, expected, broken = ["a,b"], {}, []
    for number in range(60):
        line = sum(text.count("\n") + 1 for text in lines) + 1
        if draw.random() < 0.2:
            lines.append(draw.choice(faults))
            broken.append(line)
        else:
            values = [draw.choice([f"v{number}", 'say "no"', "a,b", "one\ntwo", "", "é"]) for _ in "ab"]
            quoted = ['"' + value.replace('"', '""') + '"' for value in values]
            lines.append(",".join(quoted))
            expected[line] = values
    good, bad = read(tmp_path, "\n".join(lines).encode())
    assert (good, list(bad)) == (expected, broken)


def test_lines_are_what_messages_and_results_say(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n"x\ny",1\n"Hello" she said,world\n2,3\n')
    with pytest.raises(
        RowError, match=r"1 row of rows\.csv cannot be used:\n  rows\.csv:4: not CSV: text behind a"
    ):
        run_stage(DATASET, DatasetConfig(path=str(path)), tmp_path / "stop")
    dataset, events = run_stage(DATASET, DatasetConfig(path=str(path), bad_rows="skip"), tmp_path / "skip")
    assert [row["line"] for row in read_arrow(dataset.rows)] == [2, 5]
    rejected = json.loads((dataset.path / "rejected.jsonl").read_text())
    assert (rejected["line"], rejected["row"]) == (4, '"Hello" she said,world')
    assert events.summary == {"rejected": 1, "rows": 2, "source": "file"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,a\n1,2\n", r"rows\.csv: the header names \['a'\] more than once"),
        (b'"a" b,c\n1,2\n', r"rows\.csv: line 1, the header, is not CSV: text behind a closing quote"),
        (
            b'"a,b\n1,2\n',
            r"rows\.csv: line 1, the header, is not CSV: a quote is opened in this line and never",
        ),
        (
            "a,b\n1,2\n".encode("utf-16"),
            r"rows\.csv: text in UTF-16 or UTF-32",
        ),
        (b"a,\xe9\n1,2\n", r"the header is not UTF-8: byte 3 of the line"),
        (b"a,b\0\n1,2\n", r"the header is not a text: it holds a NUL byte, number 4 of the line"),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        run_stage(DATASET, DatasetConfig(path=str(path)), tmp_path / "out")


def test_names_that_differ_by_spaces_are_different_columns(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a, a\n1,2\n")
    assert [row.value for row in csv_rows(path, ",")] == [{"a": "1", " a": "2"}]


def test_blank_lines_before_the_header(tmp_path):
    assert read(tmp_path, b"\n\r\na,b\n1,2\n") == ({4: ["1", "2"]}, {})


def test_a_quote_does_not_take_in_more_lines_than_a_row_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "MOST_LINES", 5)
    good, bad = read(tmp_path, HEADER + b'"x,y\n' + b"1,2\n" * 20)
    assert (len(good), list(bad)) == (20, [2])


def test_byte_order_marks_of_files_put_behind_each_other_are_dropped(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('\ufeffa,b\n1,2\n\ufeff3,4\n\ufeff"5\n\ufeff6",7\n\ufeff\n8,\ufeff9\n')
    assert [tuple((row.value or {}).values()) for row in csv_rows(path, ",")] == [
        ("1", "2"),
        ("3", "4"),
        ("5\n\ufeff6", "7"),
        ("8", "\ufeff9"),
    ]
