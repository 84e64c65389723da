"""Conversations come out as transformers' own `apply_chat_template` writes them."""

from types import SimpleNamespace

import pytest
from jinja2 import TemplateError
from support.formats import TOKENIZERS
from transformers import AutoTokenizer

from tunemill.stages.data.conversations.chat_template import NAMES, template_text
from tunemill.stages.data.conversations.template_body import renderer
from tunemill.stages.data.conversations.template_environment import names_read
from tunemill.stages.data.engines.encoded import CHECKED_EVERY, DifferentError
from tunemill.stages.data.tokenized.formats.chat_template import checked
from tunemill.stages.errors import SettingError

TOOL = {
    "type": "function",
    "function": {
        "name": "get",
        "description": "<Gets> é",
        "parameters": {"type": "object", "properties": {}},
    },
}
CALL = {"id": "call00001", "type": "function", "function": {"name": "get", "arguments": {"q": "<é> '"}}}
CONVERSATIONS = [
    [{"role": "user", "content": " Hi\n"}, {"role": "assistant", "content": "Ho <b> é"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
    ],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "reasoning_content": "hm\n", "tool_calls": [CALL]},
        {"role": "tool", "content": "7", "tool_call_id": "call00001", "name": "get"},
        {"role": "assistant", "content": "Done", "reasoning_content": "so"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHo"},
    ],
]
SYNTAX = {
    "json": "{{ messages | tojson }}"
    "{{ messages[0] | tojson(indent=2) }}{{ {'b': '<', 'a': 1} | tojson(sort_keys=true) }}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "generation": "{% set x = 1 %}{% for m in messages %}{% generation %}{% set x = 2 %}{{ m.content }}{{ x }}"
    "{% endgeneration %}{{ x }}{% endfor %}",
    "white space": "  {% if true %}\n  a\n  {% endif %}\n  {%- set b = 1 %}\n{{- b }}\n\n",
    "names of dictionaries' own": "{{ messages[0].items() | list }}"
    "{{ messages[0].keys() | length }}{{ messages[0].get('x', 1) }}",
    "nothing there": "{{ messages[0].nothing }}{{ messages[0].nothing is defined }}{{ messages[0]['content'] }}",
    "variables": "{{ eos_token }}{{ tools }}{{ documents }}{{ add_generation_prompt }}{{ greeting is defined }}",
    "escapes": "{{ '<&>' }}{{ messages[0].content.upper() }}{{ messages[0].content | trim | e }}",
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZERS / "chatml", local_files_only=True)


def both(tokenizer, template, messages, tools=None, **variables):
    """What ours and theirs make of a conversation: a text, or the message of a refusal."""
    outcomes = []
    given = {**variables, "strftime_now": "2026-01-31"}
    theirs = {
        **variables,
        "strftime_now": lambda form: __import__("datetime").date(2026, 1, 31).strftime(form),
    }
    for make in (
        lambda: renderer(tokenizer, template, given)(messages, tools),
        lambda: tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=template, tokenize=False, **theirs
        ),
    ):
        try:
            outcomes.append(make())
        except (TemplateError, TypeError, ValueError, ZeroDivisionError) as error:
            outcomes.append(f"refused: {error}")
    return outcomes


@pytest.mark.parametrize("name", NAMES)
def test_shipped_templates(tokenizer, name):
    template = template_text(name)
    for messages in CONVERSATIONS:
        for tools in (None, [TOOL]):
            ours, theirs = both(tokenizer, template, messages, tools)
            assert ours == theirs


@pytest.mark.parametrize("name", SYNTAX)
def test_syntax(tokenizer, name):
    for messages in CONVERSATIONS:
        ours, theirs = both(tokenizer, SYNTAX[name], messages)
        assert ours == theirs
        assert not ours.startswith("refused")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{{ messages[0].nothing.more }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ messages[0].__class__.mro() }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages.index(1) }}",
        "{{ 1 // (messages | length - messages | length) }}",
    ],
)
def test_refusals(tokenizer, template):
    ours, theirs = both(tokenizer, template, CONVERSATIONS[0])
    assert ours == theirs
    assert ours.startswith("refused")


def test_variables(tokenizer):
    template = "{{ greeting }}{{ add_generation_prompt }}{{ documents }}"
    render = renderer(
        tokenizer, template, {"greeting": "x", "add_generation_prompt": True, "documents": ["d"]}
    )
    assert render(CONVERSATIONS[0], None) == "xTrue['d']"
    always = renderer(tokenizer, "{{ tools[0] }}", {"tools": ["usual"]})
    assert always(CONVERSATIONS[0], None) == "usual"
    assert always(CONVERSATIONS[0], ["own"]) == "own"
    with pytest.raises(
        SettingError, match=r"chat_template_kwargs\.messages: the messages come from the dataset"
    ):
        renderer(tokenizer, template, {"messages": []})


def test_templates_that_are_not_jinja():
    nobody = SimpleNamespace(special_tokens_map={})
    with pytest.raises(SettingError, match=r"the chat template is not Jinja: line 2: .*endfor"):
        renderer(nobody, "{% for m in messages %}\n{% endif %}", {})
    with pytest.raises(SettingError, match="the chat template is not Jinja: line 1"):
        names_read("{% if %}")


def test_names_that_a_template_reads():
    template = (
        "{% generation %}{% for m in messages %}{{ m.a }}{{ m['b'] }}{{ m.get('c') }}{{ 'd' in m }}"
        "{% if loop.last %}{% break %}{% endif %}text{% endfor %}{% endgeneration %}"
    )
    assert {"a", "b", "c", "d"} <= names_read(template)
    assert not {"text", "m", "messages", "e"} & names_read(template)


def test_short_cuts_are_compared_with_the_template():
    rows = [{"n": number} for number in range(3 * CHECKED_EVERY)]
    right = checked(lambda row: (row["n"],) if row["n"] % 2 else None, lambda row: (row["n"],))
    assert [right(row) for row in rows] == [(row["n"],) for row in rows]
    wrong = checked(lambda row: (row["n"] + (row["n"] > 150),), lambda row: (row["n"],))
    with pytest.raises(DifferentError, match="the chat template makes something else"):
        list(map(wrong, rows))
