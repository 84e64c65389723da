"""Lines that orjson reads become the same rows, problems and bytes as with `json`, whatever stands in them."""

import json
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunemill.stages.data.dataset import row_writer
from tunemill.stages.data.dataset.row_writer import COLUMNS, RowWriter
from tunemill.stages.data.sources import json_blocks, json_parts
from tunemill.stages.data.sources.blocks import text_of
from tunemill.stages.data.sources.json_blocks import json_line_blocks
from tunemill.stages.data.sources.json_exactly import text_of_object
from tunemill.stages.data.sources.json_lines import count_lines, json_lines, row_of_line
from tunemill.stages.data.sources.json_parts import texts_of
from tunemill.stages.data.sources.json_text import json_text

# Pieces of which lines are made that the two readers could tell apart.
KEYS = ['"a"', '"b"', '"\\u0061"', '"é"', '"\\u0022"', '"\\""', '""', '"\\ud83d\\ude00"']
SCALARS = [
    *(
        "null",
        "true",
        "false",
        '""',
        '"x"',
        '"\\u0022"',
        '"\\"\\u0022"',
        '"\\/"',
        '"\\u00e9\\n\\b\\f\\u0001\x7f"',
    ),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00😀"',
        '"\\u2028\u2028\u0085\ufeff"',
        '"\\\\u0022"',
        '"a\tb"',
    ),
    *("0", "-0", "1", "-1", "01", "+1", "1.", ".5", "9223372036854775807", "-9223372036854775808"),
    *(
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "9" * 400,
    ),
    *(
        "0.0",
        "-0.0",
        "1.0",
        "1e5",
        "1E5",
        "1e+5",
        "1e15",
        "1e16",
        "123456789012345680.0",
        "1e17",
        "1e22",
        "1e23",
    ),
    *("0.0001", "0.00001", "1e-7", "5e-324", "1e-400", "1.7976931348623157e308", "1e308", "1e309", "1e400"),
    *("9007199254740993.0", "0.1234567890123456789", "2.50", "NaN", "Infinity", "-Infinity", "nan", "nul"),
]
SPACES = ["", " ", "  ", "\t", "\r", " \r ", "\x0b", "\x0c", "\u00a0", "\ufeff", "\0"]
BYTES = [
    b"",
    b"\n",
    b" ",
    b"\r",
    b"\x0b",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc3",
    b"\0",
    b"{}",
    b"}",
    b"]",
    b'"',
]


def values(draw, depth):
    """JSON of some depth, now and then with odd spaces."""
    space = draw(st.sampled_from(SPACES)) if draw(st.integers(0, 9)) == 0 else ""
    kind = draw(st.integers(0, 5)) if depth else 0
    if kind < 3:
        text = draw(st.sampled_from(SCALARS))
    elif kind == 3:
        text = "[" + ",".join(values(draw, depth - 1) for _ in range(draw(st.integers(0, 3)))) + "]"
    else:
        text = objects(draw, depth - 1)
    return space + text + space


def objects(draw, depth):
    separator = draw(
        st.sampled_from([":", ": ", " :", "::"] if draw(st.integers(0, 4)) == 0 else [":", ": "])
    )
    count = draw(st.integers(0, 3))
    fields = [draw(st.sampled_from(KEYS)) + separator + values(draw, depth) for _ in range(count)]
    return "{" + draw(st.sampled_from([",", ", "])).join(fields) + "}"


@st.composite
def lines(draw):
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return b"".join(draw(st.lists(st.sampled_from(BYTES), max_size=4))) + b"\n"
    if kind == 1:
        text = json.dumps(draw(anything()), ensure_ascii=draw(st.booleans()))
    elif kind == 2:
        text = values(draw, 2)
    else:
        text = objects(draw, 3)
    line = text.encode(errors="surrogatepass") + draw(st.sampled_from([b"\n", b"\r\n", b" \n"]))
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(line)))
        line = line[:cut] + draw(st.sampled_from(BYTES)) + line[cut:]
    return line


