"""Both answers of a row answer the same conversation with one message of the assistant; what does not is a bad row."""

import pytest
from support.preference_rows import prepare, texts
from support.rows import read_arrow

from tunemill.stages.errors import RowError


def say(role, content, **more):
    return {"role": role, "content": content, **more}


SYSTEM, WHY, WHO = say("system", "Be brief."), say("user", "Why?"), say("user", "Who?")
SO, NO, HM = say("assistant", "So."), say("assistant", "No."), say("assistant", "Hm.")
# Types whose rows hold two whole conversations.
WHOLE = {
    "chat_template.argilla_chat": {"rl": "dpo"},
    "chat_template.argilla": {"rl": "orpo"},
    "chatml.argilla_chat": {"rl": "ipo"},
    "llama3.argilla_chat": {"rl": "simpo"},
    "chatml.ultra": {"rl": "dpo"},
    "llama3.ultra": {"rl": "dpo"},
    "chatml.argilla": {"rl": "dpo"},
    "bradley_terry.chat_template": {"reward_model": True},
}
BAD = {
    "different questions": (
        [WHY, SO],
        [WHO, NO],
        "answer different conversations: message 1 of the user is 'Why.' in one and 'Who.' in the other",
    ),
    "different earlier answers": (
        [WHY, SO, WHO, SO],
        [WHY, NO, WHO, NO],
        "behind the 1 message that they have in common, field 'chosen' has 3 messages and field 'rejected' 3 m",
    ),
    "two turns of the assistant": (
        [WHY, SO, HM],
        [WHY, NO],
        "field 'chosen' has 2 messages and field 'rejected' 1 m",
    ),
    "turns of which one is left": (
        [WHY, SO],
        [WHY, NO, WHO, HM],
        "field 'chosen' has 1 message and field 'rejected' 3 m",
    ),
    "an end of the user": (
        [WHY, SO, WHO],
        [WHY, NO],
        "field 'chosen' ends with a message of the role 'user'",
    ),
    "an answer of the user": (
        [WHY, SO],
        [WHY, WHO],
        "field 'rejected' ends with a message of the role 'user'",
    ),
    "an answer of a tool": ([WHY, SO], [WHY, say("tool", "5")], "ends with a message of the role 'tool'"),
    "a role that nobody knows": (
        [WHY, say("model", "So.")],
        [WHY, NO],
        r"ends with a message of the role 'model'.*if 'model' is the assistant, say so under roles:",
    ),
    "a system message on one side": (
        [SYSTEM, WHY, SO],
        [WHY, NO],
        "field 'chosen' begins with a system message and field 'rejected' does not",
    ),
    "two system messages": (
        [SYSTEM, WHY, SO],
        [say("system", "Be long."), WHY, NO],
        "message 1 of the system is 'Be brief.' in one and 'Be long.' in the other",
    ),
    "an empty list": ([WHY, SO], [], "no answer in field 'rejected': its list is empty"),
    "no question": ([SO], [NO], "at least a question and its answer|no field 'input'"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("fault", BAD)
def test_pairs_of_conversations_that_do_not_belong_together(fault, name, tmp_path):
    chosen, rejected, reason = BAD[fault]
    good = {"chosen": [WHY, SO], "rejected": [WHY, NO]}
    rows = [good, {"chosen": chosen, "rejected": rejected}]
    keys = {**WHOLE[name], "type": name, "path": "p.jsonl"}
    with pytest.raises(RowError, match=rf"1 row of p.jsonl cannot be used:\n  p.jsonl:2: .*({reason})"):
        prepare(tmp_path / "stop", rows, **keys)


@pytest.mark.parametrize("name", WHOLE)
def test_earlier_turns_that_both_have_are_the_prompt(name, tmp_path):
    earlier = [SYSTEM, WHY, SO, say("user", "Who? ")]
    row = {"chosen": [*earlier, HM], "rejected": [*earlier[:3], WHO, NO]}
    made, _ = prepare(tmp_path, [row], **WHOLE[name], type=name)
    if name.startswith("bradley"):
        (found,) = read_arrow(made.rows)
        assert found["same_tokens"] > 10 and found["chosen_ids"] != found["rejected_ids"]
        return
    ((prompt, chosen, rejected),) = texts(made)
    assert all(text in prompt for text in ("Be brief.", "Why?", "So.", "Who?"))
    assert chosen.startswith("Hm.") and rejected.startswith("No.")


@pytest.mark.parametrize("name", ["chatml.argilla_chat", "llama3.argilla_chat"])
@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ([], "no answer in field 'completion': its list is empty"),
        ([SO], "at least a question and its answer"),
        ([WHY, SO, WHO], "ends with a message of the role 'user'"),
    ],
)
def test_judged_conversations(completion, reason, name, tmp_path):
    with pytest.raises(RowError, match=reason):
        prepare(tmp_path, [{"completion": completion, "label": True}], rl="kto", type=name)


# Answers beside the conversation that they answer: alone, as texts, or behind it or its end.
BESIDE = [SYSTEM, WHY, HM, WHO]


@pytest.mark.parametrize("chosen", [SO, [SO], "So.", [WHO, SO], [*BESIDE, SO], [*BESIDE[1:], SO]])
@pytest.mark.parametrize("rejected", [NO, [WHO, NO]])
def test_answers_that_repeat_the_messages_or_do_not(chosen, rejected, tmp_path):
    row = {"messages": BESIDE, "chosen": chosen, "rejected": rejected}
    made, _ = prepare(tmp_path, [row], type="chat_template.default")
    ((prompt, better, worse),) = texts(made)
    assert prompt.count("Who?") == 1 and "Be brief." in prompt and "Hm." in prompt
    assert (better, worse) == ("So.<|im_end|>", "No.<|im_end|>")


