"""The body of the tokenized stage: read rows, encode them a batch at a time, write and count."""

import gc
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from tunemill.stages.artifacts import RawDataset, Tokenizer
from tunemill.stages.data.conversations.chat_template import choose_template
from tunemill.stages.data.conversations.encoding import Encoder, Sample
from tunemill.stages.data.conversations.example import BadRowError, Example, Format, Kit, RenderTokens
from tunemill.stages.data.conversations.loaded import LoadedTokenizer, load_tokenizer
from tunemill.stages.data.conversations.markers import advice
from tunemill.stages.data.conversations.pieces import pieces
from tunemill.stages.data.conversations.template_body import ASKED, renderer, seen
from tunemill.stages.data.conversations.today import with_clock
from tunemill.stages.data.conversations.tracing import tracer
from tunemill.stages.data.rows.bad_rows import BadRows, none_left
from tunemill.stages.data.rows.columns import column
from tunemill.stages.data.rows.likeness import Keys, Reads, likeness, settings_to_try
from tunemill.stages.data.rows.quality import say_quality
from tunemill.stages.data.rows.raw_rows import RawRow, raw_batches
from tunemill.stages.data.rows.shapes import Row
from tunemill.stages.data.rows.token_rows import (
    CUT,
    LONG_ROWS,
    NUMBERED_SCHEMA,
    SPLIT,
    list_array,
    open_writer,
)
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.coverage import Coverage
from tunemill.stages.data.tokenized.format_table import maker
from tunemill.stages.data.tokenized.scripts import Scripts
from tunemill.stages.data.tokenized.statistics import Counts, figures, say
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.report import Report, Scalar, Workspace

BATCHES_AHEAD = 2
GARBAGE_THRESHOLD = 1_000_000
SHOWN_EXAMPLES = 3
SHOWN_CHARACTERS = 300


def tokenized(
    config: TokenizedConfig, dataset: RawDataset, tokenizer: Tokenizer, out: Workspace, report: Report
) -> None:
    """Write `rows.arrow`: token ids and labels of every row.

    Raises RowError for bad rows, after looking at all of them, and when no row trains anything.
    """
    if config.dataset_num_proc is not None:
        # The tokenizer's thread pool reads this, and nothing else, when it starts.
        os.environ["RAYON_NUM_THREADS"] = str(config.dataset_num_proc)
    words = words_of(tokenizer)
    encoder = words.encoder
    chosen = make_format(config, words, report)
    name = Path(config.path).name if config.path else "the dataset"
    bad = BadRows(name, config.bad_rows, out.data)
    counts, coverage = Counts(), Coverage(words.loaded.backend_tokenizer)
    scripts = Scripts(words.loaded.backend_tokenizer) if config.data_report == "full" else None
    examples: list[Sample] = []
    long_rows = SPLIT if chosen.splits else CUT if chosen.cuts else None
    metadata = None if long_rows is None else {LONG_ROWS: long_rows}
    with (
        rare_garbage_collection(),
        open_writer(out.data / "rows.arrow", NUMBERED_SCHEMA.with_metadata(metadata)) as writer,
    ):
        for batch in encoded_batches(raw_batches(dataset.rows, name), chosen, encoder, bad):
            samples = batch.samples.result()
            for example, sample in zip(batch.examples, samples, strict=True):
                counts.add(example, sample)
            if samples:
                written = token_batch(samples, batch.rows)
                coverage.add(written.column("input_ids").values.to_numpy())
                writer.write_batch(written)
                if scripts is not None:
                    scripts.add(samples)
                examples += islice(samples, SHOWN_EXAMPLES - len(examples))
            report.progress(counts.rows, None, "rows")
    reads = Reads(("tokens",), lambda keys, rows: reading(keys, rows, config, words))
    # Who has a function of their own knows what it reads.
    alike = None if config.is_code else partial(likeness, config, reads=reads)
    bad.finish(report, alike)
    if counts.rows == 0:
        raise none_left(bad, alike)
    if counts.untrained == counts.rows:
        raise RowError(nothing_trained(name, config, counts))
    say(counts, report)
    say_quality([*figures(counts), *coverage.figures(), *([scripts.figure()] if scripts else [])], report)
    if scripts is not None:
        scripts.say(report)
    show_examples(examples, words.loaded, report)


@dataclass(frozen=True)
class Words:
    """The tokenizer, what makes tokens of texts with it, and of conversations where mistral-common does."""

    loaded: LoadedTokenizer
    encoder: Encoder
    render_tokens: RenderTokens | None


