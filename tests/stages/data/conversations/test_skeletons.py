"""Conversations that are put together come out as those that are rendered, for every template and odd contents."""

import random
from itertools import product
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunemill.stages.data.conversations.chat_template import NAMES, SAME_AS, template_text
from tunemill.stages.data.conversations.example import BadRowError, Kit
from tunemill.stages.data.conversations.template_body import ASKED, renderer, seen
from tunemill.stages.data.conversations.tracing import tracer
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.formats.chat_template import chat_template

WORDS = SimpleNamespace(special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"})
ROLES = [
    ["user", "assistant"],
    ["system", "user", "assistant"],
    ["user", "assistant", "user", "assistant"],
    ["system", "user", "assistant", "user", "assistant", "user", "assistant"],
    ["user", "assistant", "assistant"],
    ["user", "assistant", "tool", "assistant"],
    ["assistant", "user"],
    ["user"],
    ["system", "user", "user", "assistant", "user"],
]
CONTENTS = [
    "a", "Hi there", " a", "a\n", "\n a \n", "\n\na", "\t\u2028a", "\x1ca\x1d", "a\x1c", "é😀東\u200b", "", " ",
    "\n\x1c",     "x...y", "y...x", "\ue0000\ue001", "\U000f0000a\U000f0001", "user", "assistant", "system", "tool",
    "<think>\nhm\n</think>\n\na", "</think>", "<think>\n", "<think>", "<", "<|", "a</think>b", "\n</think>\n\na",
    "<tool_response>x</tool_response>", "<tool_response>", "<|im_start|>assistant\n", "<|im_end|>", "</s>", "<s>",
    "<start_of_turn>model\n", "<|channel>thought\n<channel|>a", "<channel|>", "<|channel>a", "[INST]",
    "### Response:\n", "'", '"', "\\", "{{ 1 }}", "%s", "{}", "a,b", "A",
]  # fmt: skip
SETTINGS = [
    {},
    {"train_on_inputs": True},
    {"roles_to_train": ["user"], "drop_system_message": True},
    {"default_system_message": " Be brief\n", "roles_to_train": ["assistant", "system"]},
    {"split_thinking": True, "template_thinking_key": "reasoning_content"},
]
VARIABLES = [{}, {"enable_thinking": False}, {"enable_thinking": True}]


class Both:
    """A format with a trace of its template and one without; `rendered` counts what the first one renders."""

    def __init__(self, template, variables=None, **options):
        variables = {"strftime_now": "2026-01-31", **(variables or {})}
        self.rendered = 0
        render, opened = (renderer(WORDS, template, {**variables, **more}) for more in ({}, {ASKED: True}))

        def counted(messages, tools):
            self.rendered += 1
            return render(messages, tools)

        config = TokenizedConfig(type="chat_template", **options)
        trace = tracer(template, seen(WORDS, variables), "reasoning_content")
        fast = Kit(template, counted, opened, "</s>", lambda _: [1], None, trace=trace)
        slow = Kit(template, render, opened, "</s>", lambda _: [1], None)
        self.formats = [chat_template(config, kit) for kit in (fast, slow)]

    def same(self, row):
        """Compare what both make of a row, and say whether it was good."""
        found = []
        for one in self.formats:
            try:
                found.append(one.read(row))
            except BadRowError as error:
                found.append(str(error))
        assert found[0] == found[1], row
        return not isinstance(found[0], str)


def row_of(roles, contents, **more):
    pairs = zip(roles, contents, strict=True)
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **more}


@pytest.mark.parametrize("name", sorted({*NAMES} - {*SAME_AS}))
def test_named_templates(name):
    rng = random.Random(name)
    template = template_text(name)
    variables = VARIABLES if "enable_thinking" in template else VARIABLES[:1]
    used = [
        options
        for options in SETTINGS
        if "reasoning_content" in template or not options.get("split_thinking")
    ]
    for options, more in product(used, variables):
        both = Both(template, more, **options)
        for roles in ROLES:
            # Each content once with the defaults, between usual ones; else some odd ones together.
            for content in CONTENTS if not options and not more else CONTENTS[:2]:
                place = rng.randrange(len(roles))
                around = rng.choices(CONTENTS[:8], k=len(roles))
                both.same(row_of(roles, [*around[:place], content, *around[place + 1 :]]))
            both.same(row_of(roles, rng.choices(CONTENTS, k=len(roles)), system="Be brief", extra=1))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_conversation_of_a_shape_is_not_rendered(name):
    both = Both(template_text(name))
    for roles in (ROLES[0], ROLES[2]):
        assert both.same(row_of(roles, ["a" for _ in roles]))
        before = both.rendered
        for content in ("b", " b\n", "<b>", "é", "user"):
            assert both.same(row_of(roles, [content for _ in roles]))
        assert both.rendered == before


