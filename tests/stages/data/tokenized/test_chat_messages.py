"""How messages are read: names, JSON texts, reasoning; and what is refused, by name."""

import json

import pytest
from pydantic import ValidationError
from support.words import TURNS, masked, talk

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.conversations.thinking import split_thinking
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.errors import SettingError

ROW = talk("system: s", "user: a", "assistant: b c")
EXPECTED = "<system> s </s> <user> a </s> <assistant> +b +c +</s>"
THINKS = (
    "{% for m in messages %}<{{ m.role }}> {% if m.thoughts %}<t> {{ m.thoughts }} </t> {% endif %}"
    "{{ m.content }} </s> {% endfor %}"
)
TOOLS = (
    "{% for t in tools or [] %}[ {{ t.function.name }} {{ t.function.parameters.unit }} ] {% endfor %}"
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} </s> {% endfor %}"
)


def renamed(row, **names):
    return {"messages": [{names.get(key, key): value for key, value in m.items()} for m in row["messages"]]}


@pytest.mark.parametrize(
    ("row", "options"),
    [
        (ROW, {}),
        ({"messages": json.dumps(ROW["messages"])}, {}),
        ({"talk": ROW["messages"]}, {"field_messages": "talk"}),
        (
            renamed(ROW, role="from", content="value"),
            {"message_property_mappings": {"role": "from", "content": "value"}},
        ),
        (
            renamed(ROW, role="from", content="value"),
            {"message_field_role": "from", "message_field_content": "value"},
        ),
        (
            renamed(ROW, content="value"),
            {"message_field_content": "value", "message_property_mappings": {"role": "role"}},
        ),
        ({"messages": ROW["messages"][1:], "system": "s"}, {}),
        ({"messages": ROW["messages"][1:], "sys": "s"}, {"field_system": "sys"}),
        ({"messages": ROW["messages"][1:]}, {"default_system_message": "s"}),
        (ROW, {"default_system_message": "another"}),
        ({**ROW, "system": "another"}, {}),
        (
            talk("system: another", *ROW["messages"][1:]),
            {"drop_system_message": True, "default_system_message": "s"},
        ),
        (talk("system: s", "human: a", "gpt: b c"), {}),
        (
            talk("sys: s", "customer: a", "agent: b c"),
            {"roles": {"system": ["sys"], "user": ["customer"], "assistant": ["agent"]}},
        ),
        (
            talk(
                "system: s",
                "user: a",
                {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"text": " c"}]},
            ),
            {},
        ),
        (talk(*({**message, "name": "x", "weight": 1} for message in ROW["messages"])), {}),
        ({**ROW, "tools": []}, {}),
    ],
)
def test_ways_to_store_the_same_conversation(row, options):
    assert masked(row, **options) == EXPECTED


def test_a_system_message_that_is_not_there_cannot_be_dropped():
    row = {"messages": ROW["messages"][1:]}
    assert masked(row, drop_system_message=True) == masked(row) == EXPECTED.removeprefix("<system> s </s> ")


def test_properties_that_the_template_reads_come_along():
    template = "{% for m in messages %}<{{ m.role }}> {{ m['name'] }} {{ m.content }} </s> {% endfor %}"
    row = talk(
        {"role": "user", "content": "a", "name": "Ann", "id": 7}, {"role": "assistant", "content": "b"}
    )
    assert masked(row, template) == "<user> Ann a </s> <assistant> +b +</s>"
    mapped = talk({"role": "user", "content": "a", "who": "Ann"}, {"role": "assistant", "content": "b"})
    assert masked(mapped, template, message_property_mappings={"name": "who"}) == masked(row, template)


def test_a_mapped_property_goes_by_the_template_s_name_only():
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}{{ m.value }} </s> {% endfor %}"
    row = renamed(ROW, content="value")
    assert masked(row, template, message_property_mappings={"content": "value"}) == EXPECTED


@pytest.mark.parametrize(
    ("property_", "options"),
    [
        ("thoughts", {"template_thinking_key": "thoughts", "field_thinking": "thoughts"}),
        ("reasoning_content", {"template_thinking_key": "thoughts"}),
        ("scratch", {"template_thinking_key": "thoughts", "field_thinking": "scratch"}),
        (
            "scratch",
            {"template_thinking_key": "thoughts", "message_property_mappings": {"thoughts": "scratch"}},
        ),
        ("thoughts", {}),
    ],
)
def test_names_of_the_reasoning(property_, options):
    row = talk("user: a", {"role": "assistant", "content": "b", property_: "hm"})
    assert masked(row, THINKS, **options) == "<user> a </s> <assistant> +<t> +hm +</t> +b +</s>"


