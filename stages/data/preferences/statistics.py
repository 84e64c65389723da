"""What is counted while rows become preferences, and how it is shown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunemill.stages.data.preferences.lengths import Measured
from tunemill.stages.data.preferences.records import Pair, Rated, Record, Whole
from tunemill.stages.data.rows.shown import beginning
from tunemill.stages.data.rows.tally import plot_counted
from tunemill.stages.report import Report, Scalar

SHOWN_EXAMPLES = 3


@dataclass
class Counts:
    """What has been written so far; `lengths` counts rows by their tokens, for each part of a row."""

    rows: int = 0
    equal: int = 0
    empty: int = 0
    good: int = 0
    lengths: dict[str, Counter[int]] = field(default_factory=dict)
    examples: list[Record] = field(default_factory=list)

    def add(self, records: Sequence[Record], measured: Measured) -> None:
        """Count a batch."""
        self.rows += len(records)
        self.equal += measured.equal
        self.empty += measured.empty
        self.good += sum(isinstance(r, Rated) and r.label for r in records)
        for part, lengths in measured.lengths.items():
            self.lengths.setdefault(part, Counter()).update(lengths)
        self.examples += records[: SHOWN_EXAMPLES - len(self.examples)]


def say(counts: Counts, report: Report) -> None:
    """Summary, what is odd about the rows, the first rows, and a histogram of each part's lengths."""
    tokens = {part: sum(n * rows for n, rows in lengths.items()) for part, lengths in counts.lengths.items()}
    report.summary(rows=counts.rows, **{f"{part}_tokens": number for part, number in tokens.items()})
    if isinstance(counts.examples[0], Rated):
        report.summary(good_answers=counts.good, bad_answers=counts.rows - counts.good)
        if counts.good in (0, counts.rows):
            report.log("warning: every answer has the same label, so there is nothing to tell apart")
    else:
        report.summary(rows_with_equal_answers=counts.equal)
        if counts.equal:
            report.log(
                f"warning: {rows_have(counts.equal)} the same text as chosen and as rejected answer, which teaches "
                "nothing: left out when the rows are put together"
            )
    report.summary(rows_with_empty_answers=counts.empty)
    if counts.empty:
        report.log(
            f"warning: {rows_have(counts.empty)} an answer that says nothing: left out when the rows are put together"
        )
    show_examples(counts.examples, report)
    for part, lengths in counts.lengths.items():
        plot_counted(f"Lengths of {part}", lengths, report)


def rows_have(count: int) -> str:
    """So many rows, as the beginning of a sentence."""
    return "1 row has" if count == 1 else f"{count} rows have"


def show_examples(records: Sequence[Record], report: Report) -> None:
    """The first rows, cut where they are long."""
    shown: list[Sequence[Scalar]] = []
    for number, record in enumerate(records, 1):
        if isinstance(record, Rated):
            answers = [("good completion" if record.label else "bad completion", record.completion)]
        else:
            texts = [r.text if isinstance(r, Whole) else r for r in (record.chosen, record.rejected)]
            answers = list(zip(("chosen", "rejected"), texts, strict=True))
        prompt = [("prompt", record.prompt)] if isinstance(record, Pair | Rated) else []
        for part, text in (*prompt, *answers):
            shown.append((number, part, beginning(text)))
    report.table("Examples", ["example", "part", "text"], shown)