def words_of(tokenizer: Tokenizer) -> Words:
    """The tokenizer of an artifact, with mistral-common's rules where it holds a tekken.json."""
    loaded = load_tokenizer(tokenizer)
    encoder = Encoder(loaded.backend_tokenizer, loaded.eos_token_id, plain=tokenizer.is_mistral)
    if not tokenizer.is_mistral:
        return Words(loaded, encoder, None)
    # An extra, which only such tokenizers need.
    from tunemill.stages.data.conversations.mistral_body import MistralRules

    return Words(loaded, encoder, MistralRules(tokenizer.tekken))


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Look for cycles seldom: a batch is many small objects and no cycles, and looking costs a sixth of the time."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def make_format(config: TokenizedConfig, words: Words, report: Report) -> Format:
    """Raises SettingError where the config does not fit the tokenizer."""
    loaded = words.loaded
    template = None
    if words.render_tokens is None:
        template = choose_template(config.chat_template, config.chat_template_jinja, loaded.chat_template)
    variables = with_clock(config.chat_template_kwargs, config.today, template, report)
    if config.chat_template is not None and template is not None:
        for line in advice(loaded, template, f"the chat template {config.chat_template}"):
            report.log(line)
    kit = Kit(
        template=template,
        render=renderer(loaded, template, variables),
        render_opened=renderer(loaded, template, {**variables, ASKED: True}),
        eos_token=loaded.eos_token,
        ids_of=words.encoder.ids_of,
        tokenizer=loaded,
        render_tokens=words.render_tokens,
        offsets_of=words.encoder.offsets_of,
        trace=None if template is None else tracer(template, seen(loaded, variables)),
    )
    module, name = maker(config.type).split(":")
    made = getattr(import_module(module), name)(config, kit)
    assert isinstance(made, Format)
    return made


@dataclass(frozen=True)
class Batch:
    """Good rows, what the format makes of them, and their tokens, which may still be in the making."""

    rows: list[RawRow]
    examples: list[Example]
    samples: Future[list[Sample]]


def encoded_batches(
    batches: Iterator[list[RawRow]], chosen: Format, encoder: Encoder, bad: BadRows
) -> Iterator[Batch]:
    """Batches of good rows; none any more once a bad row stops the stage, but all rows are read.

    While two batches are encoded, outside of Python for the most part, the next one is read: where one of them is
    being labelled, which is Python, the other one keeps the tokenizer's threads busy.
    """
    pending: deque[Batch] = deque()
    with ThreadPoolExecutor(max_workers=BATCHES_AHEAD) as pool:
        for batch in batches:
            rows, examples = read_batch(batch, chosen, bad)
            if bad.stops:
                pending.clear()
                continue
            pending.append(Batch(rows, examples, pool.submit(encoder.encode, examples, chosen.ends)))
            if len(pending) > BATCHES_AHEAD:
                yield pending.popleft()
        yield from pending


def read_batch(batch: list[RawRow], chosen: Format, bad: BadRows) -> tuple[list[RawRow], list[Example]]:
    """The good rows of a batch and what the format makes of them."""
    rows: list[RawRow] = []
    examples: list[Example] = []
    for row in batch:
        try:
            examples.append(chosen.read(row.value))
            rows.append(row)
        except BadRowError as error:
            bad.add(row.place, str(error), row.text, row.value)
    bad.add_good(len(rows), rows[0].value if rows else None)
    return rows, examples


def reading(keys: Keys, rows: Sequence[Row], config: TokenizedConfig, words: Words) -> Keys | None:
    """The keys of an entry that read all of these rows: those given, perhaps with a chat template; else None."""
    for tried, settings in settings_to_try(config, keys):
        try:
            chosen = make_format(TokenizedConfig(**settings), words, Report(lambda _: None))
            for row in rows:
                chosen.read(dict(row))
        except (BadRowError, SettingError, ValidationError):
            continue
        return tried
    return None


def token_batch(samples: Sequence[Sample], rows: Sequence[RawRow]) -> pa.RecordBatch:
    """Samples with their row numbers and roles as an Arrow batch."""
    columns = [
        list_array([sample.ids for sample in samples]),
        list_array([sample.labels for sample in samples]),
        column([row.number for row in rows], pa.int64()),
        column([[run.role for run in sample.runs] for sample in samples], pa.list_(pa.string())),
        list_array([[run.end for run in sample.runs] for sample in samples]),
    ]
    return pa.record_batch(columns, schema=NUMBERED_SCHEMA)


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
            text = loaded.decode(sample.ids[piece.start : piece.end])
            if len(text) > SHOWN_CHARACTERS:
                text = f"{text[:SHOWN_CHARACTERS]}…"
            shown.append((number, piece.role, "trained" if piece.trained else "masked", text))
    report.table("Examples", ["example", "role", "labels", "text"], shown)
