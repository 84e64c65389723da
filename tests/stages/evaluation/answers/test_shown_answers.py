"""What the table of wrong answers shows of long texts."""

import pytest

from tunemill.pipelines.assets.metadata import markdown_table
from tunemill.stages.evaluation.answers.body import Prediction, _show_wrong
from tunemill.stages.report import Report

SYSTEM = "You are a helpful assistant. " * 40


@pytest.mark.parametrize("length", [1, 199, 600])
def test_the_end_of_the_question_and_whole_answers_are_shown(length: int) -> None:
    question, reference, answer = "What is the capital of France?", "R" * length, "A" * length
    events: list[dict[str, object]] = []
    wrong = [Prediction(7, "", 1.0, 1, f"{SYSTEM}\n{question}", reference, answer, False, ended=False)]
    _show_wrong(wrong, Report(events.append))
    (table,) = events
    *_, row = markdown_table(table["columns"], table["rows"]).splitlines()  # type: ignore[arg-type]
    _, number, prompt, shown_reference, shown_answer, _ = (cell.strip() for cell in row.split("|"))
    assert (
        number == "7" and prompt.startswith("...") and prompt.endswith(f"⏎{question}") and len(prompt) < 210
    )
    assert shown_reference == reference and shown_answer == f"{answer} (does not end)"


def test_a_longer_answer_is_cut_at_its_end_and_a_short_prompt_not_at_all() -> None:
    events: list[dict[str, object]] = []
    _show_wrong([Prediction(0, "", 1.0, 1, "2 + 2", "4", "5" + "0" * 700, False)], Report(events.append))
    assert events[0]["rows"] == [[0, "2 + 2", "4", "5" + "0" * 599 + "..."]]
