"""Held-out rows as questions: a prompt, and the answer that should follow it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows

# Roles of the turns that a model is trained to give, as the formats of rows call them.
ANSWERING = frozenset({"assistant", "response", "output", "gpt", "bot"})
# Roles whose turns are no answers even where they are trained on. Any other role may be a model's.
ASKING = frozenset(
    {"user", "human", "prompt", "input", "system", "developer", "tool", "function", "ipython", "template"}
)


@dataclass(frozen=True)
class Question:
    """One held-out row as a prompt and the answer that should follow it, in token ids.

    `stops` end an answer: the model's end tokens, and the special token that ends this reference. `ends` are those
    of the model: where one of them ends the reference, any of them may end the answer. `bounded`: the reference says
    how long an answer may be, because it is only compared with that.
    """

    row: int
    prompt: tuple[int, ...]
    reference: tuple[int, ...]
    stops: frozenset[int]
    ends: frozenset[int]
    bounded: bool = True

    @property
    def stopped(self) -> bool:
        """Whether the reference ends with a stop token."""
        return self.reference[-1] in self.stops

    def limit(self, max_new_tokens: int) -> int:
        """How many tokens are generated: bounded, an answer of more than twice the reference and 8 is wrong already."""
        return min(max_new_tokens, 2 * len(self.reference) + 8) if self.bounded else max_new_tokens

    def cut(self, tokens: Sequence[int], max_new_tokens: int) -> list[int]:
        """Generated tokens up to the first stop token.

        Also up to the limit; bounded by a reference that ends with no stop token, up to its length.
        """
        free = self.stopped or not self.bounded
        kept = list(tokens[: self.limit(max_new_tokens) if free else len(self.reference)])
        place = next((place for place, token in enumerate(kept) if token in self.stops), len(kept))
        return kept[: place + 1]

    def without_end(self, tokens: Sequence[int]) -> list[int]:
        """Tokens without the model's end token behind them."""
        return list(tokens[:-1] if tokens and tokens[-1] in self.ends else tokens)


def question_of(
    rows: Rows, row: int, end_ids: frozenset[int], special_ids: frozenset[int], *, bounded: bool = True
) -> Question | None:
    """The row's last answer as a question; None where no answer is trained or nothing stands before it.

    Where it is known whose the tokens are, an answer is what is trained of an assistant's turn, or else of a turn
    whose role is none of those that ask. An end token that is trained alone is no answer.
    """
    ids, labels, roles = rows.ids(row).tolist(), rows.labels(row).tolist(), rows.roles(row)
    span = None
    for masked in _answers_only(labels, roles):
        span = span or last_answer(ids, masked, end_ids)
    if span is None or span[0] == 0:
        return None
    prompt, reference = tuple(ids[: span[0]]), tuple(ids[span[0] : span[1]])
    inside = frozenset(reference[:-1])
    ending = {reference[-1]} & special_ids
    # A token that also stands inside the reference does not end it.
    return Question(row, prompt, reference, (end_ids | ending) - inside, end_ids - inside, bounded)


def _answers_only(labels: list[int], roles: list[tuple[str, int]]) -> list[list[int]]:
    """The labels with those masked that are of no answer: of turns that are surely answers, then of any that may be."""
    if not roles:
        return [labels]
    certain, possible = [IGNORED] * len(labels), [IGNORED] * len(labels)
    start = 0
    for role, end in roles:
        if role in ANSWERING:
            certain[start:end] = labels[start:end]
        if role not in ASKING:
            possible[start:end] = labels[start:end]
        start = end
    return [certain, possible]


def last_answer(ids: Sequence[int], labels: Sequence[int], end_ids: frozenset[int]) -> tuple[int, int] | None:
    """Start and end of the last run of trained tokens that is more than end tokens; None where there is none."""
    end = len(labels)
    while end:
        while end and labels[end - 1] == IGNORED:
            end -= 1
        start = end
        while start and labels[start - 1] != IGNORED:
            start -= 1
        if not end_ids.issuperset(ids[start:end]):
            return start, end
        end = start
    return None
