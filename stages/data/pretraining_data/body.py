"""The body of the pretraining_data stage: read texts, tokenize, put them into sequences, until there are enough."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, pairwise, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import BadRowError, Segment, text_field
from tunemill.stages.data.conversations.loaded import load_to_encode
from tunemill.stages.data.engines.encoded import Engine
from tunemill.stages.data.engines.own_texts import texts_in
from tunemill.stages.data.engines.proof import with_engine
from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.pretraining_data.sequences import Rows, Sequencer
from tunemill.stages.data.pretraining_data.source_body import licence_of, open_rows
from tunemill.stages.data.rows.bad_rows import BadRows
from tunemill.stages.data.rows.columns import list_column
from tunemill.stages.data.rows.likeness import Reads, likeness
from tunemill.stages.data.rows.nulls import without_nulls
from tunemill.stages.data.rows.packs import PACK_SCHEMA, say_packing
from tunemill.stages.data.rows.shapes import shapes_of
from tunemill.stages.data.rows.spelled import spelled
from tunemill.stages.data.rows.token_rows import SCHEMA, Int32s, list_array, open_writer
from tunemill.stages.data.sources.json_text import loose_text
from tunemill.stages.data.sources.rows import Row, RowFile
from tunemill.stages.errors import RowError, RowPlace, SettingError
from tunemill.stages.report import Report, Workspace

ENCODED_TEXTS = 128
PROVEN_WITH = 32
WRITTEN_SEQUENCES = 256
ELSEWHERE = "under `datasets:` in place of `pretraining_dataset:`"


@dataclass
class Counts:
    """What has been read and written so far."""

    texts: int = 0
    empty: int = 0
    sequences: int = 0
    rows: int = 0
    tokens: int = 0


def pretraining_data(
    config: PretrainingDataConfig, tokenizer: Tokenizer, out: Workspace, report: Report
) -> None:
    """Write `rows.arrow` and `packs.arrow`: as many sequences as max_steps need, or all that the source has.

    Raises RowError for bad rows among those that were read, and when there is nothing to train on; SourceError
    for a source that cannot be read.
    """
    loaded, reference = load_to_encode(tokenizer, plain=tokenizer.is_mistral)
    eos_id = loaded.eos_token_id
    if eos_id is None:
        raise SettingError(
            "pretraining_dataset: the tokenizer has no EOS token to end texts with; set special_tokens: eos_token"
        )
    scratch = out.checkpoints / "source"
    shutil.rmtree(scratch, ignore_errors=True)
    title, rows = open_rows(config, scratch, report)
    first = list(islice(rows, PROVEN_WITH))
    # With another engine the source is read anew.
    sources = chain([chain(first, rows)], (open_rows(config, scratch, report)[1] for _ in repeat(None)))
    encoder = Encoder(reference, eos_id)

    def write_with(engine: Engine, _: bool) -> tuple[BadRows, Counts, Sequencer]:
        bad, counts = BadRows(title, config.bad_rows, out.data), Counts()
        sequencer = Sequencer(config, eos_id)
        texts = tokenized_texts(config, next(sources), encoder.using(engine), bad, counts)
        write(all_sequences(config, texts, sequencer), config, counts, out, report)
        return bad, counts, sequencer

    own = [text for _, _, row in first for text in texts_in(row.value)]
    bad, counts, sequencer = with_engine(config.tokenizer_engine, reference, own, report, write_with)
    alike = partial(likeness, config, reads=Reads((), lambda _keys, _rows: None, without=ELSEWHERE))
    bad.finish(report, lambda rows, all_bad: texts_elsewhere(config, rows) or alike(rows, all_bad))
    if counts.sequences == 0:
        raise RowError(
            f"{title}: there is nothing to train on: of {counts.texts} texts after the first {config.skip} rows "
            f"{counts.empty} are empty, and the others have fewer tokens than min_sample_len: {config.min_sample_len}"
        )
    say(config, counts, sequencer.too_short, report)
    if (licence := licence_of(config)) is not None:
        report.summary(license=licence)
    shutil.rmtree(scratch, ignore_errors=True)


def tokenized_texts(
    config: PretrainingDataConfig,
    rows: Iterator[tuple[RowFile, int, Row]],
    encoder: Encoder,
    bad: BadRows,
    counts: Counts,
) -> Iterator[Int32s]:
    """The tokens of each text, with BOS and EOS; bad rows and empty texts are left out and counted."""
    while batch := list(islice(rows, ENCODED_TEXTS)):
        texts = []
        for file, number, row in batch:
            try:
                texts.append(text_of(row, config.text_field))
            except BadRowError as error:
                given = row.text or loose_text(row.value)
                bad.add(RowPlace(file.shown, file.unit, number), str(error), given, without_nulls(row.value))
        counts.texts += len(texts)
        bad.add_good(len(texts))
        written = [text for text in texts if text]
        counts.empty += len(texts) - len(written)
        examples = [(Segment("text", text, trained=True, bos=True, eos=True),) for text in written]
        samples = encoder.encode(examples, None)
        for first, end in pairwise(samples.offsets.tolist()):
            yield samples.ids[first:end]


def texts_elsewhere(config: PretrainingDataConfig, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Which other field of the rows holds texts; None where that cannot be told."""
    shapes = shapes_of(rows)
    if not shapes or shapes[0].keys.get("type") != "completion":
        return None
    field = shapes[0].keys.get("field", "text")
    try:
        for row in rows:
            text_of(Row(0, row), field)
    except BadRowError:
        return None
    beside = "" if config.field is None or config.field == field else ", without `field`"
    return f"these rows look like texts in `text_column: {spelled(field)}`{beside}"