def anything():
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
    return st.recursive(
        plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
    )


def of_blocks(path, skip=0):
    """Number and text or problem of each row, as blocks have them."""
    found = []
    for block in json_line_blocks(path, skip):
        assert block.rows and len(block.rows) == len(block.numbers)
        assert block.is_whole == all(isinstance(row, bytes) for row in block.rows)
        found += zip(block.numbers, block.rows, strict=True)
    return found


def of_rows(path, skip=0):
    """The same, as `json` has them."""
    return [(row.number, text_of(row)) for row in json_lines(path, skip)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(lines(), max_size=12), st.integers(0, 13))
def test_the_same_rows_and_problems(tmp_path_factory, some, skip):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(b"".join(some))
    rows = of_rows(path)
    assert of_blocks(path) == rows
    assert of_blocks(path, skip) == rows[skip:]
    assert count_lines(path) == len(rows)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines())
def test_a_line_is_read_exactly_or_left_alone(line):
    texts = texts_of([line])
    if texts is not None:
        assert texts == [text_of(row_of_line(1, line.strip()))]


def test_every_piece_alone():
    for text in (*SCALARS, *(json.dumps(chr(code)) for code in range(0x2100))):
        for line in (f'{{"a":{text}}}', f'{{"a":[{text}, {text}]}}', text):
            texts = texts_of([line.encode()])
            assert texts is None or texts == [text_of(row_of_line(1, line.encode()))], line


def test_a_key_that_stands_twice_beside_escaped_quotation_marks():
    line = b'{"x":1,"x":"\\u0022\\u0022"}'
    assert line.count(b'"') == json.dumps(json.loads(line)).count('"')
    assert texts_of([line]) is None


def test_rows_are_left_out_over_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(json_parts, "BLOCK_BYTES", 30)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"n":{n}}}\n' + "\n" * (n % 3) + "oops\n" * (n % 5 == 0) for n in range(40)))
    rows = of_rows(path)
    assert len(list(json_line_blocks(path, 0))) > 10
    for skip in range(len(rows) + 2):
        assert of_blocks(path, skip) == rows[skip:]


def test_every_character_is_written_alike():
    characters = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    for escaped in (True, False):
        line = json.dumps({"a": characters, characters[:70000]: 1}, ensure_ascii=escaped).encode()
        expected = text_of(row_of_line(1, line))
        assert texts_of([line]) == [expected]


def test_fractions_are_written_alike_or_left_alone():
    rng = random.Random(3)
    numbers = [rng.uniform(-10, 10) * 10 ** rng.randint(-30, 30) for _ in range(20000)]
    numbers += [float(rng.randint(-(10**18), 10**18)) for _ in range(5000)] + [
        10.0**n for n in range(-40, 40)
    ]
    left = 0
    for number in numbers:
        line = f'{{"a":{number!r}}}'.encode()
        texts = texts_of([line])
        left += texts is None
        assert texts in (None, [line])
    assert left < len(numbers) * 0.7
    usual = [line for n in range(1000) if (line := f'{{"a":{n / 1000}}}'.encode()) and n > 0]
    assert texts_of(usual) == usual


