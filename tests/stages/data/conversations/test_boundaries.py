"""Where a message stands in the rendered text, for templates of every temper."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from tunemill.stages.data.conversations.boundaries import PLACEHOLDERS, Wanted, locate
from tunemill.stages.data.conversations.marks import PRIVATE, WHITE
from tunemill.stages.data.conversations.template_environment import compiled

PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }};{% endfor %}"
TRIMS = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] | trim }} ;{% endfor %}"
UPPER = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | upper }};{% endfor %}"
TWICE = "{% for m in messages %}{{ m['content'] }}|{{ m['content'] }};{% endfor %}"
NEWLINES = "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'].strip('\\n') }}\n;{% endfor %}"
LAST_ONLY = "{{ messages[-1]['content'] }}"
BARE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
IF_ANY = "{% for m in messages %}<{% if m['content'] %}{{ m['content'] }}!{% endif %}>{% endfor %}"
LENGTHS = "{% for m in messages %}<{{ m['content'] }}{{ m['content'] | length }}>{% endfor %}"
REORDERS = (
    "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>"
    "{% if loop.last %}{{ messages[0]['content'] }}\n\n{% endif %}{{ m['content'] }};{% endfor %}"
)
# Reasoning is shown behind the last question only; the last answer has tags even without any.
THINKS = (
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}[{{ m.role }}]\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or m.thinks) %}"
    "<t>\n{{ (m.thinks or '').strip('\n') }}\n</t>\n\n{% endif %}"
    "{{ m.content or '' }}{% for c in m.calls or [] %}{{ '\n(' + c + ')' }}{% endfor %};{% endfor %}"
)
OF_ALL_TEMPERS = [PLAIN, TRIMS, UPPER, NEWLINES, BARE, IF_ANY]
WANTED = {True: Wanted(plain=True), False: Wanted(plain=False, texts=())}


def rendering(template, counts=None):
    made = compiled(template)

    def render(messages, _tools):
        if counts is not None:
            counts.append(len(messages))
        return made.render(messages=messages)

    return render


def spans(template, *contents, plain=True):
    messages = [{"role": "user", "content": content} for content in contents]
    text, found = locate(messages, [WANTED[plain]] * len(messages), None, rendering(template))
    return text, [None if place is None else text[place.start : place.end] for place in found], found


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("template", "contents", "expected"),
    [
        (PLAIN, ["a", "b c"], ["a", "b c"]),
        (PLAIN, ["  a\n", "b"], ["  a\n", "b"]),
        (PLAIN, ["", "b"], ["", "b"]),
        (PLAIN, ["a", ""], ["a", ""]),
        (PLAIN, [" ", "b"], [" ", "b"]),
        (PLAIN, ["user>", ";"], ["user>", ";"]),
        (PLAIN, ["same", "same", "same"], ["same", "same", "same"]),
        (PLAIN, [*PLACEHOLDERS], [*PLACEHOLDERS]),
        (PLAIN, ["x", "y", "x...", "...y"], ["x", "y", "x...", "...y"]),
        (TRIMS, ["a", "b"], ["a", "b"]),
        (TRIMS, [" a ", "b"], ["a", "b"]),
        (TRIMS, [" \n", "b"], ["", "b"]),
        (NEWLINES, ["\n a\n", "b"], [" a", "b"]),
        (NEWLINES, ["\n", "\nb\n", "\n"], ["", "b", ""]),
        (UPPER, ["abc", "d"], ["ABC", "D"]),
        (LAST_ONLY, ["a", "b"], [None, "b"]),
        (BARE, ["a", "", " b ", "a"], ["a", "", " b ", "a"]),
        (IF_ANY, ["a", "", "b"], ["a", "", "b"]),
        (LENGTHS, ["abc", "d"], ["abc3", "d1"]),
    ],
)
def test_contents(template, contents, expected, plain):
    assert spans(template, *contents, plain=plain)[1] == expected


@pytest.mark.parametrize("mark", ["", WHITE])
def test_a_content_that_does_not_come_out(mark):
    template = (
        "{% for m in messages %}{{ 'long' if m.content | length > 3 else 'short' }};{% endfor %}" + mark
    )
    assert spans(template, "ab", "abcd")[1] == [None, None]


def test_a_content_that_comes_out_twice_spans_both():
    assert spans(TWICE, "ab", "c")[1] == ["ab|ab", "c|c"]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("mark", [chr(PRIVATE[0]), chr(PRIVATE[5]), WHITE, WHITE[0], PLACEHOLDERS[0]])
def test_a_content_with_marks_in_it(mark, plain):
    content = f"a{mark}b"
    assert spans(PLAIN, content, "c", plain=plain)[1] == [content, "c"]
    assert spans(PLAIN, f" {mark}", "c", plain=plain)[1] == [f" {mark}", "c"]


@pytest.mark.parametrize("plain", [True, False])
def test_where_a_content_would_begin_if_it_were_not_trimmed(plain):
    messages = [{"role": "user", "content": content} for content in ("  ab", "c")]
    want = Wanted(plain=plain)
    text, (place, _) = locate(messages, [want, want], None, rendering(TRIMS))
    assert text.startswith("<user> ab ;")
    assert (place.start, place.end) == (7, 9)
    assert place.fields["content"].origin == 5


def test_messages_that_the_template_puts_elsewhere():
    messages = [
        {"role": "system", "content": "be terse"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "be terse"},
    ]
    for plain in (True, False):
        text, found = locate(messages, [WANTED[plain]] * 4, None, rendering(REORDERS))
        assert text == "<user>one;<assistant>;<user>be terse\n\nbe terse;"
        assert [(p.start, p.end) for p in found] == [(28, 36), (6, 9), (21, 21), (38, 46)]


def test_a_later_message_that_needs_this_one():
    """With the first message replaced the template refuses the second: the conversation up to it counts."""

    def render(messages, _):
        if len(messages) == 2 and messages[0]["content"].strip("\x1c\x1d") not in ("call",):
            raise TemplateError("an answer without a call")
        return "".join(f"<{m['content']}>" for m in messages)

    messages = [{"role": "assistant", "content": "call"}, {"role": "tool", "content": "answer"}]
    text, found = locate(messages, [WANTED[True]] * 2, None, render)
    assert [text[place.start : place.end] for place in found] == ["call", "answer"]


NAMED = "{% for m in messages %}<{{ m.name.first }}>{{ m.content }};{% endfor %}"


def test_a_template_that_needs_other_properties():
    messages = [{"role": "user", "content": content, "name": {"first": "A"}} for content in ("a", "")]
    text, found = locate(messages, [Wanted(plain=False)] * 2, None, rendering(NAMED))
    assert text == "<A>a;<A>;"
    assert [(place.start, place.end) for place in found] == [(3, 4), (8, 8)]


def test_a_message_that_cannot_be_told_from_the_template():
    def render(messages, _):
        if messages[0]["content"] != "only this":
            raise TemplateError("not this")
        return "only this"

    with pytest.raises(
        TemplateError, match=r"where message 1 begins and ends cannot be told: .* it says not this"
    ):
        locate([{"role": "user", "content": "only this"}], [Wanted(plain=True)], None, render)


THOUGHTFUL = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A", "thinks": "hm"},
    {"role": "user", "content": "Q"},
    {"role": "assistant", "thinks": "\nhm\n", "content": "B", "calls": ["f", "B"]},
    {"role": "tool", "content": "7"},
    {"role": "assistant", "content": "C"},
]


def test_reasoning_and_calls_belong_to_the_message():
    wanted = [Wanted(plain=set(message) == {"role", "content"}) for message in THOUGHTFUL]
    text, found = locate(THOUGHTFUL, wanted, None, rendering(THINKS))
    assert text.endswith("[assistant]\n<t>\nhm\n</t>\n\nB\n(f)\n(B);[tool]\n7;[assistant]\n<t>\n\n</t>\n\nC;")
    expected = ["Q", "A", "Q", "<t>\nhm\n</t>\n\nB\n(f)\n(B)", "7", "C"]
    assert [text[place.start : place.end] for place in found] == expected


def test_what_the_template_writes_anyway_does_not_belong_to_the_message():
    """The last answer has tags with and without reasoning: only what is between them is its own."""
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "thinks": "hm", "content": "A"}]
    text, (_, place) = locate(messages, [Wanted(plain=True), Wanted(plain=False)], None, rendering(THINKS))
    assert text[place.start : place.end] == "hm\n</t>\n\nA"


@pytest.mark.parametrize("around", ["", "\n", " \n"])
def test_each_text_of_a_message(around):
    wanted = [Wanted(plain=False, texts=("content", "thinks")) for _ in THOUGHTFUL]
    messages = [{**m, **({"thinks": f"{around}B{around}"} if "thinks" in m else {})} for m in THOUGHTFUL]
    text, found = locate(messages, wanted, None, rendering(THINKS))
    inner = [
        {
            name: (text[f.inner_start : f.inner_end], f.inner_start - f.origin)
            for name, f in place.fields.items()
        }
        for place in found
    ]
    assert inner[0] == {"content": ("Q", 0)}
    assert inner[1] == {"content": ("A", 0)}
    assert inner[3] == {"content": ("B", 0), "thinks": ("B", len(around))}


def test_conversations_are_rendered_a_few_times_not_once_per_turn():
    turns = [{"role": role, "content": f"{role} {n}"} for n in range(100) for role in ("user", "assistant")]
    counts: list[int] = []
    locate(turns, [Wanted(plain=True)] * len(turns), None, rendering(PLAIN, counts))
    assert counts == [200, 200]
    counts.clear()
    reasoned = [{**turn, "thinks": "hm"} if turn["role"] == "assistant" else turn for turn in turns]
    wanted = [Wanted(plain="thinks" not in turn) for turn in reasoned]
    _, found = locate(reasoned, wanted, None, rendering(THINKS, counts))
    assert all(found)
    assert counts == [200, 200, 200]


def test_of_messages_that_are_not_trained_the_content_s_place_will_do():
    """So conversations with tools take three renderings too, though calls and answers are neighbours."""
    calls = {"role": "assistant", "content": "so", "calls": ["f"]}
    turns = [
        {"role": "user", "content": "q"},
        *[calls, {"role": "tool", "content": "7", "thinks": "id"}] * 50,
    ]
    exact = {
        "user": Wanted(plain=True),
        "assistant": Wanted(plain=False),
        "tool": Wanted(plain=False, exact=False),
    }
    counts: list[int] = []
    text, found = locate(turns, [exact[turn["role"]] for turn in turns], None, rendering(THINKS, counts))
    assert counts == [101, 101, 101]
    texts = [text[place.start : place.end] for place in found]
    assert texts == ["q", *["so\n(f)", "7"] * 50]
    counts.clear()
    slow = [Wanted(plain=False)] * len(turns)
    assert [(p.start, p.end) for p in locate(turns, slow, None, rendering(THINKS, counts))[1]] == [
        (p.start, p.end) for p in found
    ]
    assert len(counts) == 104


def test_messages_out_of_order_are_compared_alone():
    template = REORDERS.replace("m['content'] }};", "m['content'] }}{{ m['more'] }};")
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a", "more": "A"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c", "more": "C"},
    ]
    wanted = [Wanted(plain="more" not in message) for message in messages]
    for want in (wanted, [Wanted(plain=False)] * 4):
        text, found = locate(messages, want, None, rendering(template))
        assert text == "<user>aA;<assistant>b;<user>s\n\ncC;"
        assert [text[place.start : place.end] for place in found] == ["s", "aA", "b", "cC"]


def test_more_messages_than_can_be_told_apart():
    messages = [{"role": "user", "content": "a"}] * 20_001
    with pytest.raises(TemplateError, match="it has 20001 messages, and 20000 is the most"):
        locate(messages, [Wanted(plain=True)] * len(messages), None, rendering(PLAIN))


CONTENT = st.one_of(
    st.text(alphabet=" \nab.<>;xy[]é😀東\x1c", max_size=6),
    st.sampled_from(["user", "assistant", *PLACEHOLDERS, "", " ", "<user>", "(f)"]),
)
CONVERSATION = st.lists(CONTENT, min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(template=st.sampled_from(OF_ALL_TEMPERS), contents=CONVERSATION)
def test_marks_tell_the_same_as_comparison(template, contents):
    text, by_marks, _ = spans(template, *contents)
    again, by_comparison, _ = spans(template, *contents, plain=False)
    assert again == text
    assert by_marks == by_comparison


@settings(max_examples=150, deadline=None)
@given(template=st.sampled_from(OF_ALL_TEMPERS), contents=CONVERSATION, plain=st.booleans())
def test_every_content_is_found_in_order(template, contents, plain):
    text, found, places = spans(template, *contents, plain=plain)
    for content, own in zip(contents, found, strict=True):
        wanted = content.upper() if template == UPPER else content
        assert own is not None
        assert own.strip() in wanted
        assert wanted.strip() in own
    ends = [0, *(place.end for place in places)]
    assert all(place.start >= end for place, end in zip(places, ends, strict=False))
    assert ends[-1] <= len(text)
