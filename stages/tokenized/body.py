"""The body of the tokenized stage: read rows, encode them a batch at a time, write and count."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunemill.stages.artifacts import RawDataset, Tokenizer
from tunemill.stages.errors import RowError, row_error
from tunemill.stages.report import Report, Workspace
from tunemill.stages.tokenized.config import TokenizedConfig
from tunemill.stages.tokenized.encoding import Encoder, Sample
from tunemill.stages.tokenized.example import BadRowError, Example, Format, Kit, RowValue
from tunemill.stages.tokenized.format_table import FORMATS, USER_DEFINED
from tunemill.stages.tokenized.masks import IGNORED
from tunemill.stages.tokenized.template_body import renderer
from tunemill.stages.tokenized.token_rows import (
    NUMBERED_SCHEMA,
    SPLITS_KEY,
    SPLITS_VALUE,
    list_array,
    open_writer,
)
from tunemill.stages.tokenizer.chat_template import choose_template

LISTED_PROBLEMS = 10
HISTOGRAM_BARS = 40


def tokenized(
    config: TokenizedConfig, dataset: RawDataset, tokenizer: Tokenizer, out: Workspace, report: Report
) -> None:
    """Write `rows.arrow`: token ids and labels of every row with something to train on.

    Raises RowError for bad rows, after looking at all of them, and when no row trains anything.
    """
    if config.dataset_num_proc is not None:
        # The tokenizer's thread pool reads this, and nothing else, when it starts.
        os.environ["RAYON_NUM_THREADS"] = str(config.dataset_num_proc)
    loaded = AutoTokenizer.from_pretrained(tokenizer.path, local_files_only=True)
    encoder = Encoder(loaded.backend_tokenizer, loaded.eos_token_id)
    chosen = make_format(config, loaded, encoder)
    file = Path(config.path).name if config.path else "the dataset"
    problems = Problems()
    counts = Counts()
    metadata = {SPLITS_KEY: SPLITS_VALUE} if chosen.splits else None
    with open_writer(out.data / "rows.arrow", NUMBERED_SCHEMA.with_metadata(metadata)) as writer:
        for batch, samples in encoded_batches(dataset.rows, chosen, encoder, problems):
            kept = [(s, row.number) for s, row in zip(samples, batch, strict=True) if counts.add(s)]
            if kept:
                writer.write_batch(token_batch(kept))
            report.progress(counts.rows + counts.untrained, None, "rows")
    if problems.count:
        raise row_error(file, "line", problems.listed, problems.count)
    if counts.rows == 0:
        raise RowError(nothing_trained(file, config, counts))
    say(counts, report)


def make_format(config: TokenizedConfig, loaded: PreTrainedTokenizerBase, encoder: Encoder) -> Format:
    """Raises SettingError where the config does not fit the tokenizer."""
    template = choose_template(config.chat_template, config.chat_template_jinja, loaded.chat_template)
    kit = Kit(
        template=template,
        render=renderer(loaded, template, config.chat_template_kwargs),
        eos_token=loaded.eos_token,
        ids_of=encoder.ids_of,
    )
    module, name = (FORMATS[config.type] if isinstance(config.type, str) else USER_DEFINED).split(":")
    made = getattr(import_module(module), name)(config, kit)
    assert isinstance(made, Format)
    return made


@dataclass
class Problems:
    """Bad rows: the first of them, as (line, reason), and how many."""

    listed: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.listed) < LISTED_PROBLEMS:
            self.listed.append((line, reason))


@dataclass
class Counts:
    """What has been written so far; `lengths` counts rows by their number of tokens."""

    rows: int = 0
    untrained: int = 0
    trained_tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    role_tokens: Counter[str] = field(default_factory=Counter)
    role_trained: Counter[str] = field(default_factory=Counter)

    @property
    def tokens(self) -> int:
        return sum(length * rows for length, rows in self.lengths.items())

    def add(self, sample: Sample) -> bool:
        """Returns whether the row has something to train on; only then it counts as a row."""
        trained = sample.trained_tokens
        if trained == 0:
            self.untrained += 1
            return False
        self.rows += 1
        self.trained_tokens += trained
        self.lengths[len(sample.ids)] += 1
        for run in sample.runs:
            labels = sample.labels[run.start : run.end]
            self.role_tokens[run.role] += len(labels)
            self.role_trained[run.role] += len(labels) - labels.count(IGNORED)
        return True


@dataclass(frozen=True)
class RawRow:
    """A row, its number in the dataset and its line in the source, both from 1."""

    value: RowValue
    number: int
    line: int


def encoded_batches(
    path: Path, chosen: Format, encoder: Encoder, problems: Problems
) -> Iterator[tuple[list[RawRow], list[Sample]]]:
    """Batches of rows with their tokens; none any more after a bad row, but all rows are read.

    While one batch is encoded, outside of Python for the most part, the next one is read.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: tuple[list[RawRow], Future[list[Sample]]] | None = None
        for batch in raw_batches(path):
            examples = list(read_batch(batch, chosen, problems))
            if pending:
                yield pending[0], pending[1].result()
            pending = None if problems.count else (batch, pool.submit(encoder.encode, examples, chosen.ends))
        if pending:
            yield pending[0], pending[1].result()


