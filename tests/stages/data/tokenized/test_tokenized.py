"""What is trained on, what is reported, and what is refused."""

import pytest
from pydantic import ValidationError
from support.rows import files_of, read_arrow, trained_text

from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.errors import RowError, SettingError

CHAT = {
    "messages": [
        {"role": "user", "content": "What is the capital?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "The date"},
    ]
}
SYSTEM = {"role": "system", "content": "Be terse."}
END = "<|im_end|>"


@pytest.fixture
def trained(tokenize, tokenizer):
    """Trained pieces of the only row."""

    def run(row, **settings):
        dataset, _ = tokenize([row], **settings)
        (only,) = read_arrow(dataset.rows)
        return trained_text(tokenizer, only)

    return run


@pytest.fixture
def full_text(tokenize, tokenizer):
    """The only row as text."""

    def run(row, **settings):
        dataset, _ = tokenize([row], **settings)
        (only,) = read_arrow(dataset.rows)
        (text,) = trained_text(tokenizer, {**only, "labels": only["input_ids"]})
        return text

    return run


def test_assistant_turns_and_their_ends_are_trained(trained):
    assert trained(CHAT) == ["Paris." + END, "The date" + END]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train_on_eos": "none"}, ["Paris.", "The date"]),
        ({"train_on_eos": "last"}, ["Paris.", "The date" + END]),
        ({"train_on_eos": "all"}, [END, "Paris." + END, END, "The date" + END]),
        ({"roles_to_train": ["user"]}, ["What is the capital?" + END, "Thanks" + END]),
        ({"roles_to_train": ["human"]}, ["What is the capital?" + END, "Thanks" + END]),
        ({"eot_tokens": []}, ["Paris." + END, "The date" + END]),
        ({"eot_tokens": ["<|endoftext|>"], "train_on_eot": "all"}, ["Paris." + END, "The date" + END]),
    ],
)
def test_which_turns_and_ends(trained, settings, expected):
    assert trained(CHAT, **settings) == expected


def test_another_token_that_ends_turns(trained):
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}"
        "{{ '<|endoftext|>' if m['role'] == 'assistant' else '<|im_end|>' }}{% endfor %}"
    )
    settings = {"chat_template_jinja": template, "eot_tokens": ["<|endoftext|>"]}
    assert trained(CHAT, **settings) == [" Paris.<|endoftext|>", " The date<|endoftext|>"]
    assert trained(CHAT, train_on_eot="none", **settings) == [" Paris.", " The date"]


