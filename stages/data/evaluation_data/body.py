"""The body of the evaluation_data stage: gather the rows, leave out those that cannot be scored."""

from tunemill.stages.artifacts import EvaluationData, TokenizedDataset, TrainingData
from tunemill.stages.data.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.data.evaluation_data.overlap import trained_on
from tunemill.stages.data.rows.duplicates import first_of_each
from tunemill.stages.data.rows.fitting import fit
from tunemill.stages.data.rows.near_duplicates import Sketches, nearly_among
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
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.report import Report, Workspace


def evaluation_data(
    config: EvaluationDataConfig,
    tokenized: list[TokenizedDataset] | None,
    training_data: TrainingData | None,
    out: Workspace,
    report: Report,
) -> None:
    """Write `rows.arrow`: the rows of test_datasets, or those that training held out.

    Training data is also what `dataset_exact_deduplication` compares with. Raises SettingError when nothing was set
    aside, RowError when nothing fits.
    """
    gathered, names = gather(config, tokenized or [], training_data)
    tally = Tally(names)
    tally.count("rows", gathered)
    rows = gathered.fitted(config.limits.longest, config.limits.shortest)
    if len(rows) != len(gathered):
        tally.count("pieces", rows)
    plot_lengths(rows.length, config.limits.longest, config.limits.key, report)
    trained = None if training_data is None else read_token_rows(training_data.rows)
    rows, seen = choose(rows, gathered, config, trained, tally)
    if len(rows) == 0:
        raise RowError(describe_empty(tally, config))
    write_token_rows(rows, out.data / "rows.arrow", with_roles=True)
    if config.keeps_sources:
        write_sources(rows, EvaluationData(out.data).sources)
    say(tally, config, report)
    found = quality(rows, seen, trained, config)
    if any(figure.count for figure in found):
        say_quality(found, report)


def gather(
    config: EvaluationDataConfig, tokenized: list[TokenizedDataset], training_data: TrainingData | None
) -> tuple[TokenRows, list[str]]:
    """Rows of test_datasets, else the rows that training held out; and what their datasets are called."""
    if tokenized:
        parts = [read_token_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
        named = [config.named] if config.named else dataset_names(config.test_datasets, len(parts))
        return concatenated(parts), named
    if training_data is not None and training_data.held_out.exists():
        return read_token_rows(training_data.held_out, 1), ["held-out rows"]
    raise SettingError("there are no rows to evaluate on: set test_datasets or val_set_size")


def choose(
    rows: TokenRows,
    whole: TokenRows,
    config: EvaluationDataConfig,
    trained: TokenRows | None,
    tally: Tally,
) -> tuple[TokenRows, Bools | None]:
    """The rows that fit and have something to score; with deduplication, once each, and none that is trained on.

    `rows` are those of `whole`, or pieces of them. Beside them, which are trained on; None where that is not known.
    """
    fitted = fit(rows, config.limits, tally.names)
    tally.count("too long", fitted.too_long)
    tally.count("too short", fitted.too_short)
    tally.count("truncated", fitted.truncated)
    rows = fitted.rows
    tally.count("nothing to train on", rows.take(rows.trained == 0))
    rows = rows.take(rows.trained > 0)
    if config.dataset_exact_deduplication:
        first = first_of_each(rows)
        tally.count("duplicates", rows.take(~first))
        rows = rows.take(first)
    seen = None
    if trained is not None:
        limits = config.limits
        seen = trained_on(rows, whole, trained, limits.longest, config.sequence_len, limits.shortest)
    if config.dataset_exact_deduplication and seen is not None:
        tally.count("trained on", rows.take(seen))
        rows, seen = rows.take(~seen), seen[~seen]
    tally.keep(rows)
    return rows, seen


def quality(
    rows: TokenRows, seen: Bools | None, trained: TokenRows | None, config: EvaluationDataConfig
) -> list[Figure]:
    """What there is to say of the quality of the rows to evaluate on."""
    found = figures_of_rows(rows, config.dataset_exact_deduplication)
    if trained is not None and config.data_report == "full":
        near = int(nearly_among(*Sketches(rows, trained).parts).sum())
        found.append(
            Figure("rows nearly like one that is trained on", near, len(rows), "rows_nearly_trained_on")
        )
    if seen is not None:
        found.append(Figure("rows that are trained on too", int(seen.sum()), len(rows), "rows_trained_on"))
    return found


def describe_empty(tally: Tally, config: EvaluationDataConfig) -> str:
    """Why nothing is left to evaluate on, with the counts."""
    limits = config.limits
    reasons = {
        "too long": f"longer than {limits.key}: {limits.longest} (raise eval_sequence_len)",
        "too short": f"shorter than min_sample_len: {limits.shortest}",
        "nothing to train on": "without a token to score",
        "duplicates": "duplicates",
        "trained on": "also trained on (dataset_exact_deduplication: true)",
    }
    counted = [
        f"{tally.total(column)} are {reason}" for column, reason in reasons.items() if tally.total(column)
    ]
    return f"no row is left to evaluate on: of {tally.total('rows')} rows {', '.join(counted)}"


def say(tally: Tally, config: EvaluationDataConfig, report: Report) -> None:
    """Summary and table of where the rows went."""
    if config.dataset_exact_deduplication:
        report.summary(dropped_duplicates=tally.total("duplicates") + tally.total("trained on"))
    report.summary(
        rows=tally.total("kept"),
        dropped_too_long=tally.total("too long"),
        dropped_too_short=tally.total("too short"),
        truncated=tally.total("truncated"),
        dropped_untrained=tally.total("nothing to train on"),
        tokens=tally.total("tokens"),
        trained_tokens=tally.total("trained tokens"),
    )
    tally.table(report)
