"""Preference rows of another type, and rows that are no preferences, are named."""

import pytest
from support.preference_rows import prepare

from tunemill.stages.errors import RowError

USER, BETTER, WORSE = (
    {"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("assistant", "c"))
)
MESSAGES = {"messages": [USER], "chosen": BETTER, "rejected": WORSE}
WHOLE = {"chosen": [USER, BETTER], "rejected": [USER, WORSE]}
TEXTS = {"question": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("row", "keys", "line"),
    [
        (MESSAGES, {"rl": "orpo"}, "these rows look like `type: chat_template.default`"),
        (WHOLE, {"rl": "orpo"}, "these rows look like `type: chat_template.argilla_chat`"),
        (
            TEXTS,
            {"rl": "dpo"},
            "these rows look like `type: chat_template.default` with `field_messages: question`",
        ),
        (WHOLE, {"rl": "orpo", "type": "chat_template"}, "these rows look like `type: chat_template.argilla_chat`"),
        (WHOLE, {"reward_model": True, "type": "bradley_terry.llama3"},
         "these rows look like `type: bradley_terry.chat_template`"),
        (
            {"instruction": "a", "output": "b"},
            {"rl": "orpo"},
            "these rows are rows for fine-tuning: without `rl` and `reward_model`, `type: alpaca` trains on them",
        ),
        (
            WHOLE,
            {"rl": "kto"},
            ("these rows are pairs of a better and a worse answer: they train with `rl: orpo` and "
            "`type: chat_template.argilla_chat`"),
        ),
    ],
)  # fmt: skip
def test_rows_of_another_kind_are_named(tmp_path, row, keys, line):
    with pytest.raises(RowError) as caught:
        prepare(tmp_path, [row] * 3, **keys)
    assert str(caught.value).splitlines()[2:] == [line]


def test_one_row_among_others(tmp_path):
    with pytest.raises(
        RowError, match=r"(?s)this row looks like .*own\n`pipeline: {bad_rows: skip}`.*others$"
    ):
        prepare(tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}, MESSAGES], rl="orpo")


def test_a_damaged_row_is_not_taken_for_another_kind(tmp_path):
    rows = [{"prompt": text, "chosen": "b", "rejected": "c"} for text in ("a", "")]
    with pytest.raises(RowError, match=r"the dataset:2: its prompt is empty\n`pipeline: {bad_rows: skip}`"):
        prepare(tmp_path, rows, rl="orpo")


@pytest.mark.parametrize("name", ["chat_template.argilla_chat", "chatml.argilla_chat", "chatml.ultra"])
def test_pairs_with_another_fault_are_not_taken_for_others(name, tmp_path):
    def turns(question, answer):
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    rows = [{"chosen": turns("Why?", "So."), "rejected": turns("Who?", "No.")}]
    with pytest.raises(RowError) as caught:
        prepare(tmp_path, rows, type=name)
    assert "answer different conversations" in str(caught.value)
    assert "reward" not in str(caught.value) and "look" not in str(caught.value)
