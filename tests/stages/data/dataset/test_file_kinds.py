"""Every kind of file, plain and packed; damaged ones say so."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.rows import files_of, read_arrow, run_stage

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources.looks import fault_of_file
from tunemill.stages.data.sources.names import type_of
from tunemill.stages.errors import RowError, SourceError

ROWS = [{"text": f"row {n} é", "n": str(n)} for n in range(3000)]


def rows_of(path, folder, **config):
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(path), **config), folder)
    return [json.loads(row["row"]) for row in read_arrow(dataset.rows)]


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def zipped(content):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.any", content)
    return sink.getvalue()


def parquet():
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=700)
    return sink.getvalue()


def arrow(opener):
    sink = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with opener(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1500)
    return sink.getvalue()


def separated(mark):
    return "".join(mark.join(row) + "\r\n" for row in [("text", "n"), *((r["text"], r["n"]) for r in ROWS)])


CONTENTS = {
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "ndjson": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "json": json.dumps(ROWS, indent=1).encode(),
    "csv": separated(",").encode(),
    "tsv": separated("\t").encode(),
    "parquet": parquet(),
    "arrow": arrow(pa.ipc.new_file),
    "stream.arrow": arrow(pa.ipc.new_stream),
}
PACKERS = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
    ".zip": zipped,
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", CONTENTS)
def test_every_kind_packed_in_every_way(tmp_path, kind, packer):
    source = tmp_path / f"rows.{kind}{packer}"
    source.write_bytes(PACKERS[packer](CONTENTS[kind]))
    assert rows_of(source, tmp_path / "all") == ROWS
    assert rows_of(source, tmp_path / "part", split="train[-1100:-50]") == ROWS[-1100:-50]


def test_text_rows_are_those_of_the_datasets_library(tmp_path):
    source = tmp_path / "rows.txt"
    source.write_bytes("\ufefffirst\n\n  third é \nforth\x0bstill\r\nlast".encode())
    library = datasets.load_dataset("text", data_files=str(source), cache_dir=str(tmp_path / "c"))["train"]
    expected = [{"text": text.removeprefix("\ufeff")} for text in library["text"]]
    assert len(expected) == 5
    assert rows_of(source, tmp_path / "out") == expected


def test_text_that_is_not_utf_8_names_its_line(tmp_path):
    source = tmp_path / "rows.txt"
    source.write_bytes(b"good\nb\xffd\n")
    with pytest.raises(RowError, match=r"rows\.txt:2: not UTF-8: byte 2 of the line"):
        rows_of(source, tmp_path / "out")


def test_marks_in_text_files_put_behind_each_other_are_passed_over(tmp_path):
    source = tmp_path / "rows.txt"
    source.write_text("\ufeffone\n\ufefftwo\nin\ufeffside\n")
    assert rows_of(source, tmp_path / "out") == [{"text": "one"}, {"text": "two"}, {"text": "in\ufeffside"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", ["txt", "csv", "tsv"])
def test_text_in_utf_16_is_refused_in_every_kind_of_text(tmp_path, kind, encoding):
    source = tmp_path / f"rows.{kind}"
    source.write_text("q,a\n1,2\n", encoding=encoding)
    with pytest.raises(SourceError, match="text in UTF-16 or UTF-32"):
        rows_of(source, tmp_path / "out")


def test_a_nul_byte_makes_a_line_of_text_a_bad_row(tmp_path):
    source = tmp_path / "rows.txt"
    source.write_bytes(b"good\nb\0d\n")
    with pytest.raises(RowError, match=r"rows\.txt:2: not a text: it holds a NUL byte, number 2 of the line"):
        rows_of(source, tmp_path / "out")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_behind_a_blank_line_and_where_its_first_rows_are_left_out(tmp_path, encoding):
    source = tmp_path / "rows.txt"
    source.write_text("\none\ntwo\n", encoding=encoding)
    with pytest.raises(SourceError, match="text in UTF-16 or UTF-32"):
        rows_of(source, tmp_path / "out", split="train[1:]", bad_rows="skip")


def test_a_text_that_speaks_of_tar_archives_is_none(tmp_path):
    text = "x" * 257 + "ustar  archives"
    (tmp_path / "rows.txt").write_text(text)
    assert rows_of(tmp_path / "rows.txt", tmp_path / "out") == [{"text": text}]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_archive_says_to_unpack_it(tmp_path, mode, layout):
    rows, source = tmp_path / "rows.jsonl", tmp_path / "packed.jsonl"
    rows.write_bytes(CONTENTS["jsonl"])
    with tarfile.open(source, mode, format=layout) as archive:
        archive.add(rows, "rows.jsonl")
    with pytest.raises(SourceError, match="a tar archive; unpack it and name its folder"):
        rows_of(source, tmp_path / "out")


def test_what_is_packed_twice_is_said_to_be(tmp_path):
    source = tmp_path / "rows.jsonl.gz"
    source.write_bytes(gzip.compress(bz2.compress(CONTENTS["jsonl"])))
    with pytest.raises(SourceError, match="packed twice, with bz2 inside of gzip; unpack it once"):
        rows_of(source, tmp_path / "out")


def test_what_a_file_is_packed_with_is_told_by_its_content(tmp_path):
    packed, plain = tmp_path / "packed.jsonl", tmp_path / "plain.jsonl.gz"
    packed.write_bytes(gzip.compress(CONTENTS["jsonl"]))
    plain.write_bytes(CONTENTS["jsonl"])
    one, _ = run_stage(DATASET, DatasetConfig(path=str(packed)), tmp_path / "1")
    other, _ = run_stage(DATASET, DatasetConfig(path=str(plain)), tmp_path / "2")
    assert files_of(one) == files_of(other)


def test_a_text_that_begins_like_a_bzip2_file(tmp_path):
    source = tmp_path / "rows.txt"
    source.write_text("BZh9 is how bzip2 files begin\n")
    assert rows_of(source, tmp_path / "out") == [{"text": "BZh9 is how bzip2 files begin"}]


def test_gzip_files_put_one_behind_the_other(tmp_path):
    source = tmp_path / "rows.jsonl.gz"
    half = len(CONTENTS["jsonl"]) // 2
    source.write_bytes(gzip.compress(CONTENTS["jsonl"][:half]) + gzip.compress(CONTENTS["jsonl"][half:]))
    assert rows_of(source, tmp_path / "out") == ROWS


def test_zstd_frames_put_one_behind_the_other(tmp_path):
    source = tmp_path / "rows.jsonl.zst"
    half = len(CONTENTS["jsonl"]) // 2
    source.write_bytes(zstd(CONTENTS["jsonl"][:half]) + zstd(CONTENTS["jsonl"][half:]))
    assert rows_of(source, tmp_path / "out") == ROWS


def skipped_frame(number, content):
    """A frame of zstd that has nothing of the file in it."""
    return struct.pack("<II", 0x184D2A50 + number, len(content)) + content


@pytest.mark.parametrize("number", [0, 15])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_zstd_files_that_begin_with_a_frame_that_is_skipped_as_those_of_pzstd(tmp_path, kind, number):
    source = tmp_path / f"rows.{kind}.zst"
    half = len(CONTENTS[kind]) // 2
    # pzstd puts such a frame, with the size of the next one, before each of its own.
    frames = [zstd(CONTENTS[kind][:half]), zstd(CONTENTS[kind][half:])]
    content = b"".join(skipped_frame(number, struct.pack("<I", len(frame))) + frame for frame in frames)
    source.write_bytes(content + skipped_frame(3, b"\0" * 100_000))
    assert fault_of_file(source, type_of(source.name), is_alone=True) is None
    assert rows_of(source, tmp_path / "out") == ROWS


@pytest.mark.parametrize("packer", [".gz", ".bz2", ".xz", ".zst", ".zip"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_cut_off_archives(tmp_path, kind, packer):
    source = tmp_path / f"rows.{kind}{packer}"
    content = PACKERS[packer](CONTENTS[kind])
    source.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(SourceError, match=r"rows\..* rows, or a damaged one: ."):
        rows_of(source, tmp_path / "out")


def test_a_zip_of_several_files(tmp_path):
    source = tmp_path / "rows.jsonl.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("a.jsonl", "{}")
        archive.writestr("b.jsonl", "{}")
    with pytest.raises(SourceError, match="a zip of 2 files; unpack it"):
        rows_of(source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["arrow", "stream.arrow", "parquet"])
def test_cut_off_tables(tmp_path, kind):
    source = tmp_path / f"rows.{kind}"
    source.write_bytes(CONTENTS[kind][: len(CONTENTS[kind]) // 2])
    with pytest.raises(SourceError, match=r"not a file of \w+ rows, or a damaged one"):
        rows_of(source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["arrow", "stream.arrow", "parquet"])
def test_a_column_whose_name_is_not_utf_8(tmp_path, kind):
    source = tmp_path / f"rows.{kind}"
    source.write_bytes(CONTENTS[kind].replace(b"text", b"te\xfft"))
    with pytest.raises(SourceError, match=r"not a file of \w+ rows, or a damaged one: 'utf-8' codec"):
        rows_of(source, tmp_path / "out")


def test_offsets_that_lead_nowhere_do_not_end_the_process(tmp_path):
    source = tmp_path / "rows.arrow"
    content = bytearray(CONTENTS["arrow"])
    # The offsets of the texts stand right before the texts.
    place = content.index(b"row 0") - 64
    content[place : place + 4] = (1 << 30).to_bytes(4, "little")
    source.write_bytes(content)
    with pytest.raises(SourceError, match="damaged one"):
        rows_of(source, tmp_path / "out")


def test_json_columns_are_values_not_text(tmp_path):
    table = datasets.Dataset.from_dict({"a": [{"x": 1}, [2], None]}, on_mixed_types="use_json")
    table.to_parquet(str(tmp_path / "rows.parquet"))
    assert rows_of(tmp_path / "rows.parquet", tmp_path / "out") == [{"a": {"x": 1}}, {"a": [2]}, {"a": None}]
