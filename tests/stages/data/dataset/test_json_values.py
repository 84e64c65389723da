"""What JSON rows may hold: each value that could not be kept as it is makes one bad row, in lines and in arrays."""

import json

import pytest
from support.rows import read_arrow, run_stage

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.pretraining_data.body import text_of
from tunemill.stages.data.sources.files import row_file
from tunemill.stages.data.sources.json_values import MOST_LEVELS
from tunemill.stages.data.sources.unpacking import READ_SIZE
from tunemill.stages.errors import RowError

HALF = "a string holds half a surrogate pair, which is not a character"
DEEP = f"arrays and objects lie in one another more than {MOST_LEVELS} levels deep"
LOST = "; where it ends cannot be told, so what comes after it is not read"
NOT_JSON = "invalid JSON: "


def nested(levels):
    return b"[" * levels + b"]" * levels


# What stands in place of a row, why it is none, and that without what is said of its place.
VALUES = {
    "large": (b'{"x":1e400}', "1e400 is larger than a number can be, which is 1.797e308"),
    "large inside": (b'{"x":[{"y":-1E+999}]}', "-1E+999 is larger than a number can be, which is 1.797e308"),
    "nan": (b'{"x":[NaN]}', NOT_JSON + "NaN is not a JSON value"),
    "infinity": (b'{"x":{"y":Infinity}}', NOT_JSON + "Infinity is not a JSON value"),
    "minus": (b'{"x":-Infinity}', NOT_JSON + "-Infinity is not a JSON value"),
    "twice": (b'{"x":1,"y":2,"x":1}', "the key 'x' stands twice in one object; keep one of them"),
    "inside": (b'{"m":[{"r":1,"r":2}]}', "the key 'r' stands twice in one object; keep one of them"),
    "escaped": (b'{"x":1,"\\u0078":2}', "the key 'x' stands twice in one object; keep one of them"),
    "quotes": (
        b'{"x":"\\u0022","x":"\\u0022\\u0022"}',
        "the key 'x' stands twice in one object; keep one of them",
    ),
    "half": (b'{"x":"a\\ud800b"}', HALF),
    "other half": (b'{"x":[{"\\udc00":1}]}', HALF),
    "digits": (b'{"x":-' + b"7" * 5000 + b"}", f"-{'7' * 39}… has 5000 digits, which are too many"),
    "deep": (b'{"x":' + nested(MOST_LEVELS) + b"}", DEEP),
    "deeper": (b'{"x":' + nested(100_000) + b"}", DEEP),
    "array": (b"[1]", "not an object but an array; a row is an object of named fields"),
    "number": (b"12", "not an object but a number; a row is an object of named fields"),
}
# Faults of the text: their place is the column of a line, or the line in an array.
TEXTS = {
    "nul": (b'{"x":"a\0b"}', NOT_JSON + "Invalid control character at ({}, a byte of value 0)", 8),
    "nuls": (b"\0\0\0", NOT_JSON + "Expecting value ({}, a byte of value 0)", 1),
    "tab": (b'{"x":"a\tb"}', NOT_JSON + "Invalid control character at ({})", 8),
    "value": (b'{"x":}', NOT_JSON + "Expecting value ({})", 6),
    "word": (b"oops", NOT_JSON + "Expecting value ({})", 1),
    "quotes": (b"{'x':1}", NOT_JSON + "Expecting property name enclosed in double quotes ({})", 2),
    "escape": (b'{"x":"\\z","y":"]"}', NOT_JSON + "Invalid \\escape ({})", 7),
    "zeros": (b'{"x":01}', NOT_JSON + "Expecting ',' delimiter ({})", 7),
}
BYTES = {"string": (b'{"x":"\xe9]"}', 7), "alone": (b"\xff", 1), "key": (b'{"a":1,"\xed\xa0\x80":1}', 9)}


def rejected_of(tmp_path, content):
    """Rows before and behind a bad one, and what is said of it."""
    source = tmp_path / "rows.jsonl"
    source.write_bytes(content)
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source), bad_rows="skip"), tmp_path / "out")
    entries = [json.loads(line) for line in (dataset.path / "rejected.jsonl").read_text().splitlines()]
    return [(row["row"], row["line"]) for row in read_arrow(dataset.rows)], entries


def in_lines(tmp_path, bad):
    rows, (entry,) = rejected_of(tmp_path, b'{"a":1}\n' + bad + b'\n{"b":2}\n')
    assert rows == [('{"a":1}', 1), ('{"b":2}', 3)]
    assert (entry["line"], entry["row"]) == (2, bad.decode(errors="replace"))
    return entry["reason"]


def in_array(tmp_path, bad):
    rows, (entry,) = rejected_of(tmp_path, b'[{"a":1},\n\n' + bad + b',\n{"b":2}]')
    assert rows == [('{"a":1}', 1), ('{"b":2}', 3)]
    assert (entry["number"], entry["row"].replace(" ", "")) == (
        2,
        bad.decode(errors="replace").replace(" ", ""),
    )
    return entry["reason"]


@pytest.mark.parametrize("name", VALUES)
def test_values(tmp_path, name):
    bad, reason = VALUES[name]
    assert in_lines(tmp_path / "lines", bad) == reason
    place = "" if reason.startswith("not an object") else " (line 3)"
    assert in_array(tmp_path / "array", bad) == reason + place


