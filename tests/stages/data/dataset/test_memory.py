"""Ten times the rows do not take more memory."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CODE = r"""
import pathlib, re, sys
from support.rows import run_stage
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
_, events = run_stage(DATASET, DatasetConfig(path=sys.argv[1], split=sys.argv[3]), pathlib.Path(sys.argv[2]))
peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]
print(events.summary["rows"], peak)
"""
FEW, MANY = 8_000, 80_000
TEXT = "lorem ipsum " * 40


def write(path, kind, count):
    rows = ({"text": f"{n} {TEXT}", "n": n} for n in range(count))
    if kind == "jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    elif kind == "json":
        with path.open("w") as file:
            file.write("[" + ",\n".join(json.dumps(row) for row in rows) + "]")
    else:
        table = pa.Table.from_pylist(list(rows))
        if kind == "parquet":
            pq.write_table(table, path)
        else:
            with pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=1000)
    return path


def peak(folder, kind, count, split):
    source = write(folder / f"{count}.{kind}", kind, count)
    command = [sys.executable, "-c", CODE, str(source), str(folder / f"out{count}"), split]
    tests = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=True)
    rows, kibibytes = map(int, done.stdout.split())
    assert rows > count // 3
    return kibibytes / 1024


@pytest.mark.parametrize(
    ("kind", "split"),
    [
        ("jsonl", "train[50%:]"),
        pytest.param("json", "train", marks=pytest.mark.slow),
        pytest.param("parquet", "train", marks=pytest.mark.slow),
        pytest.param("arrow", "train", marks=pytest.mark.slow),
    ],
)
def test_memory_does_not_grow_with_the_rows(tmp_path, kind, split):
    few, many = (peak(tmp_path, kind, count, split) for count in (FEW, MANY))
    # The many rows take 40 MiB as text.
    assert many - few < 16, (few, many)