@pytest.mark.parametrize(
    ("content", "reasoning", "answer"),
    [
        ("<think>hm</think>b", "hm", "b"),
        ("<think>\n hm hm \n</think>\n\nb ", "hm hm", "b "),
        ("before <think>hm</think> b", "hm", "b"),
        ("<reasoning>hm</reasoning>b", "hm", "b"),
        (
            "<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|> b <|end_of_solution|> after",
            "hm",
            "b",
        ),
        ("<think>hm</think><|begin_of_solution|> b", "hm", "<|begin_of_solution|> b"),
        ("<think>1</think>b<think>2</think>c", "1", "b<think>2</think>c"),
        ("<think></think>b", "", "b"),
    ],
)
def test_reasoning_between_tags_is_split_off(content, reasoning, answer):
    assert split_thinking(content) == (reasoning, answer)
    row = talk("user: a", {"role": "assistant", "content": content})
    stored = talk("user: a", {"role": "assistant", "content": answer, "reasoning_content": reasoning})
    key = {"template_thinking_key": "thoughts"}
    assert masked(row, THINKS, split_thinking=True, **key) == masked(stored, THINKS, **key)


@pytest.mark.parametrize("content", ["b", "<think>hm", "hm</think>b", "<think>hm</reasoning>b"])
def test_contents_without_a_pair_of_tags_stay(content):
    assert split_thinking(content) is None


def test_only_what_assistants_say_is_split():
    row = talk("user: <think>hm</think>a", "assistant: b")
    options = {"split_thinking": True, "template_thinking_key": "thoughts"}
    assert masked(row, THINKS, **options) == "<user> <think>hm</think>a </s> <assistant> +b +</s>"


TOOL = {"function": {"name": "f", "parameters": {"unit": "degrees"}}}


@pytest.mark.parametrize(
    "tools",
    [
        [TOOL],
        json.dumps([TOOL]),
        [json.dumps(TOOL)],
        [{"function": {"name": "f", "parameters": '{"unit": "degrees"}'}}],
    ],
)
def test_ways_to_store_tools(tools):
    row = {**talk("user: a", "assistant: b"), "defs": tools}
    expected = "[ f degrees ] <user> a </s> <assistant> +b +</s>"
    assert masked(row, TOOLS, field_tools="defs") == expected
    assert masked(row, TOOLS) == expected.removeprefix("[ f degrees ] ")


def test_calls_with_arguments_as_text_and_as_objects_are_the_same():
    template = TURNS.replace(
        "m.content",
        "m.content }}{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %}{{ ''",
    )
    calls = [{"function": {"name": "f", "arguments": {"city": "Paris"}}}]
    texts = [{"function": {"name": "f", "arguments": '{"city": "Paris"}'}}]
    for stored in (calls, texts, json.dumps(calls)):
        row = talk("user: a", {"role": "assistant", "tool_calls": stored})
        assert masked(row, template) == "<user> a </s> <assistant> +Paris +</s>"


