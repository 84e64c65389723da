"""The formats that the chat template renders: where a prompt ends and an answer begins."""

import pytest
from support.preference_rows import TOKENIZERS, prepare, texts
from support.rows import read_arrow

from tunemill.stages.errors import RowError, SettingError

# Trims what is said, as Llama 3's does.
TRIMMING = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# No system messages, users and assistants in turn, as Gemma's.
STRICT = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}"
    "{% endif %}[{{ m.role }}]{{ m.content | trim }}[end]\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
# Puts an empty thought before the last answer, as Qwen 3's does; shows reasoning and tool calls.
THINKING = (
    "{% if tools %}(tools {% for t in tools %}{{ t.function.name }}{% endfor %}){% endif %}"
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning_content or '' }}</think>{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}(call {{ c.function.arguments.x }}){% endfor %}</>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if closed %}<think></think>{% endif %}{% endif %}"
)


def say(role, content, **more):
    return {"role": role, "content": content, **more}


QUESTION, SO, NO = say("user", "Why?"), say("assistant", "So."), say("assistant", "No.")
PROMPT = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("method", ["dpo", "ipo", "simpo", "orpo"])
def test_answers_as_messages_texts_and_lists(method, tmp_path):
    rows = [
        {"messages": [QUESTION], "chosen": SO, "rejected": NO},
        {"messages": "Why?", "chosen": "So.", "rejected": "No."},
        {"messages": [QUESTION], "chosen": [QUESTION, SO], "rejected": [NO]},
    ]
    made, _ = prepare(tmp_path, rows, rl=method, type="chat_template.default", chat_template="chatml")
    assert texts(made) == [(PROMPT, "So.<|im_end|>", "No.<|im_end|>")] * 3


def test_whole_conversations(tmp_path):
    earlier = [say("system", "Be brief."), QUESTION, SO, say("user", "And?")]
    rows = [{"chosen": [*earlier, SO], "rejected": [*earlier, NO], "system": "not read"}]
    prompt = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo."
        "<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    )
    made, _ = prepare(tmp_path / "dpo", rows, type="chat_template.argilla_chat")
    assert texts(made) == [(prompt, "So.<|im_end|>", "No.<|im_end|>")]
    # ORPO's keeps all that follows the answer.
    made, _ = prepare(tmp_path / "orpo", rows, rl="orpo", type="chat_template.argilla")
    assert texts(made) == [(prompt, "So.<|im_end|>\n", "No.<|im_end|>\n")]


def test_orpo_reads_a_prompt_and_a_system_text(tmp_path):
    rows = [
        {"chosen": [SO], "rejected": [NO], "prompt": "Who?", "system": "Be brief."},
        {"chosen": [QUESTION, SO], "rejected": [QUESTION, NO], "prompt": "Why?", "system": ""},
    ]
    made, _ = prepare(tmp_path, rows, rl="orpo", type="chat_template.argilla")
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert [row[0] for row in texts(made)] == [system + PROMPT.replace("Why", "Who"), PROMPT]


@pytest.mark.parametrize("content", ["So.", "  So.\n", "", "assistant", "[[question]]", "</>", "<assistant>"])
@pytest.mark.parametrize("tokenizer", ["llama3", "sp"])
def test_an_answer_is_found_whatever_it_says(content, tokenizer, tmp_path):
    row = {"messages": [QUESTION], "chosen": say("assistant", content), "rejected": NO}
    bos = {"llama3": "<|begin_of_text|>", "sp": "<s>"}[tokenizer]
    made, _ = prepare(tmp_path, [row], tokenizer, type="chat_template.default", chat_template_jinja=TRIMMING)
    assert texts(made) == [(f"{bos}<user>Why?</><assistant>", f"{content.strip()}</>", "No.</>")]


