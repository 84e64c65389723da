"""The body of the leakage stage: read both, compare, say what was found."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunemill.stages.artifacts import EvaluationData, PreferenceData, Tokenizer, TrainingData
from tunemill.stages.data.conversations.loaded import load_tokenizer
from tunemill.stages.data.leakage.grams import Words
from tunemill.stages.data.leakage.pairs import units_of
from tunemill.stages.data.leakage.search import Leak, Search
from tunemill.stages.data.leakage.words import Vocabulary, blocks_of_tokens, known_words, numbered
from tunemill.stages.data.rows.token_rows import read_token_rows
from tunemill.stages.declaration import StageConfig
from tunemill.stages.report import Report, Workspace

SHOWN = 20
# Of a shared text so many characters are kept.
LONGEST_TEXT = 300


def leakage(
    _config: StageConfig,
    training_data: TrainingData | PreferenceData,
    evaluation_data: EvaluationData | PreferenceData,
    tokenizer: Tokenizer,
    out: Workspace,
    report: Report,
) -> None:
    """Write metrics.json and leaks.jsonl."""
    backend = load_tokenizer(tokenizer).backend_tokenizer
    if isinstance(training_data, PreferenceData):
        _leakage_of_pairs(training_data, evaluation_data, backend, out, report)
        return
    held, vocabulary = known_words(blocks_of_tokens(read_token_rows(evaluation_data.rows), backend))
    search = Search(held, vocabulary.sizes)
    trained = read_token_rows(training_data.rows)
    done = 0
    for block in blocks_of_tokens(trained, backend):
        search.add(numbered(block, vocabulary), block.marks)
        done += len(block.marks)
        report.progress(done, len(trained), "rows")
    _write([_told(leak, held, vocabulary) for leak in search.leaks()], len(held), done, out.data, report)


def _leakage_of_pairs(
    training_data: PreferenceData,
    evaluation_data: EvaluationData | PreferenceData,
    backend: Any,
    out: Workspace,
    report: Report,
) -> None:
    """The same of preference data: a row leaks by its prompt or by one of its answers."""
    units, trained = units_of(evaluation_data.rows), units_of(training_data.rows)
    held, vocabulary = known_words(units.blocks(backend))
    search = Search(held, vocabulary.sizes)
    for block in trained.blocks(backend):
        search.add(numbered(block, vocabulary), block.marks)
        report.progress(search.rows // trained.per_row, trained.rows, "rows")
    # A short answer, or what many say, is the same by chance; the same prompt is not.
    leaks = search.leaks(alone=np.arange(len(held)) % units.per_row == 0)
    found: dict[int, dict[str, Any]] = {}
    for leak in leaks:
        told = _told(leak, held, vocabulary)
        row = leak.held_out // units.per_row
        told |= {"evaluation_data": row, "training_data": leak.trained // trained.per_row}
        # The prompt is told before an answer, and of two answers the first.
        found.setdefault(row, told)
    _write(list(found.values()), units.rows, trained.rows, out.data, report)


def _told(leak: Leak, held: Words, vocabulary: Vocabulary) -> dict[str, Any]:
    """A line of leaks.jsonl."""
    begin = int(held.offsets[leak.held_out])
    words = vocabulary.words
    text = " ".join(words[number] for number in held.numbers[begin + leak.first : begin + leak.end].tolist())
    return {
        "evaluation_data": leak.held_out,
        "training_data": leak.trained,
        "share": leak.share,
        "same": leak.whole,
        "text": text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…",
    }


def _write(
    leaks: Sequence[dict[str, Any]], held_out_rows: int, trained_rows: int, folder: Path, report: Report
) -> None:
    metrics = {
        "held_out_rows": held_out_rows,
        "leaked_rows": len(leaks),
        "same_rows": sum(leak["same"] for leak in leaks),
        "trained_rows": trained_rows,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    with (folder / "leaks.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(leak, ensure_ascii=False)}\n" for leak in leaks)
    report.summary(**metrics)
    if leaks:
        columns = ["evaluation_data", "training_data", "share", "text"]
        rows = [[leak[column] for column in columns] for leak in leaks[:SHOWN]]
        report.table(
            f"Held-out rows in the training data ({len(leaks)}), by their numbers from 0", columns, rows
        )
        report.log(
            f"warning: {len(leaks)} of {held_out_rows} held-out rows are in the training data: what a model scores on "
            f"them says nothing of rows that it has not seen"
        )
