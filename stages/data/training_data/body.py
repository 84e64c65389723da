"""The body of the training_data stage: merge, shuffle, fit to the sequence length, split, pack."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tunemill.stages.artifacts import TokenizedDataset
from tunemill.stages.data.rows.duplicates import first_of_each
from tunemill.stages.data.rows.fitting import fit
from tunemill.stages.data.rows.near_duplicates import near_figure
from tunemill.stages.data.rows.order import shuffled
from tunemill.stages.data.rows.packing import Packs, one_each, pack, pack_in_sequence
from tunemill.stages.data.rows.packs import say_packing, write_packs
from tunemill.stages.data.rows.quality import Figure, figures_of_rows, say_quality
from tunemill.stages.data.rows.row_sources import write_sources
from tunemill.stages.data.rows.tally import Tally, dataset_names, plot_lengths
from tunemill.stages.data.rows.token_rows import (
    Bools,
    TokenRows,
    concatenated,
    read_token_rows,
    write_token_rows,
)
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.errors import RowError
from tunemill.stages.report import Report, Workspace


def training_data(
    config: TrainingDataConfig, tokenized: list[TokenizedDataset], out: Workspace, report: Report
) -> None:
    """Write `rows.arrow`, `packs.arrow` and, with val_set_size, `held_out.arrow`.

    Raises RowError when nothing is left to train on, and for rows that are too long where they must not be.
    """
    datasets = [read_token_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
    tally = Tally(dataset_names(config.datasets, len(datasets)))
    tally.count("rows", concatenated(datasets))
    merged = in_pieces(datasets, config)
    empty = concatenated([rows.take(is_empty_text(rows)) for rows in datasets])
    if len(merged) != sum(map(len, datasets)) - len(empty):
        tally.count("pieces", merged)
    plot_lengths(merged.length, config.sequence_len, "sequence_len", report)
    rows, held_out = choose(merged, empty, config, tally)
    say_quality(figures(rows, config, tally.names, report), report)
    packs = in_packs(rows, config, report)
    write_token_rows(rows, out.data / "rows.arrow")
    write_packs(packs, out.data / "packs.arrow")
    if config.keeps_sources:
        write_sources(rows, out.data / "sources.arrow")
    if held_out is not None:
        write_token_rows(held_out, out.data / "held_out.arrow", with_roles=True)
        report.summary(held_out_rows=len(held_out))
    say(tally, config, len(packs), report)


def in_pieces(datasets: list[TokenRows], config: TrainingDataConfig) -> TokenRows:
    """All rows in training order, those that ask for it in pieces of sequence_len. An empty text has no piece."""
    given = [rows.take(~is_empty_text(rows)) for rows in datasets]
    return in_training_order(
        [rows.fitted(config.sequence_len, config.min_sample_len) for rows in given], config
    )


def is_empty_text(rows: TokenRows) -> Bools:
    """Which rows are raw texts without a token."""
    empty: Bools = rows.splits & (rows.length == 0)
    return empty


def in_training_order(datasets: list[TokenRows], config: TrainingDataConfig) -> TokenRows:
    """All rows, shuffled as the config says. The order is that of the `datasets` library for the same seed."""
    several = len(datasets) > 1
    if several and config.shuffle_before_merging_datasets:
        datasets = [rows.take(shuffled(len(rows), config.seed)) for rows in datasets]
    merged = concatenated(datasets)
    if config.shuffle_merged_datasets and not config.curriculum_sampling:
        merged = merged.take(shuffled(len(merged), config.seed))
    return merged


def choose(
    merged: TokenRows, empty: TokenRows, config: TrainingDataConfig, tally: Tally
) -> tuple[TokenRows, TokenRows | None]:
    """The rows to train on and the rows held out. Raises RowError when none is left to train on.

    Rows with nothing to train on go last, so that they change neither the shard nor which rows are held out:
    there, Axolotl still has them. The `empty` texts are counted only: there, they have no row.
    """
    fitted = fit(merged, config.limits, tally.names)
    tally.count("too long", fitted.too_long)
    tally.count("too short", concatenated([empty, fitted.too_short]))
    tally.count("truncated", fitted.truncated)
    rows = fitted.rows
    if config.dataset_exact_deduplication:
        first = first_of_each(rows)
        tally.count("duplicates", rows.take(~first))
        rows = rows.take(first)
    if config.dataset_shard_num is not None and config.dataset_shard_idx is not None:
        chosen = in_shard(len(rows), config.dataset_shard_num, config.dataset_shard_idx)
        tally.count("other shards", rows.take(~chosen))
        rows = rows.take(chosen)
    tally.count("nothing to train on", rows.take(rows.trained == 0))
    if not rows.trained.any():
        raise RowError(describe_empty(tally, config))
    train, held_out = split(rows, config.val_set_size)
    train = train.take(train.trained > 0)
    if held_out is not None:
        held_out = held_out.take(held_out.trained > 0)
        tally.count("held out", held_out)
    tally.keep(train)
    return train, held_out


def figures(
    rows: TokenRows, config: TrainingDataConfig, names: Sequence[str], report: Report
) -> list[Figure]:
    """What there is to say of the quality of the rows that are trained on."""
    found = figures_of_rows(rows, config.dataset_exact_deduplication)
    if config.data_report == "full":
        found.append(near_figure(rows, names, report))
    return found


def in_shard(rows: int, count: int, index: int) -> npt.NDArray[np.bool_]:
    """Which rows are in part `index` of `count` neighbouring parts; the first ones have a row more if need be."""
    sizes = np.full(count, rows // count) + (np.arange(count) < rows % count)
    chosen: npt.NDArray[np.bool_] = np.repeat(np.arange(count), sizes) == index
    return chosen


def describe_empty(tally: Tally, config: TrainingDataConfig) -> str:
    """Why nothing is left to train on, with the counts."""
    counts = (
        f"nothing is left to train on: of {tally.total('rows')} rows {tally.total('too long')} are longer than "
        f"sequence_len: {config.sequence_len}, {tally.total('too short')} are shorter than min_sample_len: "
        f"{config.min_sample_len}, and {tally.total('nothing to train on')} have nothing to train on"
    )
    if elsewhere := tally.total("other shards"):
        counts += (
            f"; {elsewhere} are in other shards than dataset_shard_idx: {config.dataset_shard_idx} of "
            f"{config.dataset_shard_num}"
        )
    truncated = tally.total("truncated")
    return f"{counts} ({truncated} were truncated)" if truncated else counts


def split(rows: TokenRows, val_set_size: float) -> tuple[TokenRows, TokenRows | None]:
    """Rows to train on and rows held out: the last ones. Raises RowError when none is left to train on."""
    if val_set_size == 0:
        return rows, None
    held_out = int(val_set_size) if val_set_size > 1 else int(np.ceil(val_set_size * len(rows)))
    border = len(rows) - held_out
    if border <= 0 or not rows.trained[:border].any():
        raise RowError(
            f"val_set_size: {val_set_size:g} would hold out {held_out} of {len(rows)} rows and leave none to "
            "train on; make it smaller"
        )
    return rows.take(np.arange(border)), rows.take(np.arange(border, len(rows)))


def in_packs(rows: TokenRows, config: TrainingDataConfig, report: Report) -> Packs:
    """The rows in sequences, with what packing them saves."""
    if not config.sample_packing:
        return one_each(len(rows))
    most, group = config.sample_packing_bin_size, config.sample_packing_group_size
    if config.sample_packing_sequentially:
        packs = pack_in_sequence(rows.length, config.sequence_len, max_rows=most, group_size=group)
    else:
        packs = pack(
            rows.length,
            config.sequence_len,
            config.seed,
            in_order=config.curriculum_sampling,
            max_rows=most,
            group_size=group,
        )
    say_packing(int(rows.length.sum()), len(rows), len(packs), config.sequence_len, report)
    return packs


def say(tally: Tally, config: TrainingDataConfig, sequences: int, report: Report) -> None:
    """Summary and table of where the rows went."""
    if config.dataset_exact_deduplication:
        report.summary(dropped_duplicates=tally.total("duplicates"))
    report.summary(
        rows=tally.total("kept"),
        dropped_too_long=tally.total("too long"),
        dropped_too_short=tally.total("too short"),
        truncated=tally.total("truncated"),
        dropped_untrained=tally.total("nothing to train on"),
        sequences=sequences,
        tokens=tally.total("tokens"),
        trained_tokens=tally.total("trained tokens"),
    )
    tally.table(report)