def text_of(row: Row, field: str) -> str:
    """The text of a row. Raises BadRowError where there is none."""
    if row.problem is not None:
        raise BadRowError(row.problem)
    if not isinstance(row.value, dict):
        raise BadRowError("not an object; a row is an object of named fields")
    return text_field(row.value, field, required=True)


def all_sequences(
    config: PretrainingDataConfig, texts: Iterator[Int32s], sequencer: Sequencer
) -> Iterator[Rows]:
    """As many sequences as are needed, or fewer where the texts end before."""
    missing = config.sequences
    while missing and (buffer := fill(texts, config, missing)):
        for rows in islice(sequencer.sequences(buffer), missing):
            missing -= 1
            yield rows
    yield from islice(sequencer.rest(), missing)


def fill(texts: Iterator[Int32s], config: PretrainingDataConfig, missing: int) -> list[Int32s]:
    """The next texts: as many as the buffer holds, or as `missing` sequences take."""
    length = config.sequence_len
    whole = config.sample_packing or config.pretraining_sample_concatenation
    buffer: list[Int32s] = []
    filled = 0
    while len(buffer) < config.buffer_rows and filled < missing * length:
        text = next(texts, None)
        if text is None:
            break
        buffer.append(text)
        # A text by itself takes whole sequences, however short it is.
        filled += len(text) if whole else -(-len(text) // length) * length
    return buffer


def write(
    sequences: Iterator[Rows], config: PretrainingDataConfig, counts: Counts, out: Workspace, report: Report
) -> None:
    """Write the sequences, some of them at a time, and count them."""
    with (
        open_writer(out.data / "rows.arrow", SCHEMA) as row_file,
        open_writer(out.data / "packs.arrow", PACK_SCHEMA) as pack_file,
    ):
        while batch := list(islice(sequences, WRITTEN_SEQUENCES)):
            rows = [row for sequence in batch for row in sequence]
            column = list_array(rows)
            row_file.write_batch(pa.record_batch([column, column], schema=SCHEMA))
            lengths = np.array([len(sequence) for sequence in batch])
            numbers = np.arange(counts.rows, counts.rows + len(rows))
            packs = list_column(numbers, lengths, pa.int32())
            pack_file.write_batch(pa.record_batch([packs], schema=PACK_SCHEMA))
            counts.sequences += len(batch)
            counts.rows += len(rows)
            counts.tokens += sum(map(len, rows))
            report.progress(counts.sequences, config.sequences, "sequences")


def say(config: PretrainingDataConfig, counts: Counts, too_short: int, report: Report) -> None:
    """Figures of what was read and written, and a word when the source ended too early."""
    if counts.sequences < config.sequences:
        report.log(
            f"the source ended after {counts.texts} texts: {counts.sequences} sequences of the {config.sequences} that "
            f"max_steps: {config.max_steps} takes. Training starts over with them, in "
            + ("the same order each time" if config.curriculum_sampling else "another order each time")
        )
    report.summary(
        texts=counts.texts,
        empty_texts=counts.empty,
        dropped_too_short=too_short,
        rows=counts.rows,
        sequences=counts.sequences,
        sequences_needed=config.sequences,
        tokens=counts.tokens,
        trained_tokens=counts.tokens,
    )
    if config.sample_packing and config.pretrain_multipack_attn:
        say_packing(counts.tokens, counts.rows, counts.sequences, config.sequence_len, report)
