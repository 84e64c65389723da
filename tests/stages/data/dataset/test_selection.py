"""`split` and `shards` take the rows that the datasets library takes."""

import itertools
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.arrow_reader import ReadInstruction
from pydantic import ValidationError
from support.rows import read_arrow, run_stage, write_lines

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.shards import rows_of_shard
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources.blocks import blocks_of_ranges
from tunemill.stages.data.sources.rows import Row, RowFile, RowSource
from tunemill.stages.data.sources.selection import rows_of
from tunemill.stages.data.sources.split import Range, choose_ranges, parse_split
from tunemill.stages.errors import RowError, SettingError

BOUNDS = ["", "0", "1", "3", "7", "-1", "-4", "40", "-40"]
PERCENTS = ["", "0%", "1%", "10%", "25%", "33%", "50%", "99%", "100%", "-10%", "-33%", "-100%"]


def numbers(tmp_path, source, **config):
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source), **config), tmp_path / "out")
    return [json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)]


@pytest.mark.parametrize("rows", [0, 1, 3, 10, 31, 250])
def test_every_slice_is_that_of_the_library(rows):
    lengths = {"train": rows, "test": 7}
    pairs = [*itertools.product(BOUNDS, BOUNDS), *itertools.product(PERCENTS, PERCENTS)]
    specs = [f"train[{start}:{stop}]" for start, stop in pairs]
    specs += ["train", "test[2:]+train[:5]", "train[:10%] + test + train[-10%:]"]
    if rows >= 100:
        specs += [
            f"train[{start}:{stop}](pct1_dropremainder)"
            for start, stop in itertools.product(PERCENTS[1:], PERCENTS[1:])
        ]
    for spec in specs:
        theirs = ReadInstruction.from_spec(spec).to_absolute(lengths)
        ours = choose_ranges(parse_split(spec), lengths.__getitem__)
        expected = [(part.splitname, n) for part in theirs for n in range(part.from_, part.to)]
        bounded = (
            (item, min(item.stop if item.stop is not None else 1000, lengths[item.name])) for item in ours
        )
        assert [(item.name, n) for item, stop in bounded for n in range(item.start, stop)] == expected, spec


@pytest.mark.parametrize("seed", [42, pytest.param(7, marks=pytest.mark.slow)])
def test_every_shard_is_that_of_the_library(seed):
    for rows, shards in itertools.product(range(1, 12), range(1, 15)):
        table = datasets.Dataset.from_dict({"n": list(range(rows))}).shuffle(seed=seed)
        for index in range(shards):
            # The library refuses shards without rows.
            expected = table.shard(shards, index)["n"] if index < rows else []
            assert rows_of_shard(rows, shards, index, seed).tolist() == list(expected), (rows, shards, index)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (None, range(10)),
        ("train", range(10)),
        ("train[:3]", range(3)),
        ("train[7:]", range(7, 10)),
        ("train[-2:]", range(8, 10)),
        ("train[25%:75%]", range(2, 8)),
        ("train[:200]", range(10)),
        ("train[8:] + train[:2]", [8, 9, 0, 1]),
        ("train[:2]+train[:2]", [0, 1, 0, 1]),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_slices_of_a_file(tmp_path, suffix, split, expected):
    source = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        write_lines(source, [{"n": n} for n in range(10)])
    else:
        pq.write_table(pa.table({"n": range(10)}), source, row_group_size=3)
    assert numbers(tmp_path, source, split=split) == list(expected)


def shards_of_library(rows, seed, shards, index):
    return list(datasets.Dataset.from_dict({"n": rows}).shuffle(seed=seed).shard(shards, index)["n"])


@pytest.mark.parametrize("count", [10, 3000])
@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({"shards": 4, "shards_idx": 1}, slice(None)),
        ({"shards": 4}, slice(None)),
        ({"shards": 4, "shards_idx": 3, "seed": 7}, slice(None)),
        ({"shards": 2, "shards_idx": 1, "split": "train[2:6]"}, slice(2, 6)),
        ({"shards": 1, "split": "train[-5:]"}, slice(-5, None)),
    ],
)
def test_shards_of_a_file(tmp_path, config, kept, count):
    source = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(count)])
    shards, index, seed = config["shards"], config.get("shards_idx", 0), config.get("seed", 42)
    expected = shards_of_library(list(range(count))[kept], seed, shards, index)
    assert numbers(tmp_path, source, **config) == expected


def test_a_shard_of_a_sum_of_slices(tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(10)])
    expected = shards_of_library([8, 9, 0, 1, 2], 42, 2, 1)
    assert numbers(tmp_path, source, split="train[8:]+train[:3]", shards=2, shards_idx=1) == expected


def test_bad_rows_of_a_shard(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f'{{"n":{n}}}\n' if n != 4 else "oops\n" for n in range(10)))
    with_four = next(i for i in range(2) if 4 in rows_of_shard(10, 2, i, 42))
    taken = rows_of_shard(10, 2, with_four, 42).tolist()
    other = rows_of_shard(10, 2, 1 - with_four, 42).tolist()
    assert numbers(tmp_path / "good", source, shards=2, shards_idx=1 - with_four) == other
    left = [n for n in taken if n != 4]
    assert numbers(tmp_path / "skip", source, shards=2, shards_idx=with_four, bad_rows="skip") == left
    with pytest.raises(RowError, match=r"rows\.jsonl:5: invalid JSON"):
        numbers(tmp_path / "stop", source, shards=2, shards_idx=with_four)


