"""Which rows share a sequence, on disk; and what packing them saves."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tunemill.stages.data.rows.columns import list_column
from tunemill.stages.data.rows.packing import Packs
from tunemill.stages.data.rows.token_rows import open_writer
from tunemill.stages.report import Report

PACK_BATCH = 1 << 16
PACK_SCHEMA = pa.schema([("rows", pa.list_(pa.int32()))])


def write_packs(packs: Packs, path: Path) -> None:
    """Write a pack file: the row numbers of each sequence."""
    with open_writer(path, PACK_SCHEMA) as writer:
        for first in range(0, len(packs), PACK_BATCH):
            offsets = packs.offsets[first : first + PACK_BATCH + 1]
            lists = list_column(packs.rows[offsets[0] : offsets[-1]], np.diff(offsets), pa.int32())
            writer.write_batch(pa.record_batch([lists], schema=PACK_SCHEMA))


def say_packing(tokens: int, rows: int, packs: int, capacity: int, report: Report) -> None:
    """How full the sequences are, and the padding that would stand in sequences of one row each."""
    padding, unpacked = packs * capacity - tokens, rows * capacity - tokens
    report.summary(
        packing_efficiency=round(tokens / (packs * capacity), 6),
        padding_tokens=padding,
        padding_tokens_saved=unpacked - padding,
    )
    report.table(
        f"Packing into sequences of {capacity} tokens",
        ["", "sequences", "rows per sequence", "padding tokens", "share of tokens"],
        [
            ["packed", packs, round(rows / packs, 2), padding, f"{tokens / (packs * capacity):.2%}"],
            ["a row each", rows, 1.0, unpacked, f"{tokens / (rows * capacity):.2%}"],
        ],
    )
