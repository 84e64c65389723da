"""Rows of a file that several processes read are those of one that reads it alone, whatever becomes of the others."""

import json
import os
import random
import signal
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from support.rows import run_stage

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources import json_blocks, json_helpers
from tunemill.stages.data.sources.blocks import text_of
from tunemill.stages.data.sources.json_blocks import json_line_blocks
from tunemill.stages.data.sources.json_helpers import AHEAD, LEAST_BYTES, MOST_HELPERS, helpers_for
from tunemill.stages.data.sources.json_lines import json_lines
from tunemill.stages.data.sources.json_parts import BLOCK_BYTES, blocks_of_part, part_reader

ODD = (
    b"", b" \r", b"oops", b"[1]", b'{"a":1,"a":2}', b'{"a":1e400}', b'{"a":NaN}', b'{"a":1e-7}', b'{"a":"\xff"}',
    b'{"a":18446744073709551616}', b'{"a":"\\ud800"}', b'\xef\xbb\xbf{"a":1}', b'{"a":%b}' % (b"[" * 300 + b"]" * 300),
    b'{"a":"\\u0022","\\u0022":"\\u00e9"}', b'{"a":"' + b"long " * 9000 + b'"}', b'{"a":\x00}', b"{}{}",
)  # fmt: skip


def written(path, seed, count=6000, odd=0.003):
    """A file of rows of every kind; most are plain."""
    rng = random.Random(seed)
    lines = [
        rng.choice(ODD)
        if rng.random() < odd
        else json.dumps(
            {
                "messages": [{"role": "user", "content": 'é\n"x" [0.5]'[rng.randrange(6) :] * 20}],
                "n": number / 4,
            },
            ensure_ascii=rng.random() < 0.5,
        ).encode()
        for number in range(count)
    ]
    path.write_bytes(b"\n".join(lines) + rng.choice([b"", b"\n", b"\n\n"]))
    return path


def of_blocks(path, skip=0):
    return [
        pair for block in json_line_blocks(path, skip) for pair in zip(block.numbers, block.rows, strict=True)
    ]


@pytest.fixture
def helped(monkeypatch):
    """Two processes help with small parts, and have started before the first part is read. What they have read."""
    read, go_on, texts = [], json_helpers._go_on, json_helpers._texts

    def when_they_are_there(reading, part):
        if not read:
            assert all(helper.line.connection.poll(60) for helper in reading.helpers)
        go_on(reading, part)

    def counted(file, helper, place, found):
        read.append((helper, found))
        return texts(file, helper, place, found)

    monkeypatch.setattr(json_blocks, "helpers_for", lambda _: 2)
    monkeypatch.setattr(json_helpers, "PART_BYTES", BLOCK_BYTES * 2)
    monkeypatch.setattr(json_helpers, "_go_on", when_they_are_there)
    monkeypatch.setattr(json_helpers, "_texts", counted)
    return read


def parts_of(helped):
    return [found for _, found in helped if found]


@pytest.mark.parametrize("seed", range(3))
def test_the_same_rows_and_problems(tmp_path, helped, seed):
    path = written(tmp_path / "rows.jsonl", seed)
    expected = [(row.number, text_of(row)) for row in json_lines(path, 0)]
    assert of_blocks(path) == expected
    assert len(parts_of(helped)) > 2
    skip = random.Random(seed).randrange(1500)
    assert of_blocks(path, skip) == expected[skip:]


def test_the_same_files(tmp_path, helped, monkeypatch):
    """Also the rows that are set aside, with their lines."""
    path = written(tmp_path / "rows.jsonl", 5)
    config = DatasetConfig(path=str(path), bad_rows="skip")
    several, _ = run_stage(DATASET, config, tmp_path / "several")
    assert parts_of(helped)
    monkeypatch.setattr(json_blocks, "helpers_for", lambda _: 0)
    alone, _ = run_stage(DATASET, config, tmp_path / "alone")
    one, other = (
        {file.name: file.read_bytes() for file in done.path.iterdir() if file.is_file()}
        for done in (alone, several)
    )
    assert one == other and {"rows.arrow", "rejected.jsonl"} <= one.keys()


@pytest.mark.parametrize("killed", [1, 2])
def test_what_a_killed_process_leaves_is_read(tmp_path, helped, killed, monkeypatch):
    path = written(tmp_path / "rows.jsonl", 6)
    expected = [(row.number, text_of(row)) for row in json_lines(path, 0)]
    go_on, gone = json_helpers._go_on, []

    def go_on_and_kill(reading, part):
        if parts_of(helped) and not gone:
            gone.extend(reading.helpers[:killed])
            for helper in gone:
                os.kill(helper.line.process.pid, signal.SIGKILL)
        go_on(reading, part)

    monkeypatch.setattr(json_helpers, "_go_on", go_on_and_kill)
    assert of_blocks(path) == expected
    assert [helper.line.process.returncode for helper in gone] == [-signal.SIGKILL] * killed


def test_one_that_cannot_write_is_not_asked_again(tmp_path, helped, monkeypatch):
    path = written(tmp_path / "rows.jsonl", 7, odd=0)
    expected = of_blocks(path)
    assert parts_of(helped)
    helped.clear()
    monkeypatch.setattr(json_helpers, "TemporaryFile", Path("/dev/full").open)
    assert of_blocks(path) == expected
    assert not parts_of(helped)


def test_a_file_is_read_where_no_process_can_help(tmp_path, helped, monkeypatch):
    path = written(tmp_path / "rows.jsonl", 8)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert of_blocks(path) == [(row.number, text_of(row)) for row in json_lines(path, 0)]
    assert not helped


def test_processes_end_when_no_more_rows_are_wanted(tmp_path, helped):
    blocks = json_line_blocks(written(tmp_path / "rows.jsonl", 9), 0)
    while not parts_of(helped):
        next(blocks)
    blocks.close()
    assert all(helper.line.process.returncode == 0 for helper, _ in helped)


@pytest.mark.parametrize("part", [1, 7, 100, BLOCK_BYTES, 1 << 18])
def test_parts_have_every_line_once(part):
    rng = random.Random(part)
    for end in (b"", b"\n"):
        sizes = [rng.choice([0, 1, 2, 5, 90, 300]) for _ in range(60)] + [BLOCK_BYTES * 3, 4, BLOCK_BYTES - 1]
        content = b"\n".join(b"x" * size for size in (sizes if part > 7 else sizes[:60])) + end
        found = [
            (start, block)
            for first in range(0, len(content), part)
            for start, block in blocks_of_part(BytesIO(content), first, first + part)
        ]
        assert b"".join(block for _, block in found) == content
        assert all(content[start:].startswith(block) for start, block in found)
        assert all(block.endswith(b"\n") for _, block in found[:-1])


def test_texts_stand_in_the_place_that_was_asked_for(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b":  "x"}\n' * 50)
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        read = part_reader(path, 200, [first.fileno(), second.fileno()])
        (found,) = read(json_helpers.Asked(0, 1))
        assert (first.read(), second.read(sum(found.lengths))) == (
            b"",
            b'{"a":1}{"b":"x"}' * 10,
        )
        assert read(json_helpers.Asked(path.stat().st_size, 0)) == []


def test_small_files_and_one_core_need_no_help(monkeypatch):
    for cores, helpers in ((1, 0), (2, 1), (64, MOST_HELPERS)):
        monkeypatch.setattr(json_helpers, "cores", lambda cores=cores: cores)
        assert helpers_for(LEAST_BYTES - 1) == 0
        assert helpers_for(LEAST_BYTES) == helpers
    assert AHEAD > 1