@pytest.mark.parametrize("name", TEXTS)
def test_texts(tmp_path, name):
    bad, reason, column = TEXTS[name]
    assert in_lines(tmp_path / "lines", bad) == reason.format(f"column {column}")
    assert in_array(tmp_path / "array", bad) == reason.format("line 3")


@pytest.mark.parametrize("name", BYTES)
def test_bytes(tmp_path, name):
    bad, number = BYTES[name]
    assert in_lines(tmp_path / "lines", bad) == f"not UTF-8: byte {number} of the line"
    assert in_array(tmp_path / "array", bad) == "not UTF-8 (line 3)"


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in ("lines", "array"):
        (tmp_path / name).mkdir()


def test_newlines_in_a_string_of_an_array(tmp_path):
    assert in_array(tmp_path / "array", b'{"x":"a\nb"}') == NOT_JSON + "Invalid control character at (line 3)"


@pytest.mark.parametrize(
    ("content", "good", "number", "reason", "text"),
    [
        (b'[{"a":1},{"b":2},{"c":', 2, 3, NOT_JSON + "Expecting value (line 1)" + LOST, '{"c":'),
        (b'[{"a":1},{"b":"x', 1, 2, NOT_JSON + "Unterminated string starting at (line 1)" + LOST, '{"b":"x'),
        (b'[{"a":1},\n', 1, 2, NOT_JSON + "Expecting value (line 2)" + LOST, ""),
        (b'[{"a":1},\n{"b":[2},\n{"c":3}]', 1, 2, NOT_JSON + "Expecting ',' delimiter (line 2)" + LOST, None),
        (
            b'[{"a":1},{"b":2} {"c":3},\n{"d":4}]',
            2,
            2,
            NOT_JSON + "expected a comma or the closing bracket after it (line 1)",
            '{"b":2}{"c":3}',
        ),
        (
            b'[{"a":1}]\xff\n',
            1,
            2,
            NOT_JSON + "there is more after the closing bracket of the array (line 1)",
            "\ufffd\n",
        ),
        (
            b'[\n{"a":1},\n{"b":2}\n]\n{"c":3}',
            2,
            3,
            NOT_JSON + "there is more after the closing bracket of the array (line 5)",
            '{"c":3}',
        ),
    ],
)
def test_arrays_that_end_badly(tmp_path, content, good, number, reason, text):
    rows, (entry,) = rejected_of(tmp_path, content)
    assert len(rows) == good
    assert (entry["number"], entry["reason"]) == (number, reason)
    assert text is None or entry["row"] == text


def test_bad_elements_that_lie_across_reads(tmp_path):
    long = b"x" * (READ_SIZE * 2)
    bad = [
        b'{"t":"' + long + b'\xff"}',
        b'{"t":"' + long + b'","t":1}',
        b'{"t":"' + long + b'"\x00}',
        b"[" * 2000,
    ]
    content = b'[{"a":1},' + b',{"g":1},\n'.join(bad) + b"]" * 2000 + b',{"b":2}]'
    rows, entries = rejected_of(tmp_path, content)
    assert [number for _, number in rows] == [1, 3, 5, 7, 9]
    assert [(entry["number"], entry["reason"]) for entry in entries] == [
        (2, "not UTF-8 (line 1)"),
        (4, "the key 't' stands twice in one object; keep one of them (line 2)"),
        (6, NOT_JSON + "Expecting ',' delimiter (line 3, a byte of value 0)"),
        (8, DEEP + " (line 4)"),
    ]


def test_numbers_that_are_kept(tmp_path):
    large = 18446744073709551616
    source = tmp_path / "rows.jsonl"
    source.write_text(
        f'{{"n":[{large},-{large},{"9" * 4300},9223372036854775808,-0]}}\n'
        '{"n":{"x":[-0.0,1E5,1e16,1e-5,2.50,1e-400,1.7976931348623157e308,0.1234567890123456789,1e22]}}\n'
    )
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "out")
    assert [row["row"] for row in read_arrow(dataset.rows)] == [
        f'{{"n":[{large},-{large},{"9" * 4300},9223372036854775808,0]}}',
        '{"n":{"x":[-0.0,100000.0,1e+16,1e-05,2.5,0.0,1.7976931348623157e+308,0.12345678901234568,1e+22]}}',
    ]


def test_the_deepest_row_that_is_read_can_be_read_again(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'{"x":' + nested(MOST_LEVELS - 1) + b',"y":"[[[{{{"}\n')
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "out")
    assert read_arrow(dataset.rows)[0]["row"].encode() + b"\n" == source.read_bytes()


def test_texts_to_pretrain_on_are_held_to_the_same(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'{"text":"a"}\n{"text":"\\ud800"}\n{"text":1e400}\n{"text":"a","text":"b"}\n')
    first, *others = row_file(source, "json", "", "rows.jsonl", "rows.jsonl", tmp_path).read(0)
    assert text_of(first, "text") == "a"
    for row, reason in zip(others, (HALF, "1e400 is larger", "the key 'text' stands twice"), strict=True):
        with pytest.raises(BadRowError, match=reason):
            text_of(row, "text")


def test_a_row_that_cannot_be_used_stops_with_its_place(tmp_path):
    source = tmp_path / "rows.json"
    source.write_bytes(b'[{"a":1},\xff]')
    with pytest.raises(RowError, match=r"1 row of rows\.json .*\n  rows\.json, row 2: not UTF-8 \(line 1\)"):
        run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "out")
