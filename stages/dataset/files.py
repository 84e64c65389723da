"""One file as rows, whatever it holds and however it is packed."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from tunemill.stages.dataset.json_files import count_lines, is_array, json_array, json_lines
from tunemill.stages.dataset.rows import Row, RowFile
from tunemill.stages.dataset.table_files import (
    arrow_rows,
    count_arrow,
    count_parquet,
    csv_rows,
    parquet_rows,
    text_lines,
)
from tunemill.stages.dataset.unpacking import DAMAGES, unpacked, unpacked_copy
from tunemill.stages.errors import SourceError

KINDS = {"parquet": "Parquet", "arrow": "Arrow"}


def row_file(path: Path, ds_type: str, name: str, shown: str, scratch: Path) -> RowFile:
    """The file as rows. Raises SourceError when it cannot be read as `ds_type`."""
    try:
        return _row_file(path, ds_type, name, shown, scratch)
    except DAMAGES as error:
        raise _damaged(path, ds_type, error) from None


def _row_file(path: Path, ds_type: str, name: str, shown: str, scratch: Path) -> RowFile:
    unit = "row"
    if ds_type == "json" and not is_array(path):
        unit, read, count = "line", partial(json_lines, path), partial(count_lines, path)
    elif ds_type == "json":
        read, count = _reread(partial(json_array, path))
    elif ds_type == "text":
        unit, read, count = "line", partial(text_lines, path), partial(_count_text, path)
    elif ds_type in ("csv", "tsv"):
        read, count = _reread(partial(csv_rows, path, "," if ds_type == "csv" else "\t"))
    else:
        plain = unpacked_copy(path, scratch)
        if ds_type == "parquet":
            read, count = partial(parquet_rows, plain), partial(count_parquet, plain)
        else:
            read, count = partial(arrow_rows, plain), partial(count_arrow, plain)
    return RowFile(name, shown, unit, partial(_guarded, path, ds_type, read), partial(_counted, path, ds_type, count))
