"""The body of the `stored_logprobs` stage: a teacher's log-probabilities out of rows, beside the rows' tokens."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tunemill.stages.artifacts import RawDataset, TokenizedDataset, Tokenizer
from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.conversations.loaded import load_tokenizer
from tunemill.stages.data.rows.bad_rows import BadRows
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.data.rows.raw_rows import raw_batches
from tunemill.stages.data.rows.teacher_rows import TaughtRow, taught_batch, teacher_writer
from tunemill.stages.data.stored_logprobs.config import StoredLogprobsConfig
from tunemill.stages.data.stored_logprobs.entries import taught_row
from tunemill.stages.report import Report, Workspace

# Where fewer of the trained tokens are among the teacher's, the two are hardly of the same tokens.
SUSPICIOUS = 0.5


def stored_logprobs(
    config: StoredLogprobsConfig,
    dataset: RawDataset,
    tokenized: TokenizedDataset,
    tokenizer: Tokenizer,
    out: Workspace,
    report: Report,
) -> None:
    """Write `rows.arrow`, a row for each tokenized row.

    Raises RowError for rows without log-probabilities, after looking at all of them.
    """
    field = config.logprobs_field
    assert field is not None, "the graph has such a node where the field is named"
    name = Path(config.path).name if config.path else "the dataset"
    vocabulary = len(load_tokenizer(tokenizer))
    rows = Rows(tokenized.rows)
    table = pa.ipc.open_file(pa.memory_map(str(tokenized.rows))).read_all()
    numbers = table["source_row"].to_numpy()
    bad = BadRows(name, "stop", out.data)
    trained = taught = hits = done = 0
    with teacher_writer(out.data / "rows.arrow") as writer:
        for batch in raw_batches(dataset.rows, name):
            said: list[TaughtRow] = []
            for raw in batch:
                if done == len(numbers) or numbers[done] != raw.number:
                    # Set aside when it was tokenized.
                    continue
                labels, ids = rows.labels(done), rows.ids(done)
                done += 1
                try:
                    row = taught_row(raw.value, raw.number, field, labels, vocabulary, config.temperature)
                except BadRowError as error:
                    bad.add(raw.place, str(error), raw.text, raw.value)
                    continue
                bad.add_good(1, raw.value)
                said.append(row)
                trained += len(row.positions)
                taught += int((row.counts > 0).sum())
                owners = np.repeat(ids[row.positions], row.counts)
                hits += int((owners == row.token_ids).sum())
            if said and not bad.stops:
                writer.write_batch(taught_batch(said))
            report.progress(done, len(numbers), "rows")
    bad.finish(report)
    share = hits / max(taught, 1)
    if share < SUSPICIOUS:
        report.log(
            f"warning: of the trained tokens only {share:.0%} are among the teacher's likeliest in {field!r}: are its "
            f"entries of other tokens, or of another tokenizer's?"
        )
    report.summary(
        rows=done,
        trained_tokens=trained,
        tokens_without_teacher=trained - taught,
        trained_tokens_among_them=round(share, 6),
    )
