"""The body of the preferences stage: read rows, tokenize them a batch at a time to measure them, write and count."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from tunemill.stages.artifacts import RawDataset, Tokenizer
from tunemill.stages.data.conversations.chat_template import choose_template
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.conversations.loaded import LoadedTokenizer, load_to_encode
from tunemill.stages.data.conversations.template_body import renderer
from tunemill.stages.data.conversations.today import with_clock
from tunemill.stages.data.engines.encoded import Engine
from tunemill.stages.data.engines.own_texts import own_texts
from tunemill.stages.data.engines.proof import with_engine
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.lengths import SCHEMAS, Measured, measure
from tunemill.stages.data.preferences.quiet import quiet_text
from tunemill.stages.data.preferences.records import Kit, Reader, Record, Reward, ready_text
from tunemill.stages.data.preferences.statistics import Counts, say
from tunemill.stages.data.preferences.type_table import USER_CODE
from tunemill.stages.data.rows.bad_rows import BadRows, none_left
from tunemill.stages.data.rows.likeness import Keys, Reads, likeness, settings_to_try
from tunemill.stages.data.rows.raw_rows import RawRow, raw_batches
from tunemill.stages.data.rows.shapes import Row
from tunemill.stages.data.rows.token_rows import open_writer
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report, Workspace

# Put before a template it is as if the caller had asked for the answer's opening. The line break goes with the tag.
OPEN_ANSWER = "{% set add_generation_prompt = true %}\n"


def preferences(
    config: PreferencesConfig, dataset: RawDataset, tokenizer: Tokenizer, out: Workspace, report: Report
) -> None:
    """Write `rows.arrow`: prompt and answers of every row.

    Raises RowError for bad rows, after looking at all of them, and when no row is left.
    """
    if config.dataset_num_proc is not None:
        # The tokenizer's thread pool reads this, and nothing else, when it starts.
        os.environ["RAYON_NUM_THREADS"] = str(config.dataset_num_proc)
    loaded, reference = load_to_encode(tokenizer)
    encoder = Encoder(reference, loaded.eos_token_id)
    read = make_reader(config, loaded, report)
    name = Path(config.path).name if config.path else "the dataset"
    quiet = quiet_text(loaded.special_tokens_map)

    def write(engine: Engine, _: bool) -> tuple[BadRows, Counts]:
        bad, counts = BadRows(name, config.bad_rows, out.data), Counts()
        measured_rows = partial(measure, kind=config.kind, encoder=encoder.using(engine), quiet=quiet)
        with open_writer(out.data / "rows.arrow", SCHEMAS[config.kind]) as writer:
            read_batches = (read_batch(batch, read, bad) for batch in raw_batches(dataset.rows, name))
            for records, measured in measured_batches(read_batches, measured_rows, bad):
                counts.add(records, measured)
                writer.write_batch(measured.batch)
                report.progress(counts.rows, None, "rows")
        return bad, counts

    bad, counts = with_engine(config.tokenizer_engine, reference, own_texts(dataset.rows), report, write)
    reads = Reads(
        (config.kind,),
        lambda keys, rows: reading(keys, rows, config, loaded),
        without="without `rl` and `reward_model`",
        first=True,
    )
    # Who has a function of their own knows what it reads.
    alike = None if config.chosen_type is USER_CODE else partial(likeness, config, reads=reads)
    bad.finish(report, alike)
    if counts.rows == 0:
        raise none_left(bad, alike)
    say(counts, report)


def make_reader(config: PreferencesConfig, loaded: LoadedTokenizer, report: Report) -> Reader:
    """Raises SettingError where the config does not fit the tokenizer."""
    template = choose_template(config.chat_template, config.chat_template_jinja, loaded.chat_template)
    opened = None if template is None else OPEN_ANSWER + template
    variables = with_clock(config.chat_template_kwargs, config.today, template, report)
    kit = Kit(loaded, template, renderer(loaded, template, variables), renderer(loaded, opened, variables))
    module, name = config.chosen_type.maker.split(":")
    made: Reader = getattr(import_module(module), name)(config, kit, *config.chosen_type.arguments)
    return made


def measured_batches(
    batches: Iterator[tuple[list[int], list[Record]]],
    measured_rows: Callable[[list[Record], list[int]], Measured],
    bad: BadRows,
) -> Iterator[tuple[list[Record], Measured]]:
    """Batches with their tokens; none any more once a bad row stops the stage, but all are read.

    While one batch is tokenized, outside of Python for the most part, the next one is read.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: tuple[list[Record], Future[Measured]] | None = None
        for numbers, records in batches:
            if pending:
                yield pending[0], pending[1].result()
            pending = None
            if records and not bad.stops:
                pending = records, pool.submit(measured_rows, records, numbers)
        if pending:
            yield pending[0], pending[1].result()


def read_batch(batch: list[RawRow], read: Reader, bad: BadRows) -> tuple[list[int], list[Record]]:
    """The numbers of the good rows of a batch, and what the format makes of them."""
    numbers: list[int] = []
    records: list[Record] = []
    first: RawRow | None = None
    for row in batch:
        try:
            records.append(with_texts(read(row.value)))
            numbers.append(row.number)
            first = first or row
        except BadRowError as error:
            bad.add(row.place, str(error), row.text, row.value)
    bad.add_good(len(numbers), first.value if first else None)
    return numbers, records


def reading(
    keys: Keys,
    rows: Sequence[Row],
    config: PreferencesConfig,
    loaded: LoadedTokenizer,
) -> Keys | None:
    """The keys of an entry that read all of these rows: those given, perhaps with a chat template; else None."""
    for tried, settings in settings_to_try(config, keys):
        try:
            read = make_reader(PreferencesConfig(**settings), loaded, Report(lambda _: None))
            for row in rows:
                with_texts(read(dict(row)))
        except (BadRowError, SettingError, ValidationError):
            continue
        return tried
    return None


def with_texts(record: Record) -> Record:
    """The record. Raises BadRowError where its prompt is empty; empty answers are left out once they are cut."""
    if not isinstance(record, Reward):
        ready_text("prompt", record.prompt)
    return record
