"""How well a judge of steps finds where an answer goes wrong.

Source: Zheng et al. 2024, "ProcessBench: Identifying Process Errors in Mathematical Reasoning" (arXiv 2412.06559).
"""

from collections.abc import Iterable, Sequence

# The class of a wrong step.
WRONG = 0

# The classes of the steps of an answer, as they are and as they are predicted.
Judged = tuple[Sequence[int], Sequence[int]]


def first_wrong(classes: Sequence[int]) -> int | None:
    """The number of the first wrong step, from 0; None where there is none."""
    return next((number for number, one in enumerate(classes) if one == WRONG), None)


def step_accuracy(answers: Iterable[Judged]) -> float:
    """The share of steps whose class is predicted."""
    same = [
        one == other for labels, predicted in answers for one, other in zip(labels, predicted, strict=True)
    ]
    return sum(same) / len(same)


def first_wrong_scores(answers: Iterable[Judged]) -> dict[str, float]:
    """Of answers with a wrong step, in which share the first of them is found; of those without, in which share none
    is claimed; and the harmonic mean of both shares. What there are no answers for is left out.
    """
    hits: dict[str, list[bool]] = {"first_wrong_found": [], "right_answers_passed": []}
    for labels, predicted in answers:
        expected = first_wrong(labels)
        kind = "right_answers_passed" if expected is None else "first_wrong_found"
        hits[kind].append(first_wrong(predicted) == expected)
    shares = {name: sum(found) / len(found) for name, found in hits.items() if found}
    if len(shares) == 2:
        total = sum(shares.values())
        one, other = shares.values()
        shares["first_wrong_f1"] = 2 * one * other / total if total else 0.0
    return shares
