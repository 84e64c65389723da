"""The rows of the source, read no further than they are asked for: also of the Hub, and behind URLs."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.sources.library import licence_on_hub
from tunemill.stages.data.sources.names import hub_name, kind_of
from tunemill.stages.data.sources.rows import Row, RowFile, RowSource
from tunemill.stages.data.sources.selection import check_splits, default_parts, rows_of
from tunemill.stages.data.sources.source import open_source
from tunemill.stages.data.sources.split import choose_ranges
from tunemill.stages.report import Report


def open_rows(
    config: PretrainingDataConfig, scratch: Path, report: Report
) -> tuple[str, Iterator[tuple[RowFile, int, Row]]]:
    """What a person calls the source, and its rows, each with its file and its number in it.

    Raises SourceError where there is none, SettingError for a split that it does not have.
    """
    names = [config.path, *config.files]
    is_remote = any(kind_of(name) in ("hub", "url") for name in names)
    source = _remote(config) if is_remote else open_source(config, scratch, report)
    parts = config.parts or default_parts(source)
    check_splits(parts, source)

    def length(split: str) -> int:
        return sum(file.count() for file in source.splits[split])

    return source.title, islice(rows_of(source, choose_ranges(parts, length)), config.skip, None)


def licence_of(config: PretrainingDataConfig) -> str | None:
    """The licence that the card of a dataset of the Hub names; None of any other source."""
    if kind_of(config.path) != "hub":
        return None
    return licence_on_hub(hub_name(config.path), config.revision, config.hf_use_auth_token)


def _remote(config: PretrainingDataConfig) -> RowSource:
    # The library takes a second to import, and files are read without it.
    from tunemill.stages.data.pretraining_data.stream_body import remote_rows

    return remote_rows(config)
