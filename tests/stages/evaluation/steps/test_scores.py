"""Step accuracy and the F1 of the first wrong step, by hand."""

import pytest

from tunemill.stages.evaluation.steps.scores import first_wrong, first_wrong_scores, step_accuracy


def test_the_first_wrong_step():
    assert first_wrong([1, 0, 0]) == 1
    assert first_wrong([1, 2]) is None
    assert first_wrong([]) is None


def test_the_scores_by_hand():
    answers = [
        ([1, 0, 0], [1, 0, 1]),  # found, whatever is said of what follows
        ([1, 0, 0], [0, 0, 0]),  # claimed too early
        ([1, 1, 0], [1, 1, 1]),  # missed
        ([0], [0]),  # found
        ([1, 1], [1, 1]),  # passed
        ([1, 1], [1, 0]),  # a false alarm
        ([1], [1]),  # passed
    ]
    # Of 4 answers with a wrong step 2 are found, of 3 without 2 pass: the harmonic mean of 1/2 and 2/3 is 4/7.
    assert first_wrong_scores(answers) == pytest.approx(
        {"first_wrong_found": 1 / 2, "right_answers_passed": 2 / 3, "first_wrong_f1": 4 / 7}
    )
    # Steps that differ: the last of the first answer, one in the second, one in the third, one in the sixth.
    assert step_accuracy(answers) == pytest.approx(11 / 15)


def test_a_judge_that_says_one_thing_has_no_score():
    answers = [([1, 0], [1, 1]), ([1, 1], [1, 1])]
    assert first_wrong_scores(answers)["first_wrong_f1"] == 0
    assert first_wrong_scores([([1, 0], [0, 0]), ([1], [0])])["first_wrong_f1"] == 0


def test_without_answers_of_both_kinds_there_is_no_f1():
    assert first_wrong_scores([([1], [1])]) == {"right_answers_passed": 1}
    assert first_wrong_scores([([0], [1])]) == {"first_wrong_found": 0}
