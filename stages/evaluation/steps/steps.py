"""The judged steps of a row of tokens: where each begins and ends, and its class."""

from dataclasses import dataclass

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows


@dataclass(frozen=True)
class Step:
    """A judged step of a row: its own tokens are `start` to `end`, its class `label` is that of the token `place`.

    `place` is its last token, or the last one of the separator behind it.
    """

    start: int
    end: int
    place: int
    label: int


def steps_of(rows: Rows, row: int) -> list[Step]:
    """The steps of a row that have a class. A step begins behind the prompt, a separator, or the step before it."""
    runs, first = [], 0
    for role, end in rows.roles(row):
        runs.append((role, first, end))
        first = end
    borders = [end for role, _, end in runs if role in ("prompt", "separator")]
    separators = [(start, end) for role, start, end in runs if role == "separator"]
    found: list[Step] = []
    start = 0
    for place, label in enumerate(rows.labels(row).tolist()):
        if label == IGNORED:
            continue
        start = max([start, *(border for border in borders if border <= place)])
        end = next((begin for begin, end in separators if begin <= place < end), place + 1)
        found.append(Step(start, end, place, label))
        start = place + 1
    return found


def prompt_end(rows: Rows, row: int) -> int:
    """How many tokens the prompt of a row has; 0 where it is not known whose the tokens are."""
    return next((end for role, end in rows.roles(row)[:1] if role == "prompt"), 0)
