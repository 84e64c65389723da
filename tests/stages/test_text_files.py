"""Text files of a user: a byte order mark is dropped, and other encodings are refused with line and fix."""

import codecs

import pytest

from tunemill.stages.errors import SourceError
from tunemill.stages.text_files import fault_of_text_file, text_of_file, without_mark


@pytest.mark.parametrize("data", [b"a\nb\n", b"a\r\nb\r\n", b"a\rb\r", codecs.BOM_UTF8 + b"a\r\nb\n"])
def test_marks_and_ends_of_lines_are_no_part_of_the_text(tmp_path, data):
    file = tmp_path / "file"
    file.write_bytes(data)
    assert text_of_file(file) == "a\nb\n"


def test_a_mark_within_the_text_stays():
    assert without_mark("a\ufeffb") == "a\ufeffb"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("a\nbé\n".encode("latin-1"), "line 2: the byte 0xe9 is no UTF-8; save the file as UTF-8"),
        ("é".encode("latin-1"), "line 1: the byte 0xe9"),
        ("a\r\n\r\né".encode("latin-1"), "line 3: the byte 0xe9"),
        ("aé".encode("utf-16"), "line 1: the file is UTF-16; save it as UTF-8"),
        (codecs.BOM_UTF16_BE + "a".encode("utf-16-be"), "line 1: the file is UTF-16"),
        ("a".encode("utf-32"), "line 1: the file is UTF-32"),
        ("a\nb".encode("utf-16-le"), "line 1: a zero byte"),
        (b"a\nb\0", "line 2: a zero byte"),
        (b"a\n\xed\xa0\x80", "line 2: the byte 0xed"),
        (b"a\n\xc3", "line 2: the byte 0xc3"),
    ],
)
def test_other_encodings_are_refused_with_the_line(tmp_path, data, reason):
    file = tmp_path / "mine.jinja"
    file.write_bytes(data)
    assert f"{file}, {reason}" in str(fault_of_text_file(file))
    with pytest.raises(SourceError, match="UTF-8"):
        text_of_file(file)