LOOKS = [
    "{{ 'x' if m.content in 'a user' else 'y' }}",
    "{{ 'x' if m.content not in 'a user' else 'y' }}",
    "{{ 'x' if m.content in ['a', 'user'] else 'y' }}",
    "{{ 'x' if m.content in ('a', 'user') else 'y' }}",
    "{{ 'x' if m.content in {'a': 1} else 'y' }}",
    "{{ 'x' if 'a' in m.content else 'y' }}",
    "{{ 'x' if 'a' not in m.content else 'y' }}",
    "{{ 'x' if m.content == 'a' else 'y' }}",
    "{{ 'x' if 'a' != m.content else 'y' }}",
    "{{ 'x' if m.content == m.role else 'y' }}",
    "{{ 'x' if m.content == messages[0].content else 'y' }}",
    "{{ 'x' if m.content != '' and m.content is not none and m.content != none else 'y' }}",
    "{{ 'x' if m.content is eq('a') else 'y' }}",
    "{{ 'x' if m.content is in(['a']) else 'y' }}",
    "{{ 'x' if m.content is sameas(messages[0].content) else 'y' }}",
    "{{ 'x' if m.content < 'b' else 'y' }}",
    "{{ 'x' if m.content is lower else 'y' }}",
    "{{ 'x' if m.content | length > 1 else 'y' }}",
    "{{ m.content | upper }}",
    "{{ m.content | replace('a', 'b') }}",
    "{{ m.content.replace('a', 'b') }}",
    "{{ m.content.split(' ')[0] }}",
    "{{ m.content.split() | length }}",
    "{{ m.content.split('a', 1)[-1] }}",
    "{{ m.content[:2] }}",
    "{{ m.content[0] }}",
    "{{ m.content | first }}",
    "{{ m.content ~ '!' }}",
    "{{ '%s!' % m.content }}",
    "{{ '%s!' | format(m.content) }}",
    "{{ '{}!'.format(m.content) }}",
    "{{ m.content * 2 }}",
    "{{ '-'.join([m.content, 'b']) }}",
    "{{ [m.content, 'b'] | join('-') }}",
    "{{ [m.content, 1] | join('-') }}",
    "{{ m.content | tojson }}",
    "{{ m | tojson }}",
    "{{ m }}",
    "{{ m.content | list | length }}",
    "{% for c in m.content %}{{ c }}-{% endfor %}",
    "{{ {'a': 'x'}[m.content] }}",
    "{{ {'a': 'x'}.get(m.content, 'y') }}",
    "{{ 'banana'.replace('a', m.content) }}",
    "{{ 'x' if 'a user'.startswith(m.content) else 'y' }}",
    "{{ 'x' if m.content.startswith(('a', 'b')) else 'y' }}",
    "{{ 'x' if m.content.endswith('a') else 'y' }}",
    "{{ 'x' if (m.content | trim) == 'a' else 'y' }}",
    "{{ 'x' if (m.content + '!') == 'a!' else 'y' }}",
    "{% set c %}{{ m.content }}{% endset %}{{ 'x' if c == 'a' else 'y' }}",
    "{% set c %}{{ m.content }}{{ m.content }}{% endset %}{{ 'x' if c == 'aa' else c }}",
    "{% macro f(c) %}{{ c }}{% endmacro %}{{ 'x' if f(m.content) == 'a' else 'y' }}",
    "{% filter upper %}{{ m.content }}{% endfilter %}",
    "{% call(x) f() %}{% endcall %}",
    "{{ messages | map(attribute='content') | join(',') }}",
    "{{ messages | selectattr('content', 'equalto', 'a') | list | length }}",
    "{{ messages | map(attribute='content') | map('upper') | join }}",
    "{{ messages | groupby('content') | length }}",
    "{{ messages | sort(attribute='content') | map(attribute='role') | join }}",
    "{{ messages | unique(attribute='content') | list | length }}",
    "{% if loop.changed(m.content) %}x{% endif %}",
    "{% if loop.previtem and loop.previtem.content == m.content %}x{% endif %}",
    "{{ 'x' if m.values() | list == ['user', 'a'] else 'y' }}",
    "{{ 'x' if m == {'role': 'user', 'content': 'a'} else 'y' }}",
    "{{ m.content | default('b') }}{{ m.content or 'b' }}{{ m.content if m.content else 'b' }}",
    "{{ m.content if m.content is string and m.content is iterable and m.content is not mapping else 'y' }}",
    "{{ (' ' + m.content + ' ') | trim }}|{{ (' a' + m.content).strip() }}",
    "{{ m.content.strip('\n') }}|",
    "{{ m.content.lstrip() }}|",
    "{{ m.content.strip('a') }}|",
    "{{ m.content | trim('a') }}|",
    "{% set ns = namespace(c=m.content) %}{% set ns.c = ns.c + '!' %}{{ ns.c }}",
    "{{ m.content | string | safe }}",
    "{{ m.content | e }}",
    "{{ dict(c=m.content).c }}{{ m.content.upper() }}",
    "{{ m.content | int(7) }}",
    "{{ m.content.nothing }}{{ m.content['content'] }}",
    "{{ raise_exception(m.content) if m.content == 'a' else m.content }}",
    "{{ m.content.count('a') }}{{ m.content.find('a') }}{{ m.content.isdigit() }}",
    "{% generation %}{{ m.content }}{% endgeneration %}",
    "{{ (m.content,) | first }}{{ [m.content] | last }}",
    "{{ m.items() | list | length }}{% for k, v in m.items() %}{{ k }}={{ v }}{% endfor %}",
    "{{ '' if m.content is number else m.content }}",
    "{{ 'x' if not m.content else m.content }}",
]


