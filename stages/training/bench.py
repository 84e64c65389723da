"""Questions with answers by letter, read from a file."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.errors import RowError, SourceError
from tunemill.stages.text_files import text_of_file

LETTERS = "ABCDEFGHIJ"
# As many letters as Axolotl compares where a row does not list its choices.
UNLISTED = 7


@dataclass(frozen=True)
class BenchQuestion:
    """A prompt, and what may follow it: the right one is number `answer`."""

    prompt: str
    answers: tuple[str, ...]
    answer: int
    subject: str | None


def bench_questions(file: Path) -> list[BenchQuestion]:
    """The questions of a `.json` (a list of rows) or `.jsonl`. Raises SourceError, RowError with the place.

    A row has either `input`, the whole prompt, and `output`, the right letter, as in Axolotl's dharma-1; or `question`,
    `choices` and `answer` (a letter, or a number from 0), as MMLU has it. `subject` may stand beside.
    """
    found = [question_of(row, where) for where, row in _rows(file)]
    if not found:
        raise SourceError(f"bench_dataset: {file} has no questions")
    return found


def question_of(row: Any, where: str) -> BenchQuestion:
    """One question. Raises RowError."""
    if not isinstance(row, dict):
        raise RowError(f"{where}: a question is a mapping of keys to values")
    subject = row.get("subject")
    if subject is not None and not isinstance(subject, str):
        raise RowError(f"{where}: subject must be a text (given: {subject!r})")
    if isinstance(row.get("input"), str) and isinstance(row.get("output"), str):
        answers = tuple(LETTERS[:UNLISTED])
        return BenchQuestion(row["input"], answers, _number(row["output"], len(answers), where), subject)
    choices = row.get("choices")
    if not isinstance(row.get("question"), str) or not isinstance(choices, list) or "answer" not in row:
        raise RowError(
            f"{where}: a question needs `input` and `output`, or `question`, `choices` and `answer` (it has "
            f"{', '.join(row)})"
        )
    if not 2 <= len(choices) <= len(LETTERS):
        raise RowError(f"{where}: choices: from 2 to {len(LETTERS)} of them (given: {len(choices)})")
    letters = LETTERS[: len(choices)]
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(letters, choices, strict=True))
    answers = tuple(f" {letter}" for letter in letters)
    prompt = f"{row['question'].strip()}\n{listed}Answer:"
    return BenchQuestion(prompt, answers, _number(row["answer"], len(choices), where), subject)


def _number(answer: Any, count: int, where: str) -> int:
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < count:
        return answer
    letter = answer.strip() if isinstance(answer, str) else ""
    if len(letter) == 1 and letter in LETTERS[:count]:
        return LETTERS.index(letter)
    raise RowError(f"{where}: the answer must be a letter from A to {LETTERS[count - 1]} (given: {answer!r})")


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    text = text_of_file(file)
    try:
        if file.suffix.lower() == ".jsonl":
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    yield f"bench_dataset: {file}:{number}", json.loads(line)
            return
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(f"bench_dataset: {file} is no JSON: {error}") from None
    if not isinstance(whole, list):
        raise SourceError(f"bench_dataset: {file}: must be a list of questions")
    for number, row in enumerate(whole, 1):
        yield f"bench_dataset: {file}, row {number}", row


def shares(right: Sequence[tuple[BenchQuestion, bool]]) -> dict[str, float]:
    """The share of right answers, of all and of each subject."""
    groups: dict[str, list[bool]] = {"eval_bench_accuracy": [is_right for _, is_right in right]}
    for question, is_right in right:
        if question.subject is not None:
            groups.setdefault(f"eval_bench_accuracy_{question.subject}", []).append(is_right)
    return {name: sum(group) / len(group) for name, group in groups.items()}