@pytest.mark.parametrize(
    ("messages", "chosen", "reason"),
    [
        (
            [WHY],
            [WHO, SO],
            "field 'chosen' has 1 message before its last one, which field 'messages' does not end with",
        ),
        ([WHY], [SO, WHO, HM], "field 'chosen' has 2 messages before its last one"),
        ([WHY], [WHY, SO, HM], "field 'chosen' has 2 messages before its last one"),
        (
            [WHY],
            [SYSTEM, WHY, SO],
            "field 'chosen' begins with a system message that field 'messages' does not",
        ),
        ([WHY], WHO, "field 'chosen' ends with a message of the role 'user'"),
        ("Why?", [WHO, SO], "which field 'messages' does not end with"),
        ([WHY, SO], SO, "field 'messages' ends with the answer of field 'chosen'"),
        ([WHY, SO], [WHY, SO], "field 'messages' ends with the answer of field 'chosen'"),
        ([WHY, SO], [WHY, HM], "field 'chosen' has 1 message before its last one"),
        ([WHY], [WHY], "field 'chosen' ends with a message of the role 'user'"),
    ],
)
def test_answers_to_other_messages(messages, chosen, reason, tmp_path):
    row = {"messages": messages, "chosen": chosen, "rejected": NO}
    with pytest.raises(RowError, match=reason):
        prepare(tmp_path, [row], type="chat_template.default")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("chatml.ultra", "prompt"),
        ("llama3.argilla", "instruction"),
        ("chat_template.argilla", "prompt"),
        ("bradley_terry.chat_template", "input"),
    ],
)
def test_a_question_beside_the_answers(name, field, tmp_path):
    keys = {**WHOLE.get(name, {"rl": "dpo"}), "type": name}
    longer = [WHY, HM, WHO]
    rows = [
        {field: "Why?", "chosen": [WHY, SO], "rejected": [NO]},
        {field: "Why?", "chosen": [SO], "rejected": [NO]},
        {field: "Why?", "chosen": [*longer, SO], "rejected": [*longer, NO]},
        {field: "Who?", "chosen": [*longer, SO], "rejected": [*longer, NO]},
    ]
    made, _ = prepare(tmp_path / "good", rows, **keys)
    assert len(read_arrow(made.rows)) == 4
    other = {field: "Where?", "chosen": [WHY, SO], "rejected": [WHY, NO]}
    with pytest.raises(RowError, match=f"field '{field}' asks 'Where.', and field 'chosen' answers another"):
        prepare(tmp_path / "bad", [other], **keys)


def test_roles_and_fields_have_their_own_names(tmp_path):
    def tell(who, what):
        return {"from": who, "value": what}

    keys = {
        "type": "chat_template.argilla_chat",
        "message_field_role": "from",
        "message_field_content": "value",
    }
    human, gpt = tell("human", "Why?"), tell("gpt", "So.")
    good = {"chosen": [human, gpt], "rejected": [tell("user", "Why?"), tell("assistant", "No.")]}
    made, _ = prepare(tmp_path / "usual", [good], **keys)
    assert texts(made)[0][1:] == ("So.<|im_end|>", "No.<|im_end|>")
    with pytest.raises(RowError, match="field 'rejected' ends with a message of the role 'user'"):
        prepare(tmp_path / "human", [{**good, "rejected": [human, human]}], **keys)
    keys["roles"] = {"user": ["asker"], "assistant": ["bot"]}
    asker, bot = tell("asker", "Why?"), tell("bot", "So.")
    made, _ = prepare(
        tmp_path / "own", [{"chosen": [asker, bot], "rejected": [asker, tell("bot", "No.")]}], **keys
    )
    assert texts(made)[0][1:] == ("So.<|im_end|>", "No.<|im_end|>")
    with pytest.raises(RowError, match="field 'chosen' ends with a message of the role 'user'"):
        prepare(tmp_path / "asker", [{"chosen": [asker, asker], "rejected": [asker, bot]}], **keys)
    with pytest.raises(RowError, match="field 'chosen' ends with a message of the role 'gpt'"):
        prepare(tmp_path / "gpt", [{"chosen": [asker, gpt], "rejected": [asker, bot]}], **keys)


def test_system_messages_that_are_dropped_need_not_be_the_same(tmp_path):
    keys = {"type": "chat_template.argilla_chat", "drop_system_message": True}
    made, _ = prepare(tmp_path, [{"chosen": [SYSTEM, WHY, SO], "rejected": [WHY, NO]}], **keys)
    ((prompt, *_),) = texts(made)
    assert "Be brief." not in prompt and "Why?" in prompt


def test_answers_of_tools_are_part_of_the_question(tmp_path):
    call = say("assistant", "", tool_calls=[{"function": {"name": "look", "arguments": {"x": 5}}}])
    earlier = [WHY, call, say("tool", "42")]
    row = {"chosen": [*earlier, SO], "rejected": [*earlier, NO]}
    made, _ = prepare(tmp_path / "good", [row], type="chat_template.argilla_chat", chat_template="qwen3")
    ((prompt, *_),) = texts(made)
    assert "look" in prompt and "42" in prompt
    other = {**row, "rejected": [WHY, call, say("tool", "43"), NO]}
    with pytest.raises(RowError, match="message 3 of the tool is '42' in one and '43' in the other"):
        prepare(tmp_path / "other", [other], type="chat_template.argilla_chat", chat_template="qwen3")
    with pytest.raises(RowError, match="a message calls tools, which this wording cannot say"):
        prepare(tmp_path / "wording", [row], type="chatml.argilla_chat")
