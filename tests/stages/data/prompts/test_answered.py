"""Rows of questions with their answers, as Axolotl's types for `rl: ebft` make them."""

import pytest

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.prompts.answered import READERS

TALK = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "<think>\nhm</think>\na"},
    {"role": "user", "content": "r"},
    {"role": "assistant", "content": "b"},
]


def read(kind, row):
    return [(one.prompt, one.columns) for one in READERS[kind](row)]


def test_a_question_with_its_answer():
    row = {"input": "q", "output": "a", "id": 7}
    asked = [{"role": "user", "content": "q"}]
    assert read("ebft_opencode.transform", row) == [(asked, {"ground_truth": "a"})]
    with pytest.raises(BadRowError, match="no text in field 'output'"):
        read("ebft_opencode.transform", {"input": "q", "output": None})


def test_turns_of_a_conversation():
    every = [(TALK[:2], {"ground_truth": TALK[2]["content"]}), (TALK[:4], {"ground_truth": "b"})]
    assert read("ebft_chat_multiturn.transform_all_turns", {"messages": TALK}) == every
    assert read("ebft_chat_multiturn.transform_last_turn", {"conversations": TALK}) == every[1:]
    assert read("ebft_reasoning.transform", {"messages": TALK[:3]}) == every[:1]
    bare = [(TALK[:2], {"ground_truth": "a"})]
    assert read("ebft_reasoning.transform_answer_only", {"messages": TALK[:3]}) == bare
    with pytest.raises(BadRowError, match="no question with its answer"):
        read("ebft_reasoning.transform", {"messages": TALK[:2]})
    with pytest.raises(BadRowError, match="no field 'messages'"):
        read("ebft_reasoning.transform", {})
