"""What is counted while rows become tokens, and how it is shown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from tunemill.stages.data.conversations.calls import CALLS
from tunemill.stages.data.conversations.example import Conversation, Example, TokenConversation
from tunemill.stages.data.conversations.samples import Samples
from tunemill.stages.data.rows.quality import Figure
from tunemill.stages.data.rows.tally import plot_counted
from tunemill.stages.report import Report, Scalar

# A row is unusually long when it is longer than the third quartile by so many times the distance of the quartiles.
FAR_OUT = 3.0


@dataclass
class Counts:
    """What has been written so far; `lengths` counts rows by their number of tokens.

    `messages_left_out` are messages of conversations whose text the chat template does not write, and `unwritten` those
    of which it does not write a reasoning or calls of tools, by the field that has them. `tools_left_out` are rows
    whose tools it does not write.
    """

    rows: int = 0
    messages_left_out: int = 0
    unwritten: Counter[str] = field(default_factory=Counter)
    tools_left_out: int = 0
    untrained: int = 0
    trained_tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    role_tokens: Counter[str] = field(default_factory=Counter)
    role_trained: Counter[str] = field(default_factory=Counter)

    @property
    def tokens(self) -> int:
        return sum(length * rows for length, rows in self.lengths.items())

    def add(self, examples: Sequence[Example], samples: Samples) -> None:
        """Count a batch of rows."""
        self.messages_left_out += sum(e.left_out for e in examples if isinstance(e, Conversation))
        self.tools_left_out += sum(e.without_tools for e in examples if isinstance(e, Conversation))
        for example in examples:
            if isinstance(example, Conversation | TokenConversation):
                self.unwritten.update(example.unwritten)
        before = samples.trained_before()
        trained = np.diff(before[samples.offsets])
        self.rows += len(samples)
        self.untrained += int((trained == 0).sum())
        self.trained_tokens += int(trained.sum())
        self.lengths.update(samples.lengths().tolist())
        starts, ends = samples.run_bounds()
        for counter, counts in (
            (self.role_tokens, ends - starts),
            (self.role_trained, before[ends] - before[starts]),
        ):
            sums = np.bincount(samples.run_roles, weights=counts, minlength=len(samples.roles))
            counter.update(dict(zip(samples.roles, sums.astype(np.int64).tolist(), strict=True)))

    def update(self, other: "Counts") -> None:
        """Count also what another one has."""
        for one in fields(self):
            mine, more = getattr(self, one.name), getattr(other, one.name)
            setattr(self, one.name, mine + more)


def figures(counts: Counts) -> list[Figure]:
    """What there is to say of the quality of rows, by their counts."""
    lengths = np.array(sorted(counts.lengths))
    rows = np.array([counts.lengths[length] for length in lengths.tolist()])
    first, third = (
        int(lengths[np.searchsorted(np.cumsum(rows), counts.rows * part)]) for part in (0.25, 0.75)
    )
    border = third + FAR_OUT * (third - first)
    far = int(rows[lengths > border].sum())
    return [
        Figure("tokens that are trained on", counts.trained_tokens, counts.tokens),
        Figure(f"rows far longer than most (over {border:g} tokens)", far, counts.rows, "rows_far_longer"),
    ]


def say_unwritten(unwritten: Mapping[str, int], report: Report) -> None:
    """Which fields of messages the chat template leaves out."""
    for name, count in sorted(unwritten.items()):
        advice = "choose another template"
        if name != CALLS:
            advice += (
                ", or say in field_thinking and template_thinking_key what the data and the template call a reasoning; "
                "some templates write that of the last answer only"
            )
        report.log(f"{count} messages have {name!r}, which the chat template leaves out: {advice}")
    report.summary(message_fields_left_out=sum(unwritten.values()))


def say(counts: Counts, report: Report) -> None:
    """Summary, tokens by role, and a histogram of lengths."""
    if counts.messages_left_out:
        report.log(
            f"{counts.messages_left_out} messages have a text that the chat template leaves out: look for their roles "
            "in the examples, or choose another template"
        )
        report.summary(messages_left_out=counts.messages_left_out)
    if counts.unwritten:
        say_unwritten(counts.unwritten, report)
    if counts.tools_left_out:
        report.log(
            f"{counts.tools_left_out} rows have tools, which the chat template leaves out: choose another template. "
            "Where the model has one for tools, the log of the tokenizer names it"
        )
        report.summary(tools_left_out=counts.tools_left_out)
    if counts.untrained:
        report.log(
            f"{counts.untrained} rows have no token to train on and will be left out of the training data"
        )
    report.summary(
        rows=counts.rows,
        rows_without_trained_tokens=counts.untrained,
        tokens=counts.tokens,
        trained_tokens=counts.trained_tokens,
        masked_tokens=counts.tokens - counts.trained_tokens,
        longest_row=max(counts.lengths),
        mean_tokens_per_row=round(counts.tokens / counts.rows, 1),
    )
    by_role: list[Sequence[Scalar]] = [
        (role, counts.role_trained[role], tokens - counts.role_trained[role])
        for role, tokens in sorted(counts.role_tokens.items())
    ]
    report.table("Tokens by role", ["role", "trained", "masked"], by_role)
    plot_counted("Row lengths", counts.lengths, report)