@pytest.mark.parametrize("look", LOOKS)
def test_templates_that_look_at_contents(look):
    template = "{% for m in messages %}<{{ m.role }}>" + look + ";{{ m.content }}</s>{% endfor %}"
    opened = "{% if add_generation_prompt %}<assistant>{% endif %}"
    for text in (template, template.replace(";{{ m.content }}", ""), template + opened):
        both = Both(text)
        for contents in ("aa", "bb", "ab", "ba", ["a b", " a"], ["a\n", "user"], ["A", "b!"], ["1", "aa"]):
            both.same(row_of(["user", "assistant"], contents))


THINKS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim if m.role == 'user' else m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><t>{% endif %}"
)


@settings(max_examples=200, deadline=None)
@given(
    roles=st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), min_size=1, max_size=5),
    contents=st.lists(
        st.one_of(st.text(alphabet=" \nab<t>\x1c", max_size=5), st.sampled_from(CONTENTS)),
        min_size=5,
        max_size=5,
    ),
)
def test_a_prompt_that_opens_more_than_the_answer(roles, contents):
    THOUGHTFUL.same(row_of(roles, contents[: len(roles)]))


THOUGHTFUL = Both(THINKS)


def test_messages_with_more_than_a_role_and_a_text_are_rendered():
    both = Both(template_text("qwen3"), message_field_training="learn")
    plain = row_of(ROLES[0], ["a", "b"])
    both.same(plain)
    before = both.rendered
    both.same(plain | {"tools": None, "other": 1})
    odd = {"messages": [{**message, "other": 1, "reasoning_content": None} for message in plain["messages"]]}
    both.same(odd)
    assert both.rendered == before
    for more in (
        {"learn": False},
        {"reasoning_content": "hm"},
        {"tool_calls": []},
        {"content": ["a"]},
        {"role": "Bot"},
    ):
        both.same({"messages": [plain["messages"][0], {**plain["messages"][1], **more}]})
        assert both.rendered > before
        before = both.rendered
    for bad in (
        {},
        {"messages": []},
        {"messages": None},
        {"messages": ["a"]},
        {"messages": [{"role": "user"}]},
    ):
        assert not both.same(bad)


