"""The answers that completions are compared with: the `ground_truth` of the prompts' rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.rows.answers import GROUND_TRUTH, fault_of_answer
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.errors import RowError
from tunemill.stages.training.online.engine import Completion
from tunemill.stages.training.online.rollouts import Rollout

Answers = Sequence[Sequence[int]]


def ids_of(words: Any, text: str) -> tuple[int, ...]:
    """The tokens of an answer behind its prompt, without one that ends it."""
    return tuple(words(text, add_special_tokens=False)["input_ids"])


def answers_of(prompts: PromptRows, words: Any) -> list[tuple[int, ...]]:
    """The tokens of each row's answer. Raises RowError where a row has none."""
    found = []
    for row in range(len(prompts)):
        text: Any = prompts[row].columns.get(GROUND_TRUTH)
        if (fault := fault_of_answer(text)) is not None:
            raise RowError(f"prompt {row + 1}: {fault}")
        if not (ids := ids_of(words, text)):
            raise RowError(f"prompt {row + 1}: its {GROUND_TRUTH} has no token: {text!r:.60}")
        found.append(ids)
    return found


@dataclass(frozen=True)
class AnsweredPrompts:
    """Prompts, and of each the tokens of its answer."""

    prompts: PromptRows
    answers: Answers


def answered_prompts(prompts: PromptRows, words: Any) -> AnsweredPrompts:
    """Raises RowError where a row has no answer."""
    return AnsweredPrompts(prompts, answers_of(prompts, words))


def told(prompt_ids: Sequence[int], ids: Sequence[int]) -> Rollout:
    """A prompt with any text behind it, as what makes sequences of completions takes it."""
    return Rollout(0, 0, 0, tuple(prompt_ids), Completion(tuple(ids), (), "stop", 0, ""), "")