def test_a_template_without_an_end_of_turn(tmp_path):
    bare = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    row = {"messages": [QUESTION], "chosen": say("assistant", "So. "), "rejected": NO}
    made, _ = prepare(tmp_path, [row], type="chat_template.default", chat_template_jinja=bare)
    assert texts(made) == [("user: Why?\n", "assistant: So. ", "assistant: No.")]


def test_what_a_template_puts_before_an_answer(tmp_path):
    rows = [
        {"messages": [QUESTION], "chosen": SO, "rejected": say("assistant", "think")},
        {"messages": [QUESTION], "chosen": say("assistant", "So.", reasoning_content="hm"), "rejected": NO},
    ]
    keys = {"chat_template_jinja": THINKING}
    made, _ = prepare(tmp_path / "plain", rows, type="chat_template.default", **keys)
    prompt = "<user>Why?</>\n<assistant>"
    assert texts(made) == [
        (prompt, "<think></think>So.</>", "<think></think>think</>"),
        (prompt, "<think>hm</think>So.</>", "<think></think>No.</>"),
    ]
    # ORPO's answers also keep the line break behind them.
    row = {"chosen": [QUESTION, SO], "rejected": [QUESTION, NO]}
    made, _ = prepare(tmp_path / "orpo", [row], rl="orpo", type="chat_template.argilla", **keys)
    assert texts(made) == [(prompt, "<think></think>So.</>\n", "<think></think>No.</>\n")]
    keys["chat_template_kwargs"] = {"closed": True}
    made, _ = prepare(tmp_path / "closed", rows[:1], type="chat_template.default", **keys)
    assert texts(made) == [(prompt + "<think></think>", "So.</>", "think</>")]


def test_tools_and_tool_calls(tmp_path):
    tools = '[{"type": "function", "function": {"name": "look", "parameters": "{}"}}]'
    call = say("assistant", "", tool_calls=[{"function": {"name": "look", "arguments": '{"x": 5}'}}])
    row = {"messages": [QUESTION], "chosen": call, "rejected": NO, "functions": tools}
    keys = {"chat_template_jinja": THINKING, "field_tools": "functions"}
    made, _ = prepare(tmp_path, [row], type="chat_template.default", **keys)
    prompt = "(tools look)<user>Why?</>\n<assistant>"
    assert texts(made) == [(prompt, "<think></think>(call 5)</>", "<think></think>No.</>")]


def test_fields_mappings_and_roles(tmp_path):
    row = {
        "history": [{"from": "asker", "value": "Why?"}],
        "win": {"from": "gpt", "value": "So."},
        "lose": {"from": "teller", "value": "No."},
        "rule": "Be brief.",
    }
    keys = {
        "field_messages": "history",
        "field_chosen": "win",
        "field_rejected": "lose",
        "field_system": "rule",
        "message_property_mappings": {"role": "from", "content": "value"},
        "roles": {"user": ["asker"], "assistant": ["teller", "gpt"]},
    }
    made, _ = prepare(tmp_path / "default", [row], type="chat_template.default", **keys)
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert texts(made) == [(system + PROMPT, "So.<|im_end|>", "No.<|im_end|>")]
    text = {**row, "history": "Why?", "win": "So."}
    made, _ = prepare(tmp_path / "text", [text], type="chat_template.default", **keys)
    assert texts(made) == [(system + PROMPT, "So.<|im_end|>", "No.<|im_end|>")]
    del keys["field_messages"]
    row = {side: [*row["history"], row[side]] for side in ("win", "lose")}
    made, _ = prepare(tmp_path / "chat", [row], type="chat_template.argilla_chat", **keys)
    assert texts(made) == [(PROMPT, "So.<|im_end|>", "No.<|im_end|>")]


