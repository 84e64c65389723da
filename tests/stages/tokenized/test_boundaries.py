"""Where a message stands in the rendered text, for templates of every temper."""

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunemill.stages.tokenized.boundaries import PLACEHOLDER, locate

PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }};{% endfor %}"
TRIMS = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] | trim }} ;{% endfor %}"
UPPER = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | upper }};{% endfor %}"
TWICE = "{% for m in messages %}{{ m['content'] }}|{{ m['content'] }};{% endfor %}"
NEWLINES = "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'].strip('\\n') }}\n;{% endfor %}"
LAST_ONLY = "{{ messages[-1]['content'] }}"


def spans(template, *contents, plain=True):
    compiled = ImmutableSandboxedEnvironment().from_string(template)
    messages = [{"role": "user", "content": content} for content in contents]
    text, found = locate(messages, [plain] * len(messages), None, lambda m, _: compiled.render(messages=m))
    return text, [None if span is None else text[span.start : span.end] for span in found], found


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("template", "contents", "expected"),
    [
        (PLAIN, ["a", "b c"], ["a", "b c"]),
        (PLAIN, ["  a\n", "b"], ["  a\n", "b"]),
        (PLAIN, ["", "b"], [None, "b"]),
        (PLAIN, [" ", "b"], [" ", "b"]),
        (PLAIN, ["user>", ";"], ["user>", ";"]),
        (TRIMS, ["a", "b"], ["a", "b"]),
        (TRIMS, [" a ", "b"], ["a", "b"]),
        (NEWLINES, ["\n a\n", "b"], [" a", "b"]),
        (UPPER, ["abc", "d"], ["ABC", "D"]),
        (LAST_ONLY, ["a", "b"], [None, "b"]),
    ],
)
def test_contents(template, contents, expected, plain):
    assert spans(template, *contents, plain=plain)[1] == expected


def test_a_content_that_comes_out_twice_spans_both():
    assert spans(TWICE, "ab", "c")[1] == ["ab|ab", "c|c"]


def test_a_content_with_marks_in_it():
    content = f"a{PLACEHOLDER}\x1c\U000f0000b"
    assert spans(PLAIN, content, "c")[1] == [content, "c"]


@pytest.mark.parametrize("plain", [True, False])
def test_the_origin_is_where_the_untrimmed_content_would_begin(plain):
    text, _, (span, _) = spans(TRIMS, "  ab", "c", plain=plain)
    assert text.startswith("<user> ab ;")
    assert (span.start, span.origin) == (7, 5)


def test_a_later_message_that_needs_this_one():
    """With the first message replaced the template refuses the second: the conversation up to it counts."""

    def render(messages, _):
        if len(messages) == 2 and messages[0]["content"] != "call":
            raise TemplateError("an answer without a call")
        return "".join(f"<{m['content']}>" for m in messages)

    messages = [{"role": "assistant", "content": "call"}, {"role": "tool", "content": "answer"}]
    text, found = locate(messages, [True, True], None, render)
    assert [text[span.start : span.end] for span in found] == ["call", "answer"]
