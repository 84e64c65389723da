"""What `type` may be, and what is said where it is something else."""

import re

import pytest
from pydantic import ValidationError

from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.format_table import PRETOKENIZED, USER_CODE, USER_DEFINED, maker


def refused(**settings):
    with pytest.raises(ValidationError) as caught:
        TokenizedConfig(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("sharegpt", r"message_property_mappings: \{role: from, content: value\}"),
        ("sharegpt:chat", "type: sharegpt:chat is gone; use type: chat_template"),
        ("sharegpt_simple.load", "is gone"),
        ("messages", "use type: chat_template"),
        ("pretrain", "belongs under pretraining_dataset"),
        ("nothing_like_it.at_all", "functions of your own: module.function"),
    ],
)
def test_unknown_types(kind, said):
    assert re.search(said, refused(type=kind))


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("alpacca", "alpaca"),
        ("alpaca_chat:load_qa", "alpaca_chat.load_qa"),
        ("alpaca:chats", "alpaca:chat"),
        ("reflection:phi", "reflection"),
        ("quite_another_thing", None),
    ],
)
def test_a_slip_gets_the_nearest_name(kind, meant):
    with pytest.raises(ValidationError) as caught:
        TokenizedConfig(type=kind)
    (error,) = caught.value.errors()
    assert error["ctx"]["error"].suggestion == meant


def test_load_may_be_named():
    for name in (
        "completion",
        "input_output",
        "metharme",
        "alpaca_chat",
        "chat_template",
        "stepwise_supervised",
    ):
        assert TokenizedConfig(type=f"{name}.load").type == name
    assert TokenizedConfig(type="completion.load", field="body").field == "body"


def test_what_makes_a_format():
    assert maker(None) == PRETOKENIZED
    assert maker(TokenizedConfig(type={"format": "{instruction}"}).type) == USER_DEFINED
    assert maker("my_module.transform") == USER_CODE
    assert maker("alpaca:chat").endswith("formats.instruct:instruct")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"type": "alpaca", "field": "body"},
            "field is only used with type: completion, not with type: alpaca",
        ),
        ({"type": "alpaca", "conversation": "chat"}, "conversation is only used with type: alpaca_chat"),
        (
            {"type": "alpaca", "step_separator": "\n"},
            "step_separator is only used with type: stepwise_supervised",
        ),
        ({"train_on_last_step_only": True}, "only used with type: stepwise_supervised, not with none"),
        (
            {"type": {}, "roles_to_train": []},
            "roles_to_train is only used with type: chat_template, not with a",
        ),
        (
            {"type": "stepwise_supervised", "train_on_inputs": True},
            "does not go with type: stepwise_supervised",
        ),
        ({"type": "my_module.transform"}, "is no known format"),
    ],
)
def test_keys_that_are_not_read_are_refused(settings, said):
    assert said in refused(**settings)


def test_code_may_make_conversations():
    config = TokenizedConfig(type="m.f", type_code=["/x/m.py"], roles_to_train=["user"], field="body")
    assert config.is_code
