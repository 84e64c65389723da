"""The line at fault, with marks under the fault: tabs, wide and invisible characters, long lines, overrides."""

import json
import re
import unicodedata

import pytest
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.config.document import read_document
from tunemill.pipelines.config.spans import Span, escaped, lines_of, pointer


def width_of(text):
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@pytest.mark.parametrize(
    ("line", "column", "end", "shown"),
    [
        ("key: value", 6, 11, ["key: value", "     ^~~~~"]),
        ("\tkey: 1", 2, 5, ["    key: 1", "    ^~~"]),
        ("a\tkey: 1", 3, 6, ["a   key: 1", "    ^~~"]),
        ("日本: 語", 5, 6, ["日本: 語", "      ^~"]),
        ("a\x1b[31m: b", 9, 10, ["a\\x1b[31m: b", "           ^"]),
        ("e\u0301: b", 5, 6, ["e\u0301: b", "   ^"]),
        ("a\u202eb: c", 6, 7, ["a\\u202eb: c", "          ^"]),
        ("key:", 5, 5, ["key:", "    ^"]),
        ("key", 9, 12, ["key", "   ^"]),
        ("   ", 1, 1, []),
    ],
)  # fmt: skip
def test_the_mark_stands_under_the_fault(line, column, end, shown):
    assert pointer(Span(1, column, end, line), 80) == shown


@pytest.mark.parametrize("letter", ["a", "日", "\t", "\x1b"])
@pytest.mark.parametrize("place", [0, 500, 999])
@pytest.mark.parametrize("length", [1, 9, 300])
def test_a_long_line_is_cut_around_the_fault(letter, place, length):
    line = letter * place + "F" + letter * (999 - place)
    shown, marks = pointer(Span(1, place + 1, place + 1 + length, line), 60)
    assert width_of(shown) <= 60 and len(marks) <= 60 and "..." in shown
    before = len(marks) - len(marks.lstrip())
    assert width_of(shown[: shown.index("F")]) == before


def test_a_line_as_long_as_a_file_costs_nothing():
    line = "x" * 250_000
    assert len(pointer(Span(1, 200_000, 200_010, line), 100)[0]) <= 100


@pytest.mark.parametrize("text", ["a\r\nb", "a\rb", "a\u2028b", "a\x85b", "\ufeffa\nb"])
def test_lines_are_counted_as_in_yaml(text):
    assert lines_of(text) == ["a", "b"]


def test_escapes_leave_what_can_be_seen():
    assert escaped("é日 🙂\x07\n\x9b\u202e\ud800") == "é日 🙂\\x07\\n\\x9b\\u202e\\ud800"


@pytest.fixture
def yaml_file(tmp_path):
    return make_project(tmp_path / "project").yaml


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("learnin_rate: 3", "learnin_rate"),
        ("seed: abc", "abc"),
        ("seed:   'abc'", "'abc'"),
        ("seed: !!str abc", "!!str abc"),
        ("tokens: [a, 3]", "3"),
        ("warmup_steps: 1\nwarmup_ratio: 0.5", "warmup_steps"),
        ("lr_scheduler: cosin # as always", "cosin"),
        ("lora_r: .nan", ".nan"),
        ("use_onebitllms: true", "use_onebitllms"),
        ("special_tokens: {pad_tokn: x}", "pad_tokn"),
        ("seed: 5 \nseed: 6", "seed"),
    ],
)  # fmt: skip
def test_key_or_value_is_marked(yaml_file, monkeypatch, capsys, text, marked):
    monkeypatch.setenv("COLUMNS", "100")
    kept = [line for line in yaml_file.read_text().splitlines() if not line.startswith("lora_r:")]
    yaml_file.write_text("\n".join([*kept, text]) + "\n")
    assert main(["check", str(yaml_file)]) == 1
    lines = capsys.readouterr().err.splitlines()
    found = [
        lines[i - 1][line.index("^") : len(line)]
        for i, line in enumerate(lines)
        if re.fullmatch(r" *\^~*", line)
    ]
    assert marked in found


def test_json_has_the_place_as_fields(yaml_file, capsys):
    yaml_file.write_text(yaml_file.read_text() + "seed: abc\n")
    assert main(["check", str(yaml_file), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)
    line = yaml_file.read_text().splitlines()[problem["line"] - 1]
    assert line[problem["column"] - 1 : problem["end"] - 1] == "abc"
    assert main(["check", str(yaml_file), "--json", "seed=1", "--sequence_len", "x"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)
    assert problem["override"] == "--sequence_len x"
    assert problem["override"][problem["column"] - 1 : problem["end"] - 1] == "x"


def test_what_is_no_yaml_is_marked_too(yaml_file, capsys):
    yaml_file.write_text("a: 1\nb: [1, 2\nc: 3\n")
    assert main(["check", str(yaml_file)]) == 1
    message, line, mark = capsys.readouterr().err.splitlines()
    assert f"{yaml_file}:3:" in message and line == "c: 3" and mark.strip().startswith("^")


def test_nothing_that_a_terminal_obeys_is_printed(yaml_file, capsys):
    yaml_file.write_text(
        yaml_file.read_text() + '"a\\x1b[2Jb\\nfake": 1\noptimizer: "\\e]0;x\\a"\nseed: "\\u202e\\x9b"\n'
    )
    arguments = ["check", str(yaml_file), "--a\x1b[31m=1", "--lr_scheduler=\x1b[5m"]
    for command in (arguments, [*arguments, "--json"]):
        assert main(command) == 1
        said = "".join(capsys.readouterr())
        assert not [
            letter for letter in said if letter != "\n" and unicodedata.category(letter) in ("Cc", "Cf")
        ]
    assert "\\x1b[2Jb\\nfake" in escaped("a\x1b[2Jb\nfake")


def test_the_value_of_an_alias_is_shown_where_it_is_used(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("a: &name text\nb: *name\n")
    document = read_document(path)
    assert document.span(("b",), of_value=True).line == 2
