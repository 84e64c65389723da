"""The body of the tokenized stage: rows to tokens a batch at a time, in several processes where it is worth it."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from tunemill.stages.artifacts import RawDataset, Tokenizer
from tunemill.stages.data.conversations.example import BadRowError, Format
from tunemill.stages.data.conversations.loaded import LoadedTokenizer
from tunemill.stages.data.conversations.pieces import pieces
from tunemill.stages.data.conversations.samples import Sample
from tunemill.stages.data.engines.encoded import Engine
from tunemill.stages.data.engines.own_texts import own_texts
from tunemill.stages.data.engines.proof import with_engine
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.rows.bad_rows import BadRows, none_left
from tunemill.stages.data.rows.columns import numbers_of
from tunemill.stages.data.rows.likeness import Keys, Reads, likeness, settings_to_try
from tunemill.stages.data.rows.quality import say_quality
from tunemill.stages.data.rows.raw_rows import batch_numbers
from tunemill.stages.data.rows.shapes import Row
from tunemill.stages.data.rows.shown import beginning
from tunemill.stages.data.rows.token_rows import CUT, LONG_ROWS, NUMBERED_SCHEMA, SPLIT, open_writer
from tunemill.stages.data.rows.workers import in_workers, started, workers_for
from tunemill.stages.data.tokenized.batches import (
    SHOWN_EXAMPLES,
    Done,
    Wanted,
    batch_maker,
    batches_with,
    cut,
)
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.coverage import Coverage
from tunemill.stages.data.tokenized.scripts import Scripts
from tunemill.stages.data.tokenized.statistics import Counts, figures, say
from tunemill.stages.data.tokenized.words import Words, make_format, words_of
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.report import Report, Scalar, Workspace


@dataclass
class Written:
    """What has been written, and what was not."""

    bad: BadRows
    coverage: Coverage
    scripts: Scripts | None
    counts: Counts = field(default_factory=Counts)
    examples: list[Sample] = field(default_factory=list)


def tokenized(
    config: TokenizedConfig, dataset: RawDataset, tokenizer: Tokenizer, out: Workspace, report: Report
) -> None:
    """Write `rows.arrow`: token ids and labels of every row.

    Raises RowError for bad rows, after looking at all of them, and when no row trains anything.
    """
    name = Path(config.path).name if config.path else "the dataset"
    numbers = batch_numbers(dataset.rows)
    # A function of the user's own may remember rows.
    count = 1 if config.is_code else workers_for(len(numbers), config.dataset_num_proc)
    # They start while the engine is proven.
    with started(batch_maker.__module__, count if count > 1 else 0) as early:
        ready = [nullcontext(early)]
        words = words_of(tokenizer)
        chosen = make_format(config, words, report)
        # By the reference, while no other engine is proven: a template or a source that cannot be read shows at once.
        first = None if config.is_code else first_rows(config, dataset.rows, name, words, report)

        def write(engine: Engine, traced: bool) -> Written:
            bad = BadRows(name, config.bad_rows, out.data)
            backend = words.loaded.backend_tokenizer
            scripts = Scripts(backend) if config.data_report == "full" else None
            written = Written(bad, Coverage(backend), scripts)
            # Once a bad row stops the stage all rows are still looked at, and no more than that.
            there = [first] if first is not None and traced else []
            items = (
                Wanted(number, not bad.stops, ends) for number, ends in islice(cut(numbers), len(there), None)
            )
            if count == 1:
                read = chosen if traced else make_format(config, words, Report(lambda _: None), traced=False)
                made = batches_with(dataset.rows, name, read, words.encoder.using(engine))
                return write_rows(chain(there, map(made, items)), chosen, written, report)
            arguments = (config, dataset.rows, name, tokenizer, engine.name, traced)
            # After a first try the lines have results of it.
            with ready.pop() if ready else started(batch_maker.__module__, count) as lines:
                batches = in_workers(items, batch_maker, arguments, lines)
                return write_rows(chain(there, batches), chosen, written, report)

        own = own_texts(dataset.rows)
        written = with_engine(config.tokenizer_engine, words.encoder.reference, own, report, write)
    bad, counts = written.bad, written.counts
    reads = Reads(("tokens",), lambda keys, rows: reading(keys, rows, config, words))
    # Who has a function of their own knows what it reads.
    alike = None if config.is_code else partial(likeness, config, reads=reads)
    bad.finish(report, alike)
    if counts.rows == 0:
        raise none_left(bad, alike)
    if counts.untrained == counts.rows:
        raise RowError(nothing_trained(name, config, counts))
    say(counts, report)
    scripts = written.scripts
    say_quality(
        [*figures(counts), *written.coverage.figures(), *([scripts.figure()] if scripts else [])], report
    )
    if scripts is not None:
        scripts.say(report)
    show_examples(written.examples, words.loaded, report)


def first_rows(config: TokenizedConfig, rows: Path, name: str, words: Words, report: Report) -> Done | None:
    """The first rows, as any proven engine makes them; None where there are none, or no engine is to be proven."""
    start = next(cut(batch_numbers(rows)), None)
    if start is None or config.tokenizer_engine == Reference.name:
        return None
    read = make_format(config, words, Report(lambda _: None), traced=False)
    made = batches_with(rows, name, read, words.encoder.using(words.encoder.reference))
    done = made(Wanted(start[0], True, start[1]))
    report.progress(done.counts.rows, None, "rows")
    return done


def write_rows(batches: Iterable[Done], chosen: Format, written: Written, report: Report) -> Written:
    """Write the rows, as long as no bad row stops the stage; all of them are looked at.

    They are written in the batches that the dataset has, whatever parts these come in.
    """
    bad = written.bad
    parts: list[pa.RecordBatch] = []
    long_rows = SPLIT if chosen.splits else CUT if chosen.cuts else None
    schema = NUMBERED_SCHEMA.with_metadata(None if long_rows is None else {LONG_ROWS: long_rows})
    with open_writer(bad.folder / "rows.arrow", schema) as writer:
        for done in batches:
            for row in done.bad:
                bad.add(row.place, row.reason, row.text, row.value)
            bad.add_good(done.good, done.first)
            if done.tokens is not None and not bad.stops:
                written.coverage.add(numbers_of(done.tokens.column("input_ids").values))
                if written.scripts is not None:
                    written.scripts.add(done.tokens.column("labels").to_pylist())
                parts.append(done.tokens)
                written.counts.update(done.counts)
                written.examples += done.examples[: SHOWN_EXAMPLES - len(written.examples)]
            if done.ends and parts:
                writer.write_batch(pa.concat_batches(parts))
                parts.clear()
            report.progress(written.counts.rows, None, "rows")
    return written


def reading(keys: Keys, rows: Sequence[Row], config: TokenizedConfig, words: Words) -> Keys | None:
    """The keys of an entry that read all of these rows: those given, perhaps with a chat template; else None."""
    for tried, settings in settings_to_try(config, keys):
        try:
            # Without a trace, which compares itself with the template, and not rows that may be bad.
            chosen = make_format(TokenizedConfig(**settings), words, Report(lambda _: None), traced=False)
            for row in rows:
                chosen.read(dict(row))
        except (BadRowError, SettingError, ValidationError):
            continue
        return tried
    return None


def nothing_trained(name: str, config: TokenizedConfig, counts: Counts) -> str:
    """Why no row is left, and which settings made it so."""
    if config.type == "chat_template":
        return (
            f"none of the {counts.untrained} rows of {name} has a token to train on: "
            f"roles_to_train is {config.roles_to_train} and train_on_inputs is {config.train_on_inputs}"
        )
    return f"none of the {counts.untrained} rows of {name} has a token to train on: every output is empty"


def show_examples(samples: Sequence[Sample], loaded: LoadedTokenizer, report: Report) -> None:
    """The first rows, cut where role or training changes."""
    shown: list[Sequence[Scalar]] = []
    for number, sample in enumerate(samples, 1):
        for piece in pieces(sample.labels, [run.role for run in sample.runs], [r.end for r in sample.runs]):
            text = beginning(loaded.decode(sample.ids[piece.start : piece.end]))
            shown.append((number, piece.role, "trained" if piece.trained else "masked", text))
    report.table("Examples", ["example", "role", "labels", "text"], shown)