def test_system_messages_are_dropped_or_filled_in(tmp_path):
    rows = [
        {"messages": [say("system", "Be brief."), QUESTION], "chosen": SO, "rejected": NO},
        {"messages": [QUESTION], "chosen": SO, "rejected": NO},
    ]
    made, _ = prepare(tmp_path / "drop", rows, type="chat_template.default", drop_system_message=True)
    assert [row[0] for row in texts(made)] == [PROMPT, PROMPT]
    made, _ = prepare(tmp_path / "fill", rows, type="chat_template.default", default_system_message="Yes.")
    system = "<|im_start|>system\n{}<|im_end|>\n"
    assert [row[0] for row in texts(made)] == [
        system.format("Be brief.") + PROMPT,
        system.format("Yes.") + PROMPT,
    ]


def test_a_template_that_refuses_a_row_is_named_with_the_row(tmp_path):
    rows = [
        {"messages": [QUESTION], "chosen": SO, "rejected": NO},
        {"messages": [say("system", "Be brief."), QUESTION], "chosen": SO, "rejected": NO},
    ]
    keys = {"type": "chat_template.default", "path": "pairs.jsonl", "chat_template_jinja": STRICT}
    with pytest.raises(
        RowError, match=r"pairs.jsonl:2: the chat template gemma refuses the row: no system role"
    ):
        prepare(tmp_path / "stop", rows, "gemma", template_name="gemma", **keys)
    made, events = prepare(tmp_path / "skip", rows, "gemma", bad_rows="skip", **keys)
    assert texts(made) == [("<bos>[user]Why?[end]\n[assistant]", "So.[end]", "No.[end]")]
    assert events.summary["rejected"] == 1
    assert "no system role" in (made.path / "rejected.jsonl").read_text()
    with pytest.raises(RowError, match="every one was set aside"):
        prepare(tmp_path / "all", rows[1:], "gemma", bad_rows="skip", **keys)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": SO, "rejected": NO}, "no field 'messages'"),
        ({"messages": [], "chosen": SO, "rejected": NO}, "'messages' must be a list of messages"),
        ({"messages": [QUESTION], "chosen": SO}, "no answer in field 'rejected'"),
        ({"messages": [QUESTION], "chosen": [], "rejected": NO}, "no answer in field 'chosen'"),
        ({"messages": [QUESTION], "chosen": 5, "rejected": NO}, "field 'chosen': message 1 is not an object"),
        (
            {"messages": [{"content": "x"}], "chosen": SO, "rejected": NO},
            "field 'messages': message 1 has no 'role'",
        ),
    ],
)
def test_bad_rows_say_why(row, reason, tmp_path):
    with pytest.raises(RowError, match=reason):
        prepare(tmp_path, [row], type="chat_template.default")


def test_a_template_is_needed(tmp_path):
    row = {"messages": [QUESTION], "chosen": SO, "rejected": NO}
    with pytest.raises(SettingError, match="needs a chat template and the tokenizer has none"):
        prepare(tmp_path, [row], "llama3", type="chat_template.default")


def test_reward_conversations(tmp_path):
    from transformers import AutoTokenizer

    rows = [
        {"input": "Why?", "chosen": "So.", "rejected": "No."},
        {"input": "Why?", "chosen": "So.", "rejected": "No.", "system": None},
        {"input": "Why?", "chosen": "So.", "rejected": "No.", "system": "Be brief."},
        {"input": "Why?", "chosen": "So.", "rejected": "No.", "system": ""},
        {"chosen": [QUESTION, SO], "rejected": [QUESTION, NO]},
    ]
    made, _ = prepare(tmp_path, rows, reward_model=True, type="bradley_terry.chat_template")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / "chatml")
    systems = ["", "", "<|im_start|>system\nBe brief.<|im_end|>\n", "<|im_start|>system\n<|im_end|>\n", ""]
    for row, system in zip(read_arrow(made.rows), systems, strict=True):
        for side, answer in (("chosen", "So."), ("rejected", "No.")):
            assert tokenizer.decode(row[f"{side}_ids"]) == f"{system}{PROMPT}{answer}<|im_end|>\n"