def raw_batches(path: Path) -> Iterator[list[RawRow]]:
    """The rows of a dataset, parsed, in the batches that they are stored in."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    number = 0
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        columns = zip(batch.column("row").to_pylist(), batch.column("line").to_pylist(), strict=True)
        yield [
            RawRow(without_nulls(json.loads(text)), number + position, line)
            for position, (text, line) in enumerate(columns, 1)
        ]
        number += batch.num_rows


def without_nulls(value: Any) -> Any:
    """A field that is null is a field that is not there, at every depth."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def read_batch(batch: list[RawRow], chosen: Format, problems: Problems) -> Iterator[Example]:
    """The examples of a batch; bad rows go to `problems` instead."""
    for row in batch:
        try:
            yield chosen.read(row.value)
        except BadRowError as error:
            problems.add(row.line, str(error))


def token_batch(kept: list[tuple[Sample, int]]) -> pa.RecordBatch:
    """Kept samples with their row numbers as an Arrow batch."""
    columns = [
        list_array([sample.ids for sample, _ in kept]),
        list_array([sample.labels for sample, _ in kept]),
        pa.array([number for _, number in kept], pa.int64()),
    ]
    return pa.record_batch(columns, schema=NUMBERED_SCHEMA)


def nothing_trained(file: str, config: TokenizedConfig, counts: Counts) -> str:
    """Why no row is left, and which settings made it so."""
    if config.type == "chat_template":
        return (
            f"none of the {counts.untrained} rows of {file} has a token to train on: "
            f"roles_to_train is {config.roles_to_train} and train_on_inputs is {config.train_on_inputs}"
        )
    return f"none of the {counts.untrained} rows of {file} has a token to train on: every output is empty"


def say(counts: Counts, report: Report) -> None:
    """Summary, tokens by role, and a histogram of lengths."""
    if counts.untrained:
        report.log(f"{counts.untrained} rows have no token to train on and are left out")
    report.summary(
        rows=counts.rows,
        tokens=counts.tokens,
        trained_tokens=counts.trained_tokens,
        dropped_untrained=counts.untrained,
    )
    by_role = [
        (role, trained, counts.role_tokens[role] - trained)
        for role, trained in sorted((role, counts.role_trained[role]) for role in counts.role_tokens)
    ]
    report.table("Tokens by role", ["role", "trained", "masked"], by_role)
    lengths = np.array(sorted(counts.lengths))
    rows, edges = np.histogram(lengths, bins=HISTOGRAM_BARS, weights=[counts.lengths[n] for n in lengths])
    report.plot(
        "Row lengths",
        edges[:-1].tolist(),
        rows.tolist(),
        x_label="tokens",
        y_label="rows",
        bars=True,
    )
