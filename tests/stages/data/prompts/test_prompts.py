"""The body of the prompts stage: what is the prompt of a row, what is kept beside it, which rows are bad."""

import json

import pytest
from support.preference_rows import TOKENIZERS, write_raw
from support.rows import read_arrow, run_stage

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.loaded import load_to_encode
from tunemill.stages.data.prompts.config import PromptsConfig
from tunemill.stages.data.prompts.stage import PROMPTS
from tunemill.stages.errors import RowError

ASKED = [{"role": "system", "content": "brief"}, {"role": "user", "content": "2 + 2"}]
TALK = [*ASKED, {"role": "assistant", "content": "4"}]
OWN = """
import datetime


def asking(cfg):
    return lambda row: {"prompt": row["q"], "answer": row["a"]}


def dated(cfg):
    return lambda row: {"prompt": row["q"], "day": datetime.date(1998, 3, 14) if row["a"] == "x" else "no day"}
"""


def run(folder, rows, tokenizer="chatml", **keys):
    """The rows that the stage makes, and what it said."""
    raw = write_raw(folder / "raw", rows)
    config = PromptsConfig(**keys)
    data, events = run_stage(
        PROMPTS, config, folder / "out", dataset=raw, tokenizer=Tokenizer(TOKENIZERS / tokenizer)
    )
    return read_arrow(data.rows), events


def own(folder, name):
    """Keys of a function of the user's."""
    (folder / "shaping.py").write_text(OWN)
    return {"type": f"shaping.{name}", "type_code": [str(folder / "shaping.py")]}


def text_of(row):
    """The prompt's tokens as text."""
    return load_to_encode(Tokenizer(TOKENIZERS / "chatml"))[0].decode(row["prompt_ids"])


def test_a_text_and_messages_are_prompts_with_the_other_columns_beside_them(tmp_path):
    rows, _ = run(tmp_path, [{"prompt": "2 + 2", "answer": 4}, {"prompt": ASKED, "of": {"a": [1, None]}}])
    assert [json.loads(row["prompt"]) for row in rows] == ["2 + 2", ASKED]
    assert [json.loads(row["columns"]) for row in rows] == [{"answer": 4}, {"of": {"a": [1, None]}}]
    assert [row["source_row"] for row in rows] == [1, 2]
    assert text_of(rows[0]) == "2 + 2"
    assert text_of(rows[1]).endswith("<|im_start|>assistant\n") and "brief" in text_of(rows[1])


def test_rows_without_an_answer_are_told_with_their_places_where_completions_are_compared_with_one(tmp_path):
    rows = [{"prompt": "a", "ground_truth": "b"}, {"prompt": "c"}, {"prompt": "d", "ground_truth": " "}]
    made, _ = run(tmp_path / "any", rows)
    assert len(made) == 3
    with pytest.raises(RowError) as caught:
        run(tmp_path / "stop", rows, needs_answer=True)
    assert ":2: completions are compared with its ground_truth, a text, and there is none" in str(
        caught.value
    )
    assert ":3: completions are compared with its ground_truth, a text, and there is ' '" in str(caught.value)
    made, events = run(tmp_path / "skip", rows, needs_answer=True, bad_rows="skip")
    assert [row["source_row"] for row in made] == [1] and events.summary["rejected"] == 2


def test_of_a_conversation_what_is_behind_the_last_question_is_no_prompt_and_rewards_get_it(tmp_path):
    rows, _ = run(tmp_path, [{"said": TALK, "prompt": "other"}], type="chat_template", field_messages="said")
    assert json.loads(rows[0]["prompt"]) == ASKED and json.loads(rows[0]["columns"]) == {"said": TALK}
    assert "4" not in text_of(rows[0])


def test_a_function_of_the_users_makes_rows_and_what_json_does_not_hold_is_a_bad_row(tmp_path):
    given = [{"q": "one", "a": "x"}, {"q": "two", "a": "y"}]
    rows, _ = run(tmp_path / "own", given, **own(tmp_path, "asking"))
    assert json.loads(rows[0]["columns"]) == {"q": "one", "a": "x", "answer": "x"}
    with pytest.raises(RowError) as caught:
        run(tmp_path / "stopped", given, **own(tmp_path, "dated"))
    said = str(caught.value)
    assert (
        "column 'day' is kept as JSON, which does not hold it" in said
        and "datetime.date(1998, 3, 14)" in said
    )
    rows, _ = run(tmp_path / "skipped", given, bad_rows="skip", **own(tmp_path, "dated"))
    assert [json.loads(row["columns"])["day"] for row in rows] == ["no day"]


@pytest.mark.parametrize(
    ("row", "keys", "said"),
    [
        ({"question": "?"}, {}, "no field 'prompt'; the row has ['question']"),
        ({"prompt": ""}, {}, "must be a text or a list of messages"),
        ({"prompt": 3}, {}, "must be a text or a list of messages: 3"),
        ({"prompt": []}, {}, "there is no message"),
        ({"prompt": [{"content": "x"}]}, {}, "message 1 has no role"),
        ({"prompt": [{"role": "user"}]}, {}, "message 1 has no content"),
        ({"messages": TALK[2:]}, {"type": "chat_template"}, "nothing but answers"),
        ({"said": TALK}, {"type": "chat_template"}, "no field 'messages'"),
        ({"messages": "x"}, {"type": "chat_template"}, "must be a list of messages"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, keys, said):
    with pytest.raises(RowError) as caught:
        run(tmp_path, [row], **keys)
    assert said in str(caught.value) and "1" in str(caught.value)
