"""The formats whose wording is written out: every type, with what it must say."""

import pytest
from support.preference_rows import prepare, texts
from support.rows import read_arrow

from tunemill.stages.data.preferences.type_table import TYPES
from tunemill.stages.errors import RowError

CHATML = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
CHATML_SYSTEM = "<|im_start|>system\nBe brief.<|im_end|>\n" + CHATML
LLAMA3 = "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
LLAMA3_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>" + LLAMA3
WORDINGS = {"chatml": (CHATML, CHATML_SYSTEM, "<|im_end|>"), "llama3": (LLAMA3, LLAMA3_SYSTEM, "<|eot_id|>")}
ANSWERS = {"chosen": "So.", "rejected": "No."}
QUESTION, SO, NO = (
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "assistant", "content": "No."},
)
PAIR_ROWS = {
    "argilla": {"instruction": "Why?", "chosen_response": "So.", "rejected_response": "No."},
    "default": {"question": "Why?", **ANSWERS},
    "icr": {"input": "Why?", **ANSWERS},
    "intel": {"question": "Why?", **ANSWERS},
    "prompt_pairs": {"prompt": "Why?", **ANSWERS},
    "ultra": {"prompt": "Why?", "chosen": [QUESTION, SO], "rejected": [QUESTION, NO]},
}
RATED_ROWS = {
    "argilla": {"instruction": "Why?", "completion": "So.", "label": True},
    "intel": {"question": "Why?", "completion": "So.", "label": True},
    "prompt_pairs": {"prompt": "Why?", "completion": "So.", "label": True},
    "ultra": {"prompt": "Why?", "completion": "So.", "label": True},
}


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("name", PAIR_ROWS)
def test_pairs(name, wording, tmp_path):
    plain, with_system, end = WORDINGS[wording]
    row = PAIR_ROWS[name]
    rows = [row, {**row, "system": ""}, {**row, "system": None}, {**row, "system": "Be brief."}]
    made, _ = prepare(tmp_path, rows, wording, type=f"{wording}.{name}")
    answers = (f"So.{end}", f"No.{end}")
    assert texts(made) == [(plain, *answers)] * 3 + [(with_system, *answers)]


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("name", RATED_ROWS)
def test_rated(name, wording, tmp_path):
    plain, with_system, end = WORDINGS[wording]
    row = RATED_ROWS[name]
    rows = [row, {**row, "system": "Be brief.", "label": False}]
    made, _ = prepare(tmp_path, rows, wording, rl="kto", type=f"{wording}.{name}")
    assert texts(made) == [(plain, f"So.{end}", True), (with_system, f"So.{end}", False)]


@pytest.mark.parametrize("wording", WORDINGS)
def test_whole_conversations(wording, tmp_path):
    plain, _, end = WORDINGS[wording]
    longer = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Ja."}, QUESTION]
    pairs = [
        {"chosen": [QUESTION, SO], "rejected": [QUESTION, NO], "system": "not read"},
        {"chosen": [*longer, SO], "rejected": [*longer, NO]},
    ]
    made, _ = prepare(tmp_path / "pair", pairs, wording, type=f"{wording}.argilla_chat")
    before = {
        "chatml": "<|im_start|>user\nHm?<|im_end|>\n<|im_start|>assistant\nJa.<|im_end|>\n",
        "llama3": "<|start_header_id|>user<|end_header_id|>\n\nHm?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nJa.<|eot_id|>",
    }[wording]
    expected = [(plain, f"So.{end}", f"No.{end}"), (before + plain, f"So.{end}", f"No.{end}")]
    assert texts(made) == expected
    rated = [{"completion": row["chosen"], "label": 1} for row in pairs]
    made, _ = prepare(tmp_path / "rated", rated, wording, rl="kto", type=f"{wording}.argilla_chat")
    assert texts(made) == [(prompt, chosen, True) for prompt, chosen, _ in expected]


def test_a_long_ultra_conversation_is_its_own_history(tmp_path):
    earlier = [QUESTION, SO, {"role": "user", "content": "And?"}]
    row = {"prompt": "Why?", "chosen": [*earlier, SO], "rejected": [*earlier, NO]}
    made, _ = prepare(tmp_path, [row], type="chatml.ultra")
    prompt = CHATML + "So.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    assert texts(made) == [(prompt, "So.<|im_end|>", "No.<|im_end|>")]


def test_named_fields_and_mapped_messages(tmp_path):
    row = {"question": "Why?", "win": "So.", "lose": "No.", "rule": "Be brief."}
    keys = {"field_chosen": "win", "field_rejected": "lose", "field_system": "rule"}
    made, _ = prepare(tmp_path / "text", [row], type="chatml.intel", **keys)
    assert texts(made) == [(CHATML_SYSTEM, "So.<|im_end|>", "No.<|im_end|>")]

    turns = [{"from": "human", "value": "Why?"}]
    row = {
        "win": [*turns, {"from": "gpt", "value": "So."}],
        "lose": [*turns, {"from": "gpt", "value": "No."}],
    }
    keys = {"field_chosen": "win", "field_rejected": "lose"}
    keys["message_property_mappings"] = {"role": "from", "content": "value"}
    made, _ = prepare(tmp_path / "chat", [row], type="chatml.argilla_chat", **keys)
    assert texts(made) == [(CHATML, "So.<|im_end|>", "No.<|im_end|>")]