def test_chunks_for_reading_change_nothing(tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(10)])
    assert numbers(tmp_path, source, preprocess_shards=3) == list(range(10))


def test_line_numbers_are_those_of_the_file(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"n":1}\n\n{"n":2}\n{"n":3}\n')
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source), split="train[-2:]"), tmp_path / "out")
    assert [row["line"] for row in read_arrow(dataset.rows)] == [3, 4]


def test_rows_that_are_not_taken_may_be_bad(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"n":1}\nbad\n{"n":3}\n')
    assert numbers(tmp_path, source, split="train[2:]") == [3]
    with pytest.raises(RowError, match=r"rows\.jsonl:2: invalid JSON"):
        run_stage(DATASET, DatasetConfig(path=str(source), split="train[1:]"), tmp_path / "bad")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"split": "train[5:5]"}, r"has no rows in split: train\[5:5\]"),
        ({"shards": 20, "shards_idx": 12}, "has no rows in shard 12 of 20"),
    ],
)
def test_nothing_taken(tmp_path, config, match):
    source = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(10)])
    with pytest.raises(RowError, match=match):
        numbers(tmp_path, source, **config)


def test_hundredths_of_few_rows(tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(10)])
    with pytest.raises(SettingError, match="has 10 rows: none would be left"):
        numbers(tmp_path, source, split="train[:50%](pct1_dropremainder)")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"split": "train[5]"}, "is not a split; write"),
        ({"split": "train[:x]"}, "is not a split; write"),
        ({"split": "train[:5%](floor)"}, "is not a split; write"),
        ({"split": "train+"}, "is not a split; write"),
        ({"split": "train[3:30%]"}, "mixes rows and percent"),
        ({"split": "train[:101%]"}, "more than 100%"),
        ({"split": "train[:5](closest)"}, "no percentages to round"),
        ({"split": "test"}, "names 'test', but what is not a folder or a Hub dataset has one split"),
        ({"shards_idx": 1}, "shards_idx: 1 is given without shards"),
        ({"shards": 2, "shards_idx": 2}, "is not one of 2 shards"),
        ({"shards": 2, "preprocess_shards": 2}, "exclude each other"),
        ({"shards": 0}, "greater than 0"),
        ({"revision": "v1"}, "revision: 'v1' is one of a Hub dataset, and path names none"),
        ({"data_files": []}, "data_files: is empty"),
        ({"data_files": ["/a.jsonl", "/b.csv"]}, r"hold different kinds \(csv, json\)"),
        ({"data_files": ["/a.jsonl", "/a.jsonl"]}, "names /a.jsonl twice"),
        ({"data_files": ["/a.jsonl"], "name": "x"}, "data_files are just files"),
        ({"path": "json"}, "is a kind of file; name the files in data_files"),
        ({"path": "json", "data_files": "/a.jsonl", "ds_type": "csv"}, "differ; keep one"),
    ],
)
def test_settings_that_cannot_be_honoured(config, match):
    with pytest.raises(ValidationError, match=match):
        DatasetConfig(**{"path": "/rows.jsonl", **config})


def test_chunks_for_reading_are_not_part_of_the_key():
    plain = DatasetConfig(path="/rows.jsonl").semantic()
    assert DatasetConfig(path="/rows.jsonl", preprocess_shards=4, trust_remote_code=True).semantic() == plain
    assert DatasetConfig(path="/rows.jsonl", shards=4).semantic() != plain


def test_the_seed_counts_only_for_shards():
    plain = DatasetConfig(path="/rows.jsonl").semantic()
    assert DatasetConfig(path="/rows.jsonl", seed=7).semantic() == plain
    sharded = DatasetConfig(path="/rows.jsonl", shards=2).semantic()
    assert DatasetConfig(path="/rows.jsonl", shards=2, seed=7).semantic() != sharded


def file_of(name, count, read):
    """A file of rows, which notes in `read` each row that is asked for."""

    def rows(skip):
        for number in range(skip + 1, count + 1):
            read.append((name, number))
            yield Row(number, {"n": number})

    return RowFile(name, name, "row", rows, lambda: count)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 2), (2, 2), (2, 3), (1, 6), (3, None), (4, 5), (9, None)]
)
def test_rows_and_blocks_of_a_range_are_the_same_and_no_row_behind_it_is_read(start, stop):
    read = []
    sizes = {"a": 2, "none": 0, "b": 3, "c": 4}
    source = RowSource(
        "source", "folder", {"train": [file_of(name, size, read) for name, size in sizes.items()]}
    )
    expected = [(name, number) for name, size in sizes.items() for number in range(1, size + 1)][start:stop]
    found = [
        (file.name, number, row.value["n"])
        for file, number, row in rows_of(source, [Range("train", start, stop)])
    ]
    assert found == [(name, number, number) for name, number in expected]
    assert read == expected
    blocks = [
        (file.name, number, json.loads(text)["n"])
        for file, first, block in blocks_of_ranges(source, [Range("train", start, stop)])
        for number, text in enumerate(block.rows, first)
    ]
    assert blocks == found
