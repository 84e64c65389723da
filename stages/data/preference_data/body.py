"""The body of the preference_data stage: fit to the sequence length, merge, shuffle, split."""

from collections.abc import Sequence

import numpy as np

from tunemill.stages.artifacts import Preferences
from tunemill.stages.data.preference_data.config import PreferenceDataConfig
from tunemill.stages.data.preference_data.duplicates import figures, first_of_each
from tunemill.stages.data.preference_data.fitting import Fitted, fit
from tunemill.stages.data.preference_data.rows import (
    PreferenceRows,
    concatenated,
    read_preference_rows,
    write_preference_rows,
)
from tunemill.stages.data.rows.limits import Strategy
from tunemill.stages.data.rows.order import shuffled
from tunemill.stages.data.rows.quality import say_quality
from tunemill.stages.data.rows.tally import dataset_names, plot_lengths
from tunemill.stages.errors import RowError
from tunemill.stages.report import Report, Scalar, Workspace


def preference_data(
    config: PreferenceDataConfig, tokenized: list[Preferences], out: Workspace, report: Report
) -> None:
    """Write `rows.arrow` and, with val_set_size, `held_out.arrow`.

    Raises RowError when nothing is left to train on, and for rows that are too long where they must not be.
    """
    datasets = [read_preference_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
    names = dataset_names(config.datasets, len(datasets))
    everything = concatenated(datasets)
    merged, fitted = fitted_in_order(datasets, config, names)
    if len(merged) == 0:
        raise RowError(describe_nothing(fitted, config.sequence_len, strategy_of(config, datasets)))
    unique = without_duplicates(merged, config)
    rows, held_out = split(unique, config.val_set_size)
    # Where each row is kept once, none occurs again.
    found = [] if config.dataset_exact_deduplication else figures(rows, held_out)
    if any(figure.count for figure in found):
        say_quality(found, report)
    write_preference_rows(rows, out.data / "rows.arrow")
    if held_out is not None:
        write_preference_rows(held_out, out.data / "held_out.arrow")
        report.summary(held_out_rows=len(held_out))
    if config.dataset_exact_deduplication:
        report.summary(dropped_duplicates=len(merged) - len(unique))
    report.summary(
        rows=len(rows),
        dropped_too_long=sum(item.too_long for item in fitted),
        dropped_equal_answers=sum(item.equal for item in fitted),
        dropped_empty_answers=sum(item.empty for item in fitted),
        truncated=sum(item.truncated for item in fitted),
    )
    plot_lengths(everything.length, config.sequence_len, "sequence_len", report)
    steps = {"rows": everything, "fit": merged, "unique": unique, "held out": held_out, "kept": rows}
    show_rows({step: part for step, part in steps.items() if part is not None}, names, report)


def strategy_of(config: PreferenceDataConfig, datasets: Sequence[PreferenceRows]) -> Strategy:
    """What happens to rows that are too long."""
    return config.excess_length_strategy or ("truncate" if datasets[0].is_reward else "drop")


def fitted_in_order(
    datasets: list[PreferenceRows], config: PreferenceDataConfig, names: Sequence[str]
) -> tuple[PreferenceRows, list[Fitted]]:
    """All rows to learn from, in training order, and what became of each part of the rows that was fitted by itself.

    As in Axolotl, each dataset is fitted before they are merged; those of a reward model after that.
    """
    strategy = strategy_of(config, datasets)
    if datasets[0].is_reward:
        ordered = fit(in_training_order(datasets, config), config.sequence_len, strategy, names)
        return ordered.rows, [ordered]
    fitted = [fit(rows, config.sequence_len, strategy, names) for rows in datasets]
    merged = in_training_order([item.rows for item in fitted], config)
    return merged, fitted


def describe_nothing(fitted: Sequence[Fitted], longest: int, strategy: Strategy) -> str:
    """Why nothing is left to train on, with the counts."""
    long, equal, empty = (
        sum(item.too_long for item in fitted),
        sum(item.equal for item in fitted),
        sum(item.empty for item in fitted),
    )
    said = "nothing is left to train on: "
    if not equal and not empty:
        more = " and cannot be truncated: their prompts alone are" if strategy == "truncate" else ""
        return f"{said}all {long} rows are longer than sequence_len: {longest}{more}"
    return (
        f"{said}of {long + equal + empty} rows {equal} have equal answers and {empty} an answer that says nothing, as "
        f"far as they fit into sequence_len: {longest}, and {long} are longer. Answers must differ within that length: "
        "mend the rows, or raise sequence_len"
    )


def without_duplicates(rows: PreferenceRows, config: PreferenceDataConfig) -> PreferenceRows:
    """Of equal rows the first, where that is asked for."""
    return rows.take(first_of_each(rows)) if config.dataset_exact_deduplication else rows


def in_training_order(datasets: list[PreferenceRows], config: PreferenceDataConfig) -> PreferenceRows:
    """All rows, shuffled as the config says. The order is that of the `datasets` library for the same seed."""
    if len(datasets) > 1 and config.shuffle_before_merging_datasets:
        datasets = [rows.take(shuffled(len(rows), config.seed)) for rows in datasets]
    merged = concatenated(datasets)
    if config.shuffle_merged_datasets and not config.curriculum_sampling:
        merged = merged.take(shuffled(len(merged), config.seed))
    return merged


def split(rows: PreferenceRows, val_set_size: float) -> tuple[PreferenceRows, PreferenceRows | None]:
    """Rows to train on and rows held out: the last ones. Raises RowError when none is left to train on."""
    if val_set_size == 0:
        return rows, None
    held_out = int(val_set_size) if val_set_size > 1 else int(np.ceil(val_set_size * len(rows)))
    border = len(rows) - held_out
    if border <= 0:
        raise RowError(
            f"val_set_size: {val_set_size:g} would hold out {held_out} of {len(rows)} rows and leave none to "
            "train on; make it smaller"
        )
    return rows.take(np.arange(border)), rows.take(np.arange(border, len(rows)))


def show_rows(steps: dict[str, PreferenceRows], names: list[str], report: Report) -> None:
    """How many rows of which dataset came through each step."""
    counts = [np.bincount(rows.dataset, minlength=len(names) + 1)[1:].tolist() for rows in steps.values()]
    lines: list[list[Scalar]] = [
        [name, *of_dataset] for name, *of_dataset in zip(names, *counts, strict=True)
    ]
    if len(names) > 1:
        lines.append(["all", *(sum(count) for count in counts)])
    report.table("Rows by dataset", ["dataset", *steps], lines)
