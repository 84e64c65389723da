"""The body of the training_data stage: merge, shuffle, fit to the sequence length, split, pack."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunemill.stages.artifacts import TokenizedDataset
from tunemill.stages.errors import RowError
from tunemill.stages.report import Report, Workspace
from tunemill.stages.tokenized.token_rows import (
    TokenRows,
    concatenated,
    open_writer,
    read_token_rows,
    write_token_rows,
)
from tunemill.stages.training_data.config import TrainingDataConfig
from tunemill.stages.training_data.packing import Packs, one_each, pack

LISTED_ROWS = 10
PACK_BATCH = 1 << 16
PACK_SCHEMA = pa.schema([("rows", pa.list_(pa.int32()))])


def training_data(
    config: TrainingDataConfig, tokenized: list[TokenizedDataset], out: Workspace, report: Report
) -> None:
    """Write `rows.arrow`, `packs.arrow` and, with val_set_size, `held_out.arrow`.

    Raises RowError when nothing is left to train on, and for rows that are too long where they must not be.
    """
    datasets = [read_token_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
    merged = in_training_order([rows.split_at(config.sequence_len) for rows in datasets], config)
    fitted = fit(merged, config)
    rows, held_out = split(fitted.rows, config.val_set_size)
    packs = one_each(len(rows))
    if config.sample_packing:
        packs = pack(rows.length, config.sequence_len, config.seed, in_order=config.curriculum_sampling)
        efficiency = int(rows.length.sum()) / (len(packs) * config.sequence_len)
        report.summary(packing_efficiency=round(efficiency, 6))
    write_token_rows(rows, out.data / "rows.arrow")
    write_packs(packs, out)
    if held_out is not None:
        write_token_rows(held_out, out.data / "held_out.arrow")
        report.summary(held_out_rows=len(held_out))
    report.summary(
        rows=len(rows),
        dropped_too_long=fitted.too_long,
        dropped_too_short=fitted.too_short,
        truncated=fitted.truncated,
        dropped_untrained=fitted.untrained,
        sequences=len(packs),
        tokens=int(rows.length.sum()),
        trained_tokens=int(rows.trained.sum()),
    )


def in_training_order(datasets: list[TokenRows], config: TrainingDataConfig) -> TokenRows:
    """All rows, shuffled as the config says. The order is that of the `datasets` library for the same seed."""
    several = len(datasets) > 1
    if several and config.shuffle_before_merging_datasets:
        datasets = [rows.take(shuffled(len(rows), config.seed)) for rows in datasets]
    merged = concatenated(datasets)
    if config.shuffle_merged_datasets and not config.curriculum_sampling:
        merged = merged.take(shuffled(len(merged), config.seed))
    return merged


def shuffled(rows: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of row numbers, the one that `datasets.shuffle(seed)` draws."""
    return np.random.default_rng(seed).permutation(rows)


@dataclass(frozen=True)
class Fitted:
    """Rows that fit, and how many did not, or were changed."""

    rows: TokenRows
    too_long: int
    too_short: int
    truncated: int
    untrained: int


def fit(rows: TokenRows, config: TrainingDataConfig) -> Fitted:
    """Rows between min_sample_len and sequence_len. Raises RowError when none is left."""
    long = rows.length > config.sequence_len
    too_long = int(np.count_nonzero(long))
    if too_long and config.excess_length_strategy == "raise":
        raise RowError(describe_long(rows.take(long), config.sequence_len))
    truncates = config.excess_length_strategy == "truncate"
    kept = rows.cut_to(config.sequence_len) if truncates else rows.take(~long)
    short = kept.length < config.min_sample_len
    untrained = (kept.trained == 0) & ~short
    left = kept.take(~short & ~untrained)
    fitted = Fitted(
        left,
        too_long=0 if truncates else too_long,
        too_short=int(np.count_nonzero(short)),
        truncated=too_long if truncates else 0,
        untrained=int(np.count_nonzero(untrained)),
    )
    if len(left) == 0:
        raise RowError(describe_empty(fitted, len(rows), config))
    return fitted


def describe_long(rows: TokenRows, limit: int) -> str:
    """Which rows are too long for `excess_length_strategy: raise`, the first ten."""
    order = np.lexsort((rows.source_row, rows.dataset))[:LISTED_ROWS]
    listed = "\n".join(
        f"  dataset {rows.dataset[i]}, row {rows.source_row[i]}: {rows.length[i]} tokens" for i in order
    )
    more = f"\n  and {len(rows) - len(order)} more" if len(rows) > len(order) else ""
    return (
        f"{len(rows)} rows are longer than sequence_len: {limit}, and excess_length_strategy: raise forbids it "
        f"(drop or truncate would take them):\n{listed}{more}"
    )


def describe_empty(fitted: Fitted, rows: int, config: TrainingDataConfig) -> str:
    """Why nothing is left to train on, with the counts."""
    return (
        f"nothing is left to train on: of {rows} rows {fitted.too_long} are longer than sequence_len: "
        f"{config.sequence_len}, {fitted.too_short} are shorter than min_sample_len: {config.min_sample_len}, "
        f"and {fitted.untrained} have nothing to train on once they are truncated"
    )


def split(rows: TokenRows, val_set_size: float) -> tuple[TokenRows, TokenRows | None]:
    """Rows to train on and rows held out: the last ones. Raises RowError when none is left to train on."""
    if val_set_size == 0:
        return rows, None
    held_out = int(val_set_size) if val_set_size > 1 else int(np.ceil(val_set_size * len(rows)))
    if held_out >= len(rows):
        raise RowError(
            f"val_set_size: {val_set_size:g} would hold out {held_out} of {len(rows)} rows and leave none to "
            "train on; make it smaller"
        )
    border = len(rows) - held_out
    return rows.take(np.arange(border)), rows.take(np.arange(border, len(rows)))


def write_packs(packs: Packs, out: Workspace) -> None:
    """Write `packs.arrow`: the row numbers of each sequence."""
    with open_writer(out.data / "packs.arrow", PACK_SCHEMA) as writer:
        for first in range(0, len(packs), PACK_BATCH):
            offsets = packs.offsets[first : first + PACK_BATCH + 1]
            rows = pa.array(packs.rows[offsets[0] : offsets[-1]].astype(np.int32))
            lists = pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), rows)
            writer.write_batch(pa.record_batch([lists], schema=PACK_SCHEMA))