def test_a_token_that_is_partly_the_template_s_belongs_to_the_turn(trained):
    """` completes` is one token; the content is only a part of it."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}tes it<|im_end|>{% endfor %}"
    )
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "comple"}]
    settings = {"chat_template_jinja": template, "train_on_eos": "none"}
    assert trained({"messages": messages}, **settings) == [" completes"]


def test_train_on_inputs_trains_every_role_but_not_the_headers(trained):
    assert trained({"messages": CHAT["messages"][:2]}, train_on_inputs=True) == [
        "What is the capital?" + END,
        "Paris." + END,
    ]


def test_a_message_may_say_whether_it_is_trained_on(trained):
    messages = [
        {**message, "learn": flag}
        for message, flag in zip(CHAT["messages"], (1, False, None, True), strict=True)
    ]
    expected = ["What is the capital?" + END, "The date" + END]
    assert trained({"messages": messages}, message_field_training="learn") == expected


def test_ranges_of_characters(trained):
    details = [
        {"begin_offset": 0, "end_offset": 2, "train": False},
        {"begin_offset": 3, "end_offset": 7, "train": True},
    ]
    messages = [CHAT["messages"][0], {"role": "assistant", "content": "The date", "ranges": details}]
    assert trained({"messages": messages}, message_field_training_detail="ranges") == [" date" + END]


def test_content_parts(trained):
    parts = [{"type": "text", "text": "The", "train": False}, {"type": "text", "text": " date"}]
    assert trained({"messages": [CHAT["messages"][0], {"role": "assistant", "content": parts}]}) == [
        " date" + END
    ]
    weighted = [{"text": "The", "weight": 1}, {"text": " date", "weight": 0}]
    assert trained({"messages": [CHAT["messages"][0], {"role": "assistant", "content": weighted}]}) == [
        "The",
        END,
    ]
    user = [{"type": "text", "text": "What is", "train": True}, {"type": "text", "text": " the"}]
    assert trained({"messages": [{"role": "user", "content": user}, CHAT["messages"][1]]}) == [
        "What is",
        END,
        "Paris." + END,
    ]


def test_names_of_fields_and_roles(trained):
    row = {"talk": [{"who": "customer", "says": "What"}, {"who": "agent", "says": "The"}]}
    roles = {"user": ["customer"], "assistant": ["agent"]}
    mappings = {"message_property_mappings": {"role": "who", "content": "says"}}
    assert trained(row, field_messages="talk", roles=roles, **mappings) == ["The" + END]
    names = {"message_field_role": "who", "message_field_content": "says"}
    assert trained(row, field_messages="talk", roles=roles, **names) == ["The" + END]


@pytest.mark.parametrize(
    ("messages", "extra", "settings", "start"),
    [
        (CHAT["messages"], {}, {}, "<|im_start|>user\n"),
        (CHAT["messages"], {"system": "Own."}, {}, "<|im_start|>system\nOwn.<|im_end|>\n<|im_start|>user"),
        (CHAT["messages"], {"sys": "Own."}, {"field_system": "sys"}, "<|im_start|>system\nOwn.<|im_end|>"),
        (CHAT["messages"], {}, {"default_system_message": "Def."}, "<|im_start|>system\nDef.<|im_end|>"),
        (
            [SYSTEM, *CHAT["messages"]],
            {},
            {"default_system_message": "Def."},
            "<|im_start|>system\nBe terse.",
        ),
        ([SYSTEM, *CHAT["messages"]], {"system": "Own."}, {}, "<|im_start|>system\nBe terse."),
        ([SYSTEM, *CHAT["messages"]], {}, {"drop_system_message": True}, "<|im_start|>user\n"),
        (
            [SYSTEM, *CHAT["messages"]],
            {},
            {"drop_system_message": True, "default_system_message": "Def."},
            "<|im_start|>system\nDef.<|im_end|>\n<|im_start|>user",
        ),
    ],
)
def test_system_messages(full_text, messages, extra, settings, start):
    assert full_text({"messages": messages, **extra}, **settings).startswith(start)


def test_null_is_the_same_as_absent(full_text):
    messages = [{**message, "tool_calls": None, "weight": None} for message in CHAT["messages"]]
    assert full_text({"messages": messages, "system": None, "tools": None}) == full_text(CHAT)


def test_variables_of_the_template(full_text):
    template = "{{ greeting }}{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    text = full_text(CHAT, chat_template_jinja=template, chat_template_kwargs={"greeting": "Hello "})
    assert text.startswith("Hello What is the capital?<|im_end|>Paris.")


def test_tools_are_described_and_calls_are_trained(trained, full_text):
    template = (
        "{% for t in tools or [] %}{% set f = t['function'] %}"
        "{{ f | length }} {{ f['parameters']['unit'] }}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m.get('content', '') }}"
        "{% for c in m.get('tool_calls', []) %}[{{ c['function']['arguments']['city'] }}]{% endfor %}"
        "<|im_end|>{% endfor %}"
    )
    calls = [{"function": {"name": "f", "arguments": '{"city": "Paris"}'}}]
    row = {
        "tools": [{"function": {"name": "f", "parameters": '{"unit": "degrees"}', "strict": None}}],
        "messages": [
            {"role": "user", "content": "What"},
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "content": "21"},
            {"role": "assistant", "content": "It is"},
        ],
    }
    assert full_text(row, chat_template_jinja=template).startswith("2 degrees<|im_start|>user What<|im_end|>")
    assert trained(row, chat_template_jinja=template) == ["[Paris]" + END, " It is" + END]


def test_reasoning_that_the_template_removes_from_earlier_turns(trained):
    """Such a template does not copy contents, so boundaries come from comparison."""
    template = (
        "{% for m in messages %}{% set text = m['content'] %}"
        "{% if '</think>' in text and not loop.last %}{% set text = text.split('</think>')[1] %}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ text | trim }}<|im_end|>\n{% endfor %}"
    )
    messages = [
        {"role": "user", "content": "What"},
        {"role": "assistant", "content": "<think>hm</think> Paris."},
        {"role": "user", "content": "And"},
        {"role": "assistant", "content": "<think>so</think> The date"},
    ]
    assert trained({"messages": messages}, chat_template_jinja=template) == [
        "Paris." + END,
        "<think>so</think> The date" + END,
    ]


def test_a_template_that_moves_the_system_message(trained):
    template = (
        "{% for m in messages if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
        "{% if loop.last %}{{ messages[0]['content'] }}\n{% endif %}{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    row = {"messages": [SYSTEM, *CHAT["messages"]]}
    assert trained(row, chat_template_jinja=template) == ["Paris." + END, "The date" + END]
    assert trained(row, chat_template_jinja=template, roles_to_train=["system"], train_on_eos="none") == [
        "Be terse."
    ]


def test_alpaca(trained, full_text):
    row = {"instruction": "Write the date", "input": "", "output": "1998"}
    assert trained(row, type="alpaca") == ["1998" + END]
    assert "### Input:" not in full_text(row, type="alpaca")
    assert "### Input:\n3 March\n\n### Response:\n1998" in full_text(
        {**row, "input": "3 March"}, type="alpaca"
    )


def test_completion_field(trained):
    assert trained({"body": "The date"}, type="completion", field="body") == ["The date" + END]


def test_no_second_eos(trained):
    assert trained({"text": "The date" + END}, type="completion") == ["The date" + END]


def test_input_output_adds_nothing(trained):
    row = {"segments": [{"label": False, "text": "What"}, {"label": True, "text": " Paris"}]}
    assert trained(row, type="input_output") == [" Paris"]


def test_user_defined(full_text):
    mapping = {
        "field_instruction": "q",
        "field_input": "c",
        "field_output": "a",
        "field_system": "s",
        "system_prompt": "Default.",
        "system_format": "[{system}]\n",
        "format": "{instruction} ({input}) {{}}: ",
        "no_input_format": "{instruction}: ",
    }
    row = {"q": "What", "a": "Paris"}
    assert full_text(row, type=mapping) == "[Default.]\nWhat: Paris" + END
    assert full_text({**row, "c": "here", "s": "Own"}, type=mapping) == "[Own]\nWhat (here) {}: Paris" + END
    assert full_text({**row, "s": ""}, type=mapping) == "What: Paris" + END
    mapping.pop("no_input_format")
    assert full_text({**row, "s": ""}, type=mapping) == "What Paris" + END


def test_the_same_rows_are_the_same_bytes(tokenize):
    assert files_of(tokenize([CHAT] * 3)[0]) == files_of(tokenize([CHAT] * 3, path="elsewhere.jsonl")[0])


def test_many_rows_come_in_order(tokenize, tokenizer):
    rows = [{"text": f"row {number}"} for number in range(2500)]
    dataset, _ = tokenize(rows, type="completion")
    texts = [trained_text(tokenizer, row)[0] for row in read_arrow(dataset.rows)]
    assert texts == [f"row {number}{END}" for number in range(2500)]


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"text": "x"}, {}, "no field 'messages'; the row has \\['text'\\]"),
        ({"messages": []}, {}, "must be a list of messages: \\[\\]"),
        ({"messages": ["x"]}, {}, "message 1 is not an object: 'x'"),
        ({"messages": [{"content": "x"}]}, {}, "message 1 has no 'role'; it has \\['content'\\]"),
        ({"messages": [{"role": "user"}]}, {}, "message 1 has no 'content'"),
        (
            {"messages": [{"role": ["user"], "content": "x"}]},
            {},
            "message 1: its role is not text but \\['user'\\]",
        ),
        (
            {"messages": [{"role": "users", "content": "x"}]},
            {},
            "message 1 has the role 'users'; if 'user' is meant",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, {}, "neither text nor a list of parts: 5"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            {},
            "type 'image', which is not supported yet",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            {},
            "message 1: 'content': part 1 has no text",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "t": "yes"}]},
            {"message_field_training": "t"},
            "message 1: 't' must be true or false, not 'yes'",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "t": [{"begin_offset": 0}]}]},
            {"message_field_training_detail": "t"},
            "begin_offset, end_offset and train",
        ),
        ({**CHAT, "tools": 5}, {}, "field 'tools' must be a list of tools: 5"),
        ({**CHAT, "tools": "{"}, {}, "field 'tools' should be JSON"),
        ({"messages": [SYSTEM]}, {"drop_system_message": True}, "nothing is left of the conversation"),
        (
            CHAT,
            {"chat_template_jinja": "{{ raise_exception('System role not supported') }}"},
            "the chat template refuses the row: System role not supported",
        ),
        ({"instruction": "x"}, {"type": "alpaca"}, "no field 'output'; the row has \\['instruction'\\]"),
        ({"instruction": ["x"], "output": "y"}, {"type": "alpaca"}, "field 'instruction' is not text but"),
        ({"segments": []}, {"type": "input_output"}, "field 'segments' must be a list of segments"),
        ({"segments": [{"text": "x"}]}, {"type": "input_output"}, "segment 1: 'label' must be true or false"),
    ],
)
def test_bad_rows(tokenize, row, settings, message):
    good = {
        "alpaca": {"instruction": "x", "output": "y"},
        "input_output": {"segments": [{"label": True, "text": "x"}]},
    }.get(settings.get("type"), CHAT)
    place = r"rows\.jsonl:2"
    if "chat_template_jinja" in settings:
        good, place = row, r"rows\.jsonl:1, 2"
    with pytest.raises(RowError, match=rf"(?s)cannot be used:.*{place}: .*{message}"):
        tokenize([good, row], **settings)


def test_all_rows_are_looked_at_and_counted_by_reason(tokenize):
    rows = [CHAT] * 1100 + [{}] * 11 + [CHAT] * 1100 + [{}] * 3 + [{"a": 1}]
    with pytest.raises(RowError) as caught:
        tokenize(rows)
    assert str(caught.value).splitlines() == [
        "15 rows of rows.jsonl cannot be used:",
        "  rows.jsonl:1101, 1102, 1103 and 11 more: no field 'messages'; the row has []",
        "  rows.jsonl:2215: no field 'messages'; the row has ['a']",
        "`pipeline: {bad_rows: skip}` in the YAML sets such rows aside and goes on with the others",
    ]


def test_an_end_token_that_is_several_tokens(tokenize):
    with pytest.raises(
        SettingError, match=r"'</turn>' is \d+ tokens to this tokenizer and must be one; add it under tokens:"
    ):
        tokenize([CHAT], eot_tokens=["</turn>"])


def test_rules_for_ends_that_contradict_each_other(tokenize, trained):
    with pytest.raises(SettingError, match="train_on_eos: turn and train_on_eot: all contradict"):
        tokenize([CHAT], eot_tokens=[END, "<|im_start|>"], train_on_eot="all")
    both = trained(CHAT, eot_tokens=[END], train_on_eos="none", train_on_eot="turn")
    assert both == trained(CHAT)


def test_no_chat_template(tokenize, tmp_path, base):
    import shutil

    from support.rows import run_stage

    from tunemill.stages.data.tokenizer.config import TokenizerConfig
    from tunemill.stages.data.tokenizer.stage import TOKENIZER

    bare = shutil.copytree(base, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    given, _ = run_stage(TOKENIZER, TokenizerConfig(base_model=str(bare)), tmp_path / "t", upstream=None)
    with pytest.raises(SettingError, match="needs a chat template and the tokenizer has none"):
        tokenize([CHAT], given=given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "sharegpt"}, "type: sharegpt is gone; use type: chat_template"),
        (
            {"type": "alpaca", "roles_to_train": ["user"]},
            "roles_to_train is only used with type: chat_template",
        ),
        ({"type": "chat_template", "field": "text"}, "field is only used with type: completion"),
        ({"type": "chat_template", "chat_template": "jinja"}, "needs the template in"),
        ({"type": "chat_template", "train_on_eos": "never"}, "train_on_eos"),
        ({"type": {"format": "{question}"}}, r"format: '{question}' is not a format string"),
        (
            {"type": {"format": "{instruction}", "system_format": "{"}},
            "system_format: '{' is not a format string",
        ),
        (
            {
                "type": "chat_template",
                "message_field_role": "who",
                "message_property_mappings": {"role": "from"},
            },
            "name two fields; keep one",
        ),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TokenizedConfig(**settings)


CLOCKED = (
    "{%% for m in messages %%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%% endfor %%}"
    "{%% if %s %%}{{ strftime_now('%%d %%b %%Y') }}{%% else %%}26 Jul 2024{%% endif %%}"
)


@pytest.mark.parametrize(
    ("variables", "day"),
    [({}, "26 Jul 2024"), ({"strftime_now": "2026-01-31"}, "31 Jan 2026")],
)
def test_templates_see_no_clock_but_a_given_day(full_text, variables, day):
    template = CLOCKED % "strftime_now is defined"
    settings = {"chat_template": "jinja", "chat_template_jinja": template, "chat_template_kwargs": variables}
    assert full_text(CHAT, **settings).endswith(day)


def test_a_template_that_needs_the_clock_is_refused(tokenize):
    settings = {"chat_template": "jinja", "chat_template_jinja": CLOCKED % "true"}
    with pytest.raises(RowError, match=r"strftime_now, so its text would depend on the day\. Set .*kwargs"):
        tokenize([CHAT], **settings)
    with pytest.raises(SettingError, match=r"chat_template_kwargs\.strftime_now: 'today' is no date"):
        tokenize([CHAT], **settings, chat_template_kwargs={"strftime_now": "today"})
