"""What the tokenized stage counts, shows and sets aside."""

import json

import pytest
from support.conversations import call
from support.rows import read_arrow

from tunemill.stages.data.conversations.pieces import pieces
from tunemill.stages.errors import RowError

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


def test_rows_without_anything_to_train_on_stay_and_are_counted(tokenize):
    rows = [CHAT, {"messages": CHAT["messages"][:1]}, CHAT]
    dataset, events = tokenize(rows)
    assert [row["source_row"] for row in read_arrow(dataset.rows)] == [1, 2, 3]
    assert events.summary["rows"] == 3
    assert events.summary["rows_without_trained_tokens"] == 1
    assert "1 rows have no token to train on and will be left out" in events.logs


def test_all_rows_without_anything_to_train_on(tokenize):
    with pytest.raises(RowError, match=r"none of the 2 rows of rows\.jsonl .* roles_to_train is \[\]"):
        tokenize([CHAT, CHAT], roles_to_train=[])
    with pytest.raises(RowError, match=r"none of the 1 rows .* every output is empty"):
        tokenize([{"instruction": "What", "output": ""}], type="alpaca")


def test_the_report(tokenize):
    dataset, events = tokenize([CHAT, {"messages": [SYSTEM, *CHAT["messages"]]}])
    rows = read_arrow(dataset.rows)
    lengths = [len(row["input_ids"]) for row in rows]
    trained_tokens = sum(label != -100 for row in rows for label in row["labels"])
    assert events.summary == {
        "engine": "gigatoken",
        "rows": 2,
        "rows_without_trained_tokens": 0,
        "tokens": sum(lengths),
        "trained_tokens": trained_tokens,
        "masked_tokens": sum(lengths) - trained_tokens,
        "longest_row": max(lengths),
        "mean_tokens_per_row": round(sum(lengths) / 2, 1),
    }
    by_role = next(table for table in events.of_type("table") if table["title"] == "Tokens by role")
    assert {"assistant", "system", "user"} <= {row[0] for row in by_role["rows"]}
    assert sum(row[1] + row[2] for row in by_role["rows"]) == sum(lengths)
    assert {row[0]: row[1] for row in by_role["rows"] if row[1]} == {"assistant": trained_tokens}
    (plot,) = events.of_type("plot")
    assert plot["bars"] and sum(plot["y"]) == 2


def test_every_token_has_a_role(tokenize):
    dataset, _ = tokenize([CHAT, {"messages": [SYSTEM, *CHAT["messages"]]}])
    for row in read_arrow(dataset.rows):
        assert row["role_ends"] == sorted(set(row["role_ends"])) and row["role_ends"][-1] == len(
            row["input_ids"]
        )
        assert len(row["roles"]) == len(row["role_ends"])
        for role, piece in zip(
            row["roles"], pieces(row["labels"], row["roles"], row["role_ends"]), strict=False
        ):
            assert role and piece.start < piece.end
        trained = {p.role for p in pieces(row["labels"], row["roles"], row["role_ends"]) if p.trained}
        assert trained == {"assistant"}


def test_the_first_rows_are_shown(tokenize):
    _, events = tokenize([CHAT] * 5)
    shown = next(table for table in events.of_type("table") if table["title"] == "Examples")
    assert {row[0] for row in shown["rows"]} == {1, 2, 3}
    assert [row[3] for row in shown["rows"] if row[0] == 1 and row[2] == "trained"] == [
        "Paris." + END,
        "The date" + END,
    ]


def test_messages_that_a_template_leaves_out_are_counted(tokenize):
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{{ eos_token }}{% endfor %}"
    row = {"messages": [SYSTEM, *CHAT["messages"]]}
    _, events = tokenize([row, CHAT], chat_template="jinja", chat_template_jinja=template)
    assert events.summary["messages_left_out"] == 1
    assert "1 messages have a text that the chat template leaves out" in events.logs


REASON = {"role": "assistant", "content": "Paris.", "reasoning_content": "The date"}
OTHER = {"role": "assistant", "content": "Paris.", "reasoning": "The date", "thinking": None}


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize(
    ("template", "answer", "expected"),
    [
        ("llama3", REASON, {"reasoning_content": 2}),
        ("deepseek_v3", REASON, {"reasoning_content": 2}),
        ("exaone4", REASON, {"reasoning_content": 2}),
        # It writes the reasoning of the last answer.
        ("qwen3", REASON, {"reasoning_content": 1}),
        ("qwen3", OTHER, {"reasoning": 2}),
        ("qwen3", {**REASON, "reasoning_content": " ", "thinking": "The date"}, {"thinking": 2}),
        ("chatml", {**CHAT["messages"][1], "tool_calls": [call(1, q="x")]}, {"tool_calls": 2}),
        ("qwen3", {**CHAT["messages"][1], "tool_calls": [call(1, q="x")]}, {}),
        ("command_a", {**CHAT["messages"][1], "tool_calls": '[{"name": "get"}]'}, {"tool_calls": 2}),
        ("gemma4", {**OTHER, "tool_calls": []}, {"reasoning": 2}),
        ("gemma4", {**OTHER, "tool_calls": [call(1, q="x")]}, {"reasoning": 1}),
        ("chatml", {**CHAT["messages"][1], "tool_calls": " [] "}, {}),
    ],
)
def test_reasoning_and_calls_that_a_template_leaves_out_are_counted(
    tokenize, template, answer, expected, traced
):
    odd = {} if traced else {"message_field_training": "learn"}
    row = {"messages": [CHAT["messages"][0], {**answer, "learn": None if traced else True}] * 2}
    _, events = tokenize([row], chat_template=template, **odd)
    assert events.summary.get("message_fields_left_out", 0) == sum(expected.values())
    for name, count in expected.items():
        assert f"{count} messages have '{name}', which the chat template leaves out" in events.logs