def test_the_default_system_message_fills_in_where_a_row_has_none(tmp_path):
    rows = [{"question": "Why?", **ANSWERS}, {"question": "Why?", "system": "Be long.", **ANSWERS}]
    made, _ = prepare(tmp_path, rows, type="chatml.intel", default_system_message="Be brief.")
    assert [row[0] for row in texts(made)] == [CHATML_SYSTEM, CHATML_SYSTEM.replace("brief", "long")]


def test_nectar_prefers_the_best_rank(tmp_path):
    answers = [{"answer": name, "rank": rank} for name, rank in (("bad", 3.0), ("best", 1.0), ("good", 2.0))]
    made, _ = prepare(tmp_path, [{"prompt": "Why?", "answers": answers}], type="zephyr.nectar")
    prompt = "<|system|>\n</s>\n<|user|>\nWhy?</s>\n<|assistant|>\n"
    assert texts(made) == [(prompt, "best", "good")]


@pytest.mark.parametrize("name", ["passthrough", "passthrough.default", None])
def test_rows_that_are_ready(name, tmp_path):
    row = {"prompt": "P ", "chosen": " C", "rejected": "R", "completion": "A", "label": False}
    made, _ = prepare(tmp_path / "pair", [row], rl="simpo", type=name)
    assert texts(made) == [("P ", " C", "R")]
    made, _ = prepare(tmp_path / "rated", [row], rl="kto", type=name)
    assert texts(made) == [("P ", "A", False)]


def test_llama3_reward_rows_are_whole_conversations_behind_bos(tmp_path):
    rows = [
        {"input": "Why?", **ANSWERS},
        {"input": "Why?", "system": "Be brief.", **ANSWERS},
    ]
    made, _ = prepare(tmp_path, rows, "llama3", reward_model=True, type="bradley_terry.llama3")
    from support.preference_rows import TOKENIZERS
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / "llama3")
    decoded = [
        tuple(tokenizer.decode(row[f"{side}_ids"]) for side in ("chosen", "rejected"))
        for row in read_arrow(made.rows)
    ]
    assert decoded == [
        tuple(f"<|begin_of_text|>{prompt}{answer}<|eot_id|>" for answer in ("So.", "No."))
        for prompt in (LLAMA3, LLAMA3_SYSTEM)
    ]
    assert [row["tokens"] for row in read_arrow(made.rows)] == [
        max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in read_arrow(made.rows)
    ]


def test_every_written_type_is_tested_here():
    written = {
        (kind, name)
        for kind, types in TYPES.items()
        for name, made in types.items()
        if ".written:" in made.maker
    }
    tested = {("pair", f"{w}.{name}") for w in WORDINGS for name in (*PAIR_ROWS, "argilla_chat")}
    tested |= {("rated", f"{w}.{name}") for w in WORDINGS for name in (*RATED_ROWS, "argilla_chat")}
    tested |= {("pair", "zephyr.nectar"), ("pair", "passthrough.default"), ("rated", "passthrough.default")}
    assert written == tested | {("reward", "bradley_terry.llama3")}


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("chatml.intel", {"question": "Why?", "chosen": "So."}, "no field 'rejected'"),
        ("chatml.intel", {**ANSWERS}, "no field 'question'"),
        ("chatml.intel", {"question": ["Why?"], **ANSWERS}, "field 'question' is not text"),
        ("chatml.intel", {"question": "Why?", "system": 3, **ANSWERS}, "field 'system' is not text"),
        ("chatml.argilla", {**ANSWERS}, "no field 'prompt'"),
        ("chatml.argilla_chat", {"chosen": [SO], "rejected": [QUESTION, NO]}, "at least a question"),
        ("chatml.argilla_chat", {"chosen": "{", "rejected": [QUESTION, NO]}, "field 'chosen' should be JSON"),
        (
            "chatml.argilla_chat",
            {"chosen": [{"content": "Why?"}, SO], "rejected": [QUESTION, NO]},
            "field 'chosen': message 1 has no 'role'",
        ),
        ("zephyr.nectar", {"prompt": "Why?", "answers": [{"answer": "a", "rank": 1}]}, "two or more answers"),
        ("zephyr.nectar", {"prompt": "Why?", "answers": [{"answer": "a"}] * 2}, "has no rank"),
        ("passthrough", {"prompt": "P", "chosen": "", "rejected": "R"}, "its chosen is empty"),
    ],
)
def test_bad_rows_say_why(name, row, reason, tmp_path):
    with pytest.raises(RowError, match=rf"1 row of r.jsonl cannot be used:\n  r.jsonl:1: .*{reason}"):
        prepare(tmp_path, [row], type=name, path="/x/r.jsonl")


@pytest.mark.parametrize("label", ["perhaps", 2, None, [True]])
def test_labels_are_true_or_false(label, tmp_path):
    row = {"prompt": "P", "completion": "C", "label": label}
    with pytest.raises(RowError, match="label"):
        prepare(tmp_path, [row], rl="kto")