def said(content, role="assistant", **more):
    return talk("user: a", {"role": role, "content": content, **more})


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"text": "x"}, {}, r"no field 'messages'; the row has \['text'\]"),
        ({"messages": []}, {}, r"field 'messages' must be a list of messages: \[\]"),
        ({"messages": {"role": "user"}}, {}, "field 'messages' must be a list of messages"),
        ({"messages": "[{]"}, {}, "field 'messages' should be JSON: Expecting property name"),
        ({"messages": '"x"'}, {}, "field 'messages' must be a list of messages: 'x'"),
        (talk("user: a", 5), {}, "message 2 is not an object: 5"),
        (talk({"content": "a"}), {}, r"message 1 has no 'role'; it has \['content'\]"),
        (talk({"says": "a"}), {"message_field_role": "who"}, "message 1 has no 'who'"),
        (talk({"role": "user"}), {}, "message 1 has no 'content'"),
        (said("b", ["assistant"]), {}, r"message 2: its role is not text but \['assistant'\]"),
        (
            said("b", "asistant"),
            {},
            "message 2 has the role 'asistant'; if 'assistant' is meant, mend it or add",
        ),
        (said("b", "User"), {}, "message 2 has the role 'User'; if 'user' is meant"),
        (
            said("b", "agents"),
            {"roles": {"assistant": ["agent"]}},
            "if 'agent' .* names of 'assistant' under roles:",
        ),
        (said(5), {}, "message 2: 'content' is neither text nor a list of parts: 5"),
        (said({"text": "b"}), {}, "message 2: 'content' is neither text nor a list"),
        (
            said("b", reasoning_content=5),
            {},
            "message 2: 'reasoning_content' is neither text nor a list of parts: 5",
        ),
        (
            said("b", scratch=5),
            {"message_property_mappings": {"reasoning_content": "scratch"}},
            "message 2: 'scratch' is nei",
        ),
        (
            said([{"type": "image", "url": "x"}]),
            {},
            "message 2: 'content': part 1 is of type 'image', which is not supp",
        ),
        (said(["x", {"type": "text"}]), {}, "message 2: 'content': part 2 has no text"),
        (said([5]), {}, "part 1 is neither text nor an object: 5"),
        (said([{"text": "b", "train": "yes"}]), {}, "part 1: 'train' must be true or false, not 'yes'"),
        (said([{"text": "b", "weight": 0.5}]), {}, "part 1: 'weight' must be true or false, not 0.5"),
        (
            said("b", learn="yes"),
            {"message_field_training": "learn"},
            "message 2: 'learn' must be true or false, not",
        ),
        (
            said("b", d=[{"begin_offset": 0}]),
            {"message_field_training_detail": "d"},
            "message 2: .* end_offset and train",
        ),
        (
            said("b", d=5),
            {"message_field_training_detail": "d"},
            "training details must be a list of objects",
        ),
        (
            said([{"text": "b", "train": True}], d=[{"begin_offset": 0, "end_offset": 0, "train": True}]),
            {"message_field_training_detail": "d"},
            "message 2: its content parts and its details both say",
        ),
        ({**ROW, "tools": 5}, {}, "field 'tools' must be a list of tools: 5"),
        ({**ROW, "tools": "{"}, {}, "field 'tools' should be JSON"),
        ({**ROW, "tools": [TOOL, 5]}, {}, "field 'tools': tool 2 is not an object: 5"),
        ({**ROW, "tools": [{"function": {"parameters": "{"}}]}, {}, "tool 1: its parameters should be JSON"),
        ({**said("b"), "system": 5}, {}, "field 'system': 'content' is neither text nor a list of parts: 5"),
        (talk("system: s"), {"drop_system_message": True}, "nothing is left of the conversation"),
    ],
)
def test_bad_rows(row, options, message):
    with pytest.raises((BadRowError, ValidationError, SettingError), match=message):
        masked(row, **options)


def test_bad_calls_and_details_of_split_texts():
    template = TURNS.replace("m.content", "m.tool_calls ~ m.reasoning_content")
    bad = said("b", tool_calls=[{"function": {"name": "f", "arguments": "{"}}])
    with pytest.raises(BadRowError, match="message 2: the arguments of tool call 1 should be JSON"):
        masked(bad, template)
    with pytest.raises(BadRowError, match=r"message 2: 'tool_calls' is not a list of calls: 5"):
        masked(said("b", tool_calls=5), template)
    split = said("<think>hm</think>b", d=[{"begin_offset": 0, "end_offset": 0, "train": True}])
    with pytest.raises(BadRowError, match="message 2: split_thinking takes its content apart"):
        masked(split, template, split_thinking=True, message_field_training_detail="d")


def test_the_template_s_own_refusal_is_named():
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    )
    with pytest.raises(BadRowError, match=r"^the chat template refuses the row: System role not supported$"):
        masked(ROW, template)
    with pytest.raises(BadRowError, match=r"the chat template refuses the row: can only concatenate str"):
        masked(ROW, "{{ messages[0].content + 1 }}")


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        (
            TURNS,
            {"split_thinking": True},
            "split_thinking: the chat template shows no 'reasoning_content' of a message",
        ),
        (
            TURNS,
            {"field_thinking": "scratch"},
            "field_thinking: the chat template shows no 'reasoning_content'",
        ),
        (THINKS, {"template_thinking_key": "hmm"}, "template_thinking_key: the chat template shows no 'hmm'"),
        ("{% for m in messages %}", {}, "the chat template is not Jinja: line 1"),
        (TURNS, {"eot_tokens": ["a b"]}, "eot_tokens: 'a b' is 2 tokens to this tokenizer and must be one"),
    ],
)
def test_settings_that_do_not_fit_the_template(template, options, message):
    with pytest.raises(SettingError, match=message):
        masked(ROW, template, **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"field_human": "human"}, "field_human is not used any more: .* message_property_mappings"),
        ({"field_model": "model"}, "field_model is not used any more"),
        (
            {"field_thinking": "a", "message_property_mappings": {"reasoning_content": "b"}},
            "field_thinking: a and message_property_mappings: reasoning_content: b name two fields",
        ),
        (
            {"message_field_content": "a", "message_property_mappings": {"content": "b"}},
            "message_field_content: a and message_property_mappings: content: b name two fields",
        ),
        ({"template_thinking_key": "content"}, "template_thinking_key: content is another property"),
        (
            {"type": "completion", "split_thinking": True},
            "split_thinking is only used with type: chat_template",
        ),
        (
            {"type": "completion", "field_thinking": "x"},
            "field_thinking is only used with type: chat_template",
        ),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TokenizedConfig(**{"type": "chat_template", **settings})