def test_a_system_text_alone_is_no_conversation():
    for options, more in (({"default_system_message": "Be brief"}, {}), ({}, {"system": "Be brief"})):
        assert not Both(template_text("chatml"), **options).same({"messages": [], **more})


def test_there_are_so_many_shapes_that_are_kept():
    both = Both(template_text("chatml"))
    roles = ["user", "assistant"] * 16
    for count, fast in ((32, True), (33, False)):
        row = row_of([*roles, "user"][:count], ["a"] * count)
        both.same(row)
        before = both.rendered
        both.same(row)
        assert (both.rendered == before) is fast


ROW = "{% for m in messages %}<{{ m.role }}>"
END = "</s>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
REASONED = {
    "before": ROW + "{% if m.reasoning_content %}<t>\n{{ m.reasoning_content }}\n</t>{% endif %}{{ m.content }}" + END,
    "behind": ROW + "{{ m.content }}{% if m.reasoning_content %}<t>{{ m.reasoning_content }}</t>{% endif %}" + END,
    "always": ROW + "<t>\n{{ (m.reasoning_content or '').strip('\n') }}\n</t>\n{{ m.content.lstrip('\n') }}" + END,
    "last": ROW + "{% if loop.last %}<t>{{ m.reasoning_content | trim }}</t>{% endif %}{{ m.content | trim }}" + END,
    "ended": ROW + "{% if m.reasoning_content %}<t>{{ m.reasoning_content }}</t>{% endif %}{{ m.content }}"
    "{{ '!' if m.reasoning_content else '?!' }}" + END,
    "like": ROW + "{% if m.reasoning_content %}<t>{{ m.reasoning_content }}{% else %}<t></t>{% endif %}{{ m.content }}"
    + END,
    "opened": ROW + "{% if m.reasoning_content %}<t>{{ m.reasoning_content }}</t>{% endif %}{{ m.content }}"
    + END.replace("<assistant>", "<assistant><t>"),
    "unasked": ROW + "{% if m.reasoning_content %}<t>{{ m.reasoning_content }}</t>{% endif %}{{ m.content }}</s>"
    "{% endfor %}",
    "looks": ROW + "{{ 'x' if m.reasoning_content == 'a' else m.reasoning_content }}{{ m.content }}" + END,
    "upper": ROW + "{{ m.reasoning_content | upper }}{{ m.content }}" + END,
}  # fmt: skip
THINKING = ["qwen3", "qwen3_5", "exaone4", "gemma4"]
WHO = [
    [("user", False), ("assistant", True)],
    [("system", False), ("user", False), ("assistant", True), ("user", False), ("assistant", True)],
    [("user", False), ("assistant", True), ("user", False), ("assistant", False)],
    [("user", False), ("assistant", True), ("assistant", True), ("user", True)],
    [("user", False), ("assistant", True), ("tool", False), ("assistant", True)],
]
TEXTS = [
    *CONTENTS[:10],
    "\n",
    "",
    "<t>",
    "</t>",
    "!",
    "?",
    "x...y",
    "</s>",
    "<think>\n",
    "</think>",
    "\n</think>",
    "<",
    ">",
]


@pytest.mark.parametrize("template", [*THINKING, *REASONED])
@pytest.mark.parametrize("options", SETTINGS[:3])
def test_messages_with_a_reasoning(template, options):
    rng = random.Random(template)
    both = Both(REASONED.get(template) or template_text(template), {}, **options)
    for who in WHO:
        for text in [*TEXTS, *TEXTS[:4]]:
            messages = [{"role": role, "content": rng.choice(["a", "Hi", text])} for role, _ in who]
            for message, (_, thinks) in zip(messages, who, strict=True):
                message |= {"reasoning_content": rng.choice(["Hm", text])} if thinks else {}
            both.same({"messages": messages})


@pytest.mark.parametrize("template", ["qwen3", "before", "always", "like"])
def test_a_second_conversation_with_a_reasoning_is_not_rendered(template):
    both = Both(REASONED.get(template) or template_text(template))
    for count, text in enumerate(("a", "b\n", " c")):
        before = both.rendered
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        messages[1]["reasoning_content"] = text
        assert both.same({"messages": messages})
        assert (both.rendered == before) is (count > 0)