def test_a_mapped_reasoning_is_counted_by_the_datas_name(tokenize):
    row = {"messages": [CHAT["messages"][0], OTHER] * 2}
    _, events = tokenize([row], chat_template="qwen3", field_thinking="reasoning")
    assert events.summary["message_fields_left_out"] == 1
    assert "1 messages have 'reasoning', which the chat template leaves out" in events.logs
    _, events = tokenize(
        [{"messages": row["messages"][:2]}], chat_template="qwen3", field_thinking="reasoning"
    )
    assert "message_fields_left_out" not in events.summary


TOOL = {"type": "function", "function": {"name": "get", "parameters": {"properties": {}}}}
CALL = {**CHAT["messages"][1], "tool_calls": [call(1, q="x")]}
# It writes tools where there is a system message.
SOMETIMES = (
    "{% if messages[0].role == 'system' %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
)


@pytest.mark.parametrize("answer", [CHAT["messages"][1], REASON, CALL])
@pytest.mark.parametrize(
    ("template", "system", "expected"),
    [
        ("llama3", True, 3),
        ("chatml", False, 3),
        ("qwen3", False, 0),
        ("llama3_2_vision", True, 0),
        (SOMETIMES, False, 3),
        (SOMETIMES, True, 0),
    ],
)
def test_tools_that_a_template_leaves_out_are_counted(tokenize, template, system, answer, expected):
    named = {"chat_template": template}
    if template == SOMETIMES:
        named = {"chat_template": "jinja", "chat_template_jinja": template}
    # Its name stands in what is said as well.
    asked = {"role": "user", "content": "Can you get it?"}
    row = {"messages": [*([SYSTEM] if system else []), asked, answer]}
    given = [TOOL], json.dumps([TOOL]), [{"name": "get", "description": "Gets it."}]
    rows = [row, {**row, "defs": []}, *({**row, "defs": tools} for tools in given)]
    _, events = tokenize(rows, field_tools="defs", **named)
    assert events.summary.get("tools_left_out", 0) == expected
    said = f"{expected} rows have tools, which the chat template leaves out: choose another template"
    assert (said in events.logs) is (expected > 0)


def test_rows_with_and_without_their_tools_are_told_apart(tokenize):
    one = {"messages": CHAT["messages"], "tools": [TOOL]}
    other = {**one, "messages": [SYSTEM, *one["messages"]]}
    settings = {"chat_template": "jinja", "chat_template_jinja": SOMETIMES}
    _, events = tokenize([one, other, one, CHAT, other, one], **settings)
    assert events.summary["tools_left_out"] == 3


def test_tools_of_either_form_are_told_apart(tokenize):
    template = (
        "{% for t in tools or [] %}{{ t.function.name if t.function else '' }}{% endfor %}"
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    written = {"messages": CHAT["messages"], "tools": [TOOL]}
    left_out = {**written, "tools": [{"name": "get", "parameters": {"properties": {}}}]}
    rows = [written, left_out, written, left_out]
    _, events = tokenize([{**row, "tools": json.dumps(row["tools"])} for row in rows],
                         chat_template="jinja", chat_template_jinja=template)  # fmt: skip
    assert events.summary["tools_left_out"] == 2


def test_a_refusal_names_the_template(tokenize):
    with pytest.raises(RowError, match=r"the chat template gemma refuses the row: System role not supported"):
        tokenize([{"messages": [SYSTEM, *CHAT["messages"]]}], chat_template="gemma")


def test_bad_rows_are_set_aside(tokenize):
    dataset, events = tokenize([CHAT, {"messages": "none"}, CHAT], bad_rows="skip")
    assert [row["source_row"] for row in read_arrow(dataset.rows)] == [1, 3]
    assert events.summary["rejected"] == 1
    (line,) = (dataset.path / "rejected.jsonl").read_text().splitlines()
    assert '"line": 2' in line
    with pytest.raises(RowError, match=r"no row of rows.jsonl is left"):
        tokenize([{"messages": "none"}], bad_rows="skip")


def test_the_day_is_written_and_said_where_a_template_asks_for_it(tokenize):
    template = "{{ strftime_now('%d %B') }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    _, events = tokenize([CHAT], chat_template="jinja", chat_template_jinja=template, today="2026-11-21")
    assert events.summary["template_date"] == "2026-11-21" and "it is 2026-11-21" in events.logs
    named = {"chat_template_kwargs": {"strftime_now": "2020-01-31"}, "today": "2026-11-21"}
    _, events = tokenize([CHAT], chat_template="jinja", chat_template_jinja=template, **named)
    assert "template_date" not in events.summary


def test_the_quality_of_rows(tokenize):
    long = {"messages": [CHAT["messages"][0], {"role": "assistant", "content": "Paris é. " * 50}]}
    dataset, events = tokenize([CHAT] * 9 + [long])
    (table,) = (table for table in events.of_type("table") if table["title"] == "Quality")
    found = {line[0].split(" (")[0]: tuple(line[1:3]) for line in table["rows"]}
    ids = [token for row in read_arrow(dataset.rows) for token in row["input_ids"]]
    assert found["tokens that are trained on"] == (events.summary["trained_tokens"], len(ids))
    assert found["rows far longer than most"] == (1, 10) and events.summary["rows_far_longer"] == 1
    assert found["tokens that are one byte of a character"] == (100, len(ids))
    assert events.summary["byte_tokens"] == 100
    assert found["tokens of the vocabulary that occur"][0] == len(set(ids))
