"""Rows of the Hub, or of files behind URLs, as the `datasets` library streams them."""

from collections.abc import Iterator
from functools import partial
from glob import escape
from typing import Any

import pyarrow as pa
from datasets import load_dataset
from datasets.exceptions import DatasetsError
from datasets.utils import disable_progress_bars
from huggingface_hub.errors import HTTPError

from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.sources.names import BUILDERS, hub_name, kind_of, last_part
from tunemill.stages.data.sources.rows import Row, RowFile, RowSource
from tunemill.stages.errors import SettingError, SourceError

# What the library raises for what it cannot find or read.
FAILURES = (
    DatasetsError,
    OSError,
    ValueError,
    HTTPError,
    RuntimeError,
    pa.ArrowException,
    ArithmeticError,
    LookupError,
)


def remote_rows(config: PretrainingDataConfig) -> RowSource:
    """A dataset of the Hub, or files behind URLs. Raises SourceError where they cannot be streamed."""
    disable_progress_bars()
    on_hub = kind_of(config.path) == "hub"
    title = hub_name(config.path) if on_hub else last_part(config.path)
    # Patterns of local files have been spelled out.
    files = [escape(name) if kind_of(name) == "local" and not on_hub else name for name in config.files]
    options: dict[str, Any] = {"data_files": files} if files else {}
    if on_hub:
        options |= {"name": config.name, "revision": config.revision, "token": config.hf_use_auth_token}
    elif config.path not in BUILDERS:
        options["data_files"] = files or config.path
    try:
        splits = load_dataset(title if on_hub else _builder(config, options), streaming=True, **options)
    except StopIteration:
        # The library looks at the first rows, and keeps to itself why there are none.
        reason = "it has no rows, or what reads it is not let in"
        raise SourceError(
            f"{title}: cannot be streamed: {reason}; look whether it can be read from here"
        ) from None
    except FAILURES as error:
        raise SourceError(f"{title}: cannot be streamed: {error}") from None
    found = {
        str(name): [
            RowFile(
                str(name), title, "row", partial(_rows, rows, title), partial(_uncounted, title, config.split)
            )
        ]
        for name, rows in splits.items()
    }
    return RowSource(title, "stream", found)


def _builder(config: PretrainingDataConfig, options: dict[str, Any]) -> str:
    """The library's name of the kind of files."""
    if config.ds_type is None:
        raise SourceError(
            f"path: {config.path}: its extension says nothing about its rows; set ds_type: {', '.join(BUILDERS)}"
        )
    if config.ds_type == "tsv":
        options["sep"] = "\t"
        return "csv"
    return config.ds_type


def _rows(stream: Any, title: str, skip: int) -> Iterator[Row]:
    number = skip
    try:
        for value in stream.skip(skip):
            number += 1
            yield Row(number, value)
    except FAILURES as error:
        raise SourceError(f"{title}: cannot be read on behind row {number}: {error}") from None


def _uncounted(title: str, split: str | None) -> int:
    raise SettingError(
        f"split: {split}: {title} is read as a stream, of which neither the length nor the middle is known; take its "
        "start, as in train[:1000], and leave rows out by skip"
    )