def test_only_odd_lines_need_json(tmp_path, monkeypatch):
    """An odd line costs itself, and not the others of its block."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f'{n} "é"\n[0.5, 1e400]'}], "score": n / 4}
        for n in range(3000)
    ]
    good = [json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(rows)]
    good[100] += "\n\n \n"
    good[1000] = '{"a":1,"a":2}'
    good[2000] = "oops"
    path.write_text("\n".join(good))
    expected = of_rows(path)
    asked = []

    def row_by_json(number, text):
        asked.append(number)
        return row_of_line(number, text)

    monkeypatch.setattr(json_blocks, "row_of_line", row_by_json)
    assert of_blocks(path) == expected
    assert asked == [1004, 2004]


@pytest.mark.parametrize("levels", [99, 100, 101, 102, 254, 256, 257, 1100])
def test_depth(tmp_path, levels):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}\n" + '{"a":{"a":1}}\n')
    assert of_blocks(path) == of_rows(path)


ODD = st.sampled_from(
    [date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.50"), UUID(int=7), b"x", (1, 2)]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4) | ODD
NAMES = st.text(max_size=3) | st.sampled_from([1, None, True, "\ud800"])
INSIDE = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(NAMES, LEAVES, max_size=2)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, INSIDE | st.lists(INSIDE, max_size=2), max_size=3) | LEAVES)
def test_values_of_tables_are_written_alike_or_left_alone(value):
    text = text_of_object(value)
    assert text is None or text == json_text(value).encode()


def test_plain_values_need_no_json():
    for value in ({"a": [1, {"b": None, "c": 0.5}], "d": True}, {}, {"é": "\x01"}):
        assert text_of_object(value) == json_text(value).encode()
    for value in ({"a": 2**70}, {"a": float("nan")}, {"a": 1e16}, {1: 2}, {"a": date(2026, 1, 2)}, [1], None):
        written = text_of_object(value)
        assert written is None or (value == {"a": 1e16} and written == b'{"a":1e+16}')


def batches(path):
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        return [reader.get_batch(index).to_pydict() for index in range(reader.num_record_batches)]


@pytest.mark.parametrize("most", [40, 1000, 1 << 24])
def test_batches_hold_as_many_rows_or_characters(tmp_path, monkeypatch, most):
    """However the rows come, the file has the bytes of one to which they were given one at a time."""
    monkeypatch.setattr(row_writer, "BATCH_CHARACTERS", most)
    monkeypatch.setattr(row_writer, "BATCH_ROWS", 50)
    rng = random.Random(most)
    texts = ["é€x😀"[rng.randrange(4)] * rng.randrange(12) for _ in range(700)]
    told, contents = [], []
    for step in (1, 3, 64, 700):
        target = tmp_path / f"{step}.arrow"
        with RowWriter(target, "row", told.append) as writer:
            for start in range(0, 700, step):
                part = [text.encode() for text in texts[start : start + step]]
                writer.add(part, range(start, start + len(part)), "é.jsonl")
        assert writer.written == 700
        contents.append(target.read_bytes())
    assert contents == [contents[0]] * 4
    found = batches(tmp_path / "1.arrow")
    assert [text for batch in found for text in batch["row"]] == texts
    assert [number for batch in found for number in batch["line"]] == list(range(700))
    for batch in found[:-1]:
        size = sum(map(len, batch["row"]))
        assert len(batch["row"]) == 50 or size - len(batch["row"][-1]) < most <= size
    ends = [sum(len(batch["row"]) for batch in found[: index + 1]) for index in range(len(found))]
    assert set(told) <= {*ends, 700}


def test_batches_are_those_that_arrow_makes_of_lists(tmp_path):
    texts = ["", "é", "x" * 100, "😀"]
    with pa.OSFile(str(tmp_path / "lists.arrow"), "wb") as sink:
        schema = pa.schema(COLUMNS, metadata={"unit": "line"})
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch([texts, [1, 2, 5, 7], ["f"] * 4], schema=schema))
    with RowWriter(tmp_path / "bytes.arrow", "line", lambda _: None) as writer:
        writer.add([text.encode() for text in texts], [1, 2, 5, 7], "f")
    assert (tmp_path / "bytes.arrow").read_bytes() == (tmp_path / "lists.arrow").read_bytes()


def test_what_stops_the_writing_is_raised():
    with pytest.raises(OSError, match="No space"), RowWriter("/dev/full", "line", lambda _: None) as writer:
        for _ in range(4):
            writer.add([b"{}" * 5000] * 1024, range(1024), "")
