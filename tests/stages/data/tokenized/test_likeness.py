"""Rows that a format cannot read are tried with the others, and what fits is said."""

import re

import pytest
import yaml
from support.tiny_tokenizer import make_tokenizer

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.errors import RowError

ALPACA = {"instruction": "a", "input": "", "output": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}


def advice(tokenize, rows, **settings):
    """The lines of the error behind the first reason."""
    with pytest.raises(RowError) as caught:
        tokenize(rows, **settings)
    return [line for line in str(caught.value).splitlines()[1:] if not line.startswith("  ")]


def suggested(line):
    """The keys of a sentence."""
    spelt = re.findall(r"`([^`]+: [^`]*)`", line)
    return {key: value for text in spelt for key, value in yaml.safe_load(text).items()}


@pytest.mark.parametrize(
    ("row", "settings", "line"),
    [
        (ALPACA, {}, "these rows look like `type: alpaca`"),
        (
            SHAREGPT,
            {},
            (
                "these rows look like `type: chat_template` with `field_messages: conversations` and "
                "`message_property_mappings: {role: from, content: value}`"
            ),
        ),
        (CHAT, {"type": "alpaca"}, "these rows look like `type: chat_template`"),
        (CHAT, {"type": None}, "these rows look like `type: chat_template`"),
        (CHAT, {"type": {"field_output": "answer"}}, "these rows look like `type: chat_template`"),
        (
            CHAT,
            {"field_messages": "conversations", "message_field_role": "from"},
            "these rows look like `type: chat_template`, without `field_messages` and `message_field_role`",
        ),
        ({"text": "a"}, {"type": "alpaca"}, "these rows look like `type: completion`"),
        (
            {"body": "a"},
            {"type": "completion"},
            "these rows look like `type: completion` with `field: body`",
        ),
        (
            {"Zeile 1": "a"},
            {"type": "completion"},
            'these rows look like `type: completion` with `field: "Zeile 1"`',
        ),
        ({"input_ids": [1, 2]}, {}, "these rows look like rows that take no `type`"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            {},
            (
                "these rows are pairs of a better and a worse answer: they train with `rl: orpo` and "
                "`type: chat_template.default` with `field_messages: prompt`"
            ),
        ),
        (
            {"prompt": "a", "completion": "b", "label": True},
            {},
            "these rows are answers that are judged good or bad: they train with `rl: kto` and no `type`",
        ),
        (
            {"prompt": "a", "completions": ["b"], "labels": [True]},
            {},
            (
                "these rows are answers in judged steps: they train with `process_reward_model: true` and "
                "`type: stepwise_supervised`"
            ),
        ),
    ],
)
def test_rows_of_another_kind_are_named(tokenize, row, settings, line):
    assert advice(tokenize, [row] * 20, **settings) == [line]
    if "look like" in line:
        dataset, _ = tokenize([row] * 20, **{"type": None, **suggested(line)})
        assert dataset.rows.is_file()


def test_a_tokenizer_without_a_template_gets_one(tokenize, tmp_path):
    folder = make_tokenizer(tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    (line,) = advice(tokenize, [CHAT] * 2, given=Tokenizer(folder), type="alpaca")
    assert line == "these rows look like `type: chat_template` with `chat_template: chatml`"
    tokenize([CHAT] * 2, given=Tokenizer(folder), **suggested(line))


def test_one_row_among_others_is_no_rows(tokenize):
    lines = advice(tokenize, [CHAT, ALPACA])
    assert lines[0] == "this row looks like `type: alpaca`"
    assert lines[1].startswith("rows of different kinds need files") and "bad_rows: skip" in lines[2]


def test_where_the_bad_rows_are_of_many_kinds_the_first_is_named(tokenize):
    assert advice(tokenize, [ALPACA, {"text": "a"}, {"z": 1}]) == [
        "the first of these rows looks like `type: alpaca`"
    ]


@pytest.mark.parametrize(
    "rows", [[{}], [{"a": "b", "c": "d"}], [{"messages": []}], [CHAT, {"messages": [], "text": "x"}]]
)
def test_what_is_unknown_or_damaged_is_not_guessed_at(tokenize, rows):
    assert not any("look" in line for line in advice(tokenize, rows))


def test_the_roles_of_a_config_are_not_said_to_be_right(tokenize):
    """It is read by the default roles; that the config's own are wrong is what is said."""
    rows = [{"messages": [{"role": "Human", "content": "a"}, {"role": "Bot", "content": "b"}]}]
    (line,) = advice(tokenize, rows)
    assert line == "this row looks like `type: chat_template` with `roles: {user: [Human], assistant: [Bot]}`"


def test_when_all_rows_are_set_aside_it_is_said_too(tokenize):
    with pytest.raises(RowError, match=r"(?s)^no row .* is left.*2 rows.*1, 2: .*look like `type: alpaca`$"):
        tokenize([ALPACA] * 2, bad_rows="skip")
