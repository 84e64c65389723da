"""Which words are trained on, written down by hand for every rule."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.words import EOS, TURNS, by_role, masked, read_words, talk

from tunemill.stages.errors import SettingError

CHAT = talk("system: Be terse", "user: How are you", "assistant: I am", "user: So", "assistant: Yes sir")
WITHOUT_ENDS = "<system> Be terse </s> <user> How are you </s> <assistant> +I +am </s> <user> So </s> "


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            (
                "<system> Be terse </s> <user> How are you </s> <assistant> +I +am +</s> <user> So </s> "
                "<assistant> +Yes +sir +</s>"
            ),
        ),
        ({"train_on_eos": "none"}, WITHOUT_ENDS + "<assistant> +Yes +sir </s>"),
        ({"train_on_eos": "last"}, WITHOUT_ENDS + "<assistant> +Yes +sir +</s>"),
        (
            {"train_on_eos": "all"},
            (
                "<system> Be terse +</s> <user> How are you +</s> <assistant> +I +am +</s> "
                "<user> So +</s> <assistant> +Yes +sir +</s>"
            ),
        ),
        (
            {"roles_to_train": ["user"]},
            (
                "<system> Be terse </s> <user> +How +are +you +</s> <assistant> I am </s> "
                "<user> +So +</s> <assistant> Yes sir </s>"
            ),
        ),
        (
            {"roles_to_train": ["human"]},
            (
                "<system> Be terse </s> <user> +How +are +you +</s> <assistant> I am </s> "
                "<user> +So +</s> <assistant> Yes sir </s>"
            ),
        ),
        (
            {"roles_to_train": ["user"], "train_on_eos": "last"},
            (
                "<system> Be terse </s> <user> +How +are +you </s> <assistant> I am </s> <user> +So +</s> "
                "<assistant> Yes sir </s>"
            ),
        ),
        (
            {"roles_to_train": ["user"], "train_on_eos": "all", "train_on_eot": "last"},
            (
                "<system> Be terse +</s> <user> +How +are +you +</s> <assistant> I am +</s> <user> +So +</s> "
                "<assistant> Yes sir +</s>"
            ),
        ),
        (
            {"train_on_inputs": True},
            (
                "<system> +Be +terse +</s> <user> +How +are +you +</s> <assistant> +I +am +</s> "
                "<user> +So +</s> <assistant> +Yes +sir +</s>"
            ),
        ),
        (
            {"roles_to_train": []},
            (
                "<system> Be terse </s> <user> How are you </s> <assistant> I am </s> <user> So </s> "
                "<assistant> Yes sir </s>"
            ),
        ),
        (
            {"roles_to_train": [], "train_on_eos": "all"},
            (
                "<system> Be terse +</s> <user> How are you +</s> <assistant> I am +</s> <user> So +</s> "
                "<assistant> Yes sir +</s>"
            ),
        ),
        (
            {"drop_system_message": True},
            ("<user> How are you </s> <assistant> +I +am +</s> <user> So </s> <assistant> +Yes +sir +</s>"),
        ),
    ],
)
def test_roles_and_ends(options, expected):
    assert masked(CHAT, **options) == expected


EOTS = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} "
    "{{ '<end>' if m.role == 'assistant' else '<stop>' }} {% if loop.last %}</s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # On the way to its EOS token a model has to write what stands before it.
        ({}, "<user> a <stop> <assistant> +b <end> <user> c <stop> <assistant> +d +<end> +</s>"),
        (
            {"eot_tokens": ["<end>"]},
            "<user> a <stop> <assistant> +b +<end> <user> c <stop> <assistant> +d +<end> +</s>",
        ),
        (
            {"eot_tokens": ["<end>", "<stop>"], "train_on_eot": "all"},
            "<user> a +<stop> <assistant> +b +<end> <user> c +<stop> <assistant> +d +<end> +</s>",
        ),
        (
            {"eot_tokens": ["<end>", "<stop>"], "train_on_eot": "last"},
            "<user> a <stop> <assistant> +b <end> <user> c <stop> <assistant> +d +<end> +</s>",
        ),
        (
            {"eot_tokens": ["<end>", "<stop>"], "train_on_eot": "none"},
            "<user> a <stop> <assistant> +b <end> <user> c <stop> <assistant> +d <end> +</s>",
        ),
        (
            {"eot_tokens": ["<end>", "<stop>"], "train_on_eot": "turn", "train_on_eos": "none"},
            "<user> a <stop> <assistant> +b +<end> <user> c <stop> <assistant> +d +<end> </s>",
        ),
        (
            {"eot_tokens": ["<end>", "</s>"], "train_on_eos": "last"},
            "<user> a <stop> <assistant> +b <end> <user> c <stop> <assistant> +d +<end> +</s>",
        ),
        (
            {"eot_tokens": []},
            "<user> a <stop> <assistant> +b <end> <user> c <stop> <assistant> +d +<end> +</s>",
        ),
    ],
)
def test_ends_of_turns_that_are_not_eos(options, expected):
    row = talk("user: a", "assistant: b", "user: c", "assistant: d")
    assert masked(row, EOTS, **options) == expected


def test_without_eot_tokens_both_rules_speak_of_eos():
    """What either of them trains is trained."""
    row = talk("user: a", "assistant: b", "user: c", "assistant: d")
    assert (
        masked(row, train_on_eot="all")
        == "<user> a +</s> <assistant> +b +</s> <user> c +</s> <assistant> +d +</s>"
    )
    assert masked(row, train_on_eos="last", train_on_eot="none") == (
        "<user> a </s> <assistant> +b </s> <user> c </s> <assistant> +d +</s>"
    )


def test_rules_that_contradict_each_other():
    message = "train_on_eos: turn and train_on_eot: all contradict each other: </s> is both the EOS"
    with pytest.raises(SettingError, match=message):
        masked(CHAT, eot_tokens=["<end>", EOS], train_on_eot="all")


@pytest.mark.parametrize(("distance", "found"), [(1, True), (3, True), (4, False)])
def test_an_end_stands_right_behind_the_turn(distance, found):
    template = TURNS.replace("</s>", "- " * distance + "</s>")
    end = "+- " * distance + "+</s>" if found else "- " * distance + "</s>"
    dashes = "- " * distance
    row = talk("user: a", "assistant: b")
    assert masked(row, template) == f"<user> a {dashes}</s> <assistant> +b {end}"
    assert "+-" not in masked(row, template, train_on_eos="none")
    assert "+-" not in masked(row, template, roles_to_train=[], train_on_eos="all")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (["assistant: b", "user: a"], "<assistant> +b +</s> <user> a </s>"),
        (
            ["user: a", "user: a", "assistant: b", "assistant: b"],
            "<user> a </s> <user> a </s> <assistant> +b +</s> <assistant> +b +</s>",
        ),
        (
            ["user: a", "assistant: a", "user: a", "assistant: a"],
            "<user> a </s> <assistant> +a +</s> <user> a </s> <assistant> +a +</s>",
        ),
        (
            ["user: a", "assistant: ", "user: c", "assistant: d"],
            "<user> a </s> <assistant> </s> <user> c </s> <assistant> +d +</s>",
        ),
        (["user: ", "assistant: b"], "<user> </s> <assistant> +b +</s>"),
        (["user: a", "assistant: </s>"], "<user> a </s> <assistant> +</s> +</s>"),
        (["user: a", "assistant: b </s> c"], "<user> a </s> <assistant> +b +</s> +c +</s>"),
        (["user: <assistant>", "assistant: <user>"], "<user> <assistant> </s> <assistant> +<user> +</s>"),
        (["user: assistant", "assistant: user"], "<user> assistant </s> <assistant> +user +</s>"),
        (
            [
                "user: [[dummy_message]]",
                "assistant: [[dummy_message]]",
                "user: so",
                "assistant: zzdummymessagezz",
            ],
            (
                "<user> [[dummy_message]] </s> <assistant> +[[dummy_message]] +</s> <user> so </s> "
                "<assistant> +zzdummymessagezz +</s>"
            ),
        ),
        (["user: a", "assistant: [[1,2],[3,4]]"], "<user> a </s> <assistant> +[[1,2],[3,4]] +</s>"),
        (["user: 😀 東京", "assistant: é\u200b 🏳️‍🌈"], "<user> 😀 東京 </s> <assistant> +é\u200b +🏳️‍🌈 +</s>"),
        (["gpt: b", "human: a"], "<assistant> +b +</s> <user> a </s>"),
        (
            ["developer: x", "user: a", "assistant: b"],
            "<developer> x </s> <user> a </s> <assistant> +b +</s>",
        ),
        (
            ["user: a", "assistant: b", "tool: 7", "assistant: d"],
            "<user> a </s> <assistant> +b +</s> <tool> 7 </s> <assistant> +d +</s>",
        ),
    ],
)
def test_odd_conversations(turns, expected):
    assert masked(talk(*turns)) == expected


def test_a_role_that_only_the_settings_name():
    row = talk("user: a", "critic: b", "assistant: c")
    assert masked(row, roles_to_train=["critic"]) == "<user> a </s> <critic> +b +</s> <assistant> c </s>"
    roles = {"assistant": ["critic"], "user": ["user"]}
    assert masked(row, roles=roles) == "<user> a </s> <assistant> +b +</s> <assistant> +c +</s>"
    assert masked(row, roles=roles, roles_to_train=["critic"]) == masked(row, roles=roles)
    row = talk("human: a", "critic: b", "gpt: c")
    assert masked(row, roles={}) == "<user> a </s> <critic> b </s> <assistant> +c +</s>"


def test_a_template_that_trims():
    template = TURNS.replace("m.content", "m.content | trim")
    row = talk("user:  a ", "assistant: \nb\n", "user: \n", "assistant:  ")
    assert masked(row, template) == "<user> a </s> <assistant> +b +</s> <user> </s> <assistant> </s>"


def message(role, content, **more):
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((None, None), "<user> a </s> <assistant> +b +</s>"),
        ((True, False), "<user> +a +</s> <assistant> b </s>"),
        ((1, 0), "<user> +a +</s> <assistant> b </s>"),
        ((False, False), "<user> a </s> <assistant> b </s>"),
        ((False, None), "<user> a </s> <assistant> +b +</s>"),
    ],
)
def test_flags_of_messages(flags, expected):
    row = talk(message("user", "a", learn=flags[0]), message("assistant", "b", learn=flags[1]))
    assert masked(row, message_field_training="learn") == expected
    assert masked(row) == "<user> a </s> <assistant> +b +</s>"


def test_the_last_end_is_that_of_the_last_trained_turn():
    row = talk(
        message("user", "a"), message("assistant", "b"), message("user", "c"), message("assistant", "d", t=0)
    )
    options = {"message_field_training": "t", "train_on_eos": "last"}
    assert masked(row, **options) == "<user> a </s> <assistant> +b +</s> <user> c </s> <assistant> d </s>"


WORDS = "one two three four"


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(0, 2, True)], "+one two three four +</s>"),
        ([(4, 6, True)], "one +two three four +</s>"),
        ([(4, 12, True)], "one +two +three four +</s>"),
        ([(0, 17, True)], "+one +two +three +four +</s>"),
        ([(0, 99, True)], "+one +two +three +four +</s>"),
        ([(0, 2, False), (14, 17, True)], "one two three +four +</s>"),
        # A range that cuts a word has the word, unless it is only its first or its last character.
        ([(5, 9, True)], "one +two +three four +</s>"),
        ([(4, 8, True)], "one +two three four +</s>"),
        ([(0, 17, False)], "one two three four +</s>"),
        ([], "one two three four </s>"),
        ([(4, 6, True), (4, 6, False)], "one +two three four +</s>"),
    ],
)
def test_ranges_of_characters(ranges, expected):
    details = [{"begin_offset": a, "end_offset": b, "train": t} for a, b, t in ranges]
    row = talk(message("user", "a"), message("assistant", WORDS, detail=details))
    options = {"message_field_training_detail": "detail"}
    assert masked(row, **options) == f"<user> a </s> <assistant> {expected}"
    trimmed = TURNS.replace("m.content", "m.content | trim")
    assert masked(row, trimmed, **options) == f"<user> a </s> <assistant> {expected}"


def test_ranges_count_from_the_content_before_it_is_trimmed():
    details = [{"begin_offset": 6, "end_offset": 8, "train": True}]
    row = talk(message("user", "a"), message("assistant", "  one two ", detail=details))
    template = TURNS.replace("m.content", "m.content | trim")
    expected = "<user> a </s> <assistant> one +two +</s>"
    assert masked(row, template, message_field_training_detail="detail") == expected


def test_ranges_in_a_message_that_is_masked():
    details = [{"begin_offset": 0, "end_offset": 2, "train": True}]
    row = talk(
        message("user", "one two", detail=details), message("assistant", "b", detail=details, learn=False)
    )
    options = {"message_field_training": "learn", "message_field_training_detail": "detail"}
    assert masked(row, **options) == "<user> +one two +</s> <assistant> b </s>"


def part(text, **flags):
    return {"type": "text", "text": text, **flags}


@pytest.mark.parametrize(
    ("role", "parts", "more", "expected"),
    [
        ("assistant", [part("one two"), part(" three")], {}, "+one +two +three +</s>"),
        ("assistant", [part("one two", train=False), part(" three")], {}, "one two +three +</s>"),
        ("assistant", [part("one two", train=False), part(" three", train=True)], {}, "one two +three +</s>"),
        ("assistant", [part("one two", weight=1), part(" three", weight=0)], {}, "+one +two three +</s>"),
        ("assistant", [part("one", train=False, weight=1), part(" two")], {}, "one +two +</s>"),
        ("assistant", [part("one", train=False), part(" two", train=False)], {}, "one two +</s>"),
        ("assistant", ["one", part(" two", train=False)], {}, "+one two +</s>"),
        ("assistant", [{"content": "one", "train": False}, {"value": " two"}], {}, "one +two +</s>"),
        ("assistant", [part("one", train=False), part("", train=True), part(" two")], {}, "one +two +</s>"),
        ("assistant", [part("one", train=False), part(" two", train=True)], {"learn": False}, "one two </s>"),
        ("assistant", [part("one", train=False), part(" two")], {"learn": True}, "one +two +</s>"),
        ("user", [part("one", train=True), part(" two")], {}, "+one two +</s>"),
        ("user", [part("one", train=False), part(" two")], {}, "one two </s>"),
        ("user", [part("one", train=False), part(" two")], {"learn": True}, "one +two +</s>"),
    ],
)
def test_parts_of_contents(role, parts, more, expected):
    row = talk("system: x", message(role, parts, **more))
    assert masked(row, message_field_training="learn") == f"<system> x </s> <{role}> {expected}"


THINKS = (
    "{% for m in messages %}<{{ m.role }}> {% if m.reasoning_content %}<t> {{ m.reasoning_content }} </t> {% endif %}"
    "{{ m.content }} </s> {% endfor %}"
)


@pytest.mark.parametrize(
    ("reasoning", "content", "expected"),
    [
        ("a b", "c", "+<t> +a +b +</t> +c +</s>"),
        ([part("a", train=False), part(" b")], "c", "<t> a +b </t> +c +</s>"),
        ([part("a", train=False), part(" b", train=True)], [part("c", train=True)], "<t> a +b </t> +c +</s>"),
        ("a b", [part("a", train=False), part(" b")], "<t> +a +b </t> a +b +</s>"),
        ([part("a b", weight=0)], [part("c", weight=1)], "<t> a b </t> +c +</s>"),
        ([part("a b")], [part("c")], "+<t> +a +b +</t> +c +</s>"),
    ],
)
def test_reasoning(reasoning, content, expected):
    row = talk("user: q", message("assistant", content, reasoning_content=reasoning))
    assert masked(row, THINKS) == f"<user> q </s> <assistant> {expected}"


CALLS = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content or '' }}{% for c in m.tool_calls or [] %} <call> "
    "{{ c.function.name }} {{ c.function.arguments | tojson }} {% endfor %} </s> {% endfor %}"
)


def test_calls_of_tools_are_trained_and_answers_are_not():
    calls = [
        {"function": {"name": "f", "arguments": '{"x":1}'}},
        {"function": {"name": "g", "arguments": {}}},
    ]
    row = talk(
        "user: q",
        {"role": "assistant", "tool_calls": calls},
        "tool: 7",
        message("assistant", "c", tool_calls=calls),
    )
    called = '+<call> +f +{"x": +1} +<call> +g +{} +</s>'
    assert masked(row, CALLS) == f"<user> q </s> <assistant> {called} <tool> 7 </s> <assistant> +c {called}"
    assert masked(row, CALLS, roles_to_train=["tool"]).count("+") == 2
    ends = masked(row, CALLS, roles_to_train=[], train_on_eos="all")
    assert ends == masked(row, CALLS, roles_to_train=[]).replace("</s>", "+</s>")


def test_every_token_has_a_role():
    template = "<s> <system> built in </s> {% for m in messages %}<{{ m.role }}> {{ m.content }} </s> {% endfor %} <go>"
    assert by_role(talk("user: a b", "user: ", "assistant: c", "user: d"), template) == [
        ("template", "<s> <system> built in </s>"),
        ("user", "<user> a b </s> <user> </s>"),
        ("assistant", "<assistant> c </s>"),
        ("user", "<user> d </s> <go>"),
    ]
    inserted = TURNS.replace("</s> ", "</s> {% if loop.first %}<tools> none </s> {% endif %}")
    assert by_role(talk("user: a", "assistant: b"), inserted) == [
        ("user", "<user> a </s>"),
        ("template", "<tools> none </s>"),
        ("assistant", "<assistant> b </s>"),
    ]
    last_first = "{% for m in messages[1:] + messages[:1] %}<{{ m.role }}> {{ m.content }} </s> {% endfor %}"
    assert by_role(talk("system: s", "user: a", "assistant: b"), last_first) == [
        ("user", "<user> a </s>"),
        ("assistant", "<assistant> b </s>"),
        ("system", "<system> s </s>"),
    ]
    assert by_role(talk("user: a"), "only the template {{ '' }}") == [("template", "only the template")]


TURN = st.tuples(
    st.sampled_from(["system", "user", "assistant", "tool", "critic"]),
    st.lists(st.sampled_from(["a", "b", "</s>", "<user>", "😀", "東", "x...y"]), max_size=4).map(" ".join),
)


@settings(max_examples=200, deadline=None)
@given(
    turns=st.lists(TURN, min_size=1, max_size=6),
    roles=st.sets(st.sampled_from(["system", "user", "assistant", "tool"])),
    eos=st.sampled_from(["turn", "all", "last", "none"]),
    reasoned=st.booleans(),
)
def test_what_is_trained_is_of_trained_roles(turns, roles, eos, reasoned):
    """Counted from the data: the trained words are the trained roles' words and, by the rule, what ends turns."""
    more = {"reasoning_content": "hm"} if reasoned else {}
    row = {"messages": [{"role": role, "content": content, **more} for role, content in turns]}
    conversation, sample = read_words(row, THINKS, roles_to_train=sorted(roles), train_on_eos=eos)
    trained = [
        word for word, label in zip(conversation.text.split(), sample.labels, strict=True) if label != -100
    ]
    full = [
        (role, [*(["<t>", "hm", "</t>"] if reasoned else []), *content.split()]) for role, content in turns
    ]
    found = [(role in roles, words) for role, words in full if words]
    ends = {
        "turn": sum(own for own, _ in found),
        "all": len(found),
        "last": min(1, sum(own for own, _ in found)),
        "none": 0,
    }[eos]
    words = [word for own, words in found if own for word in words]
    assert sorted(trained) == sorted([*words, *[EOS] * ends])
    assert sample.runs[-1].end == len(sample.ids)
    assert [run.start for run in sample.runs] == [0, *(run.end for run in sample.runs[:-1])]
