"""Where rows of tokens come from, on disk: for what lies beside the rows of their datasets."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tunemill.stages.data.rows.columns import column
from tunemill.stages.data.rows.token_rows import TokenRows, open_writer

SOURCE_SCHEMA = pa.schema([("dataset", pa.int32()), ("source_row", pa.int64()), ("start", pa.int32())])


def write_sources(rows: TokenRows, path: Path) -> None:
    """Of each row its dataset, its number in there (both from 1), and at which token of that row it starts."""
    before = np.zeros(len(rows), np.int64)
    for number, chunk in enumerate(rows.chunks):
        here = rows.chunk == number
        before[here] = chunk.offsets[rows.place[here]]
    values = (rows.dataset, rows.source_row, rows.start - before)
    columns = [column(part, field.type) for part, field in zip(values, SOURCE_SCHEMA, strict=True)]
    with open_writer(path, SOURCE_SCHEMA) as writer:
        writer.write_batch(pa.record_batch(columns, schema=SOURCE_SCHEMA))
