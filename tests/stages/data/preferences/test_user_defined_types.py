"""`type:` as a mapping of format strings, and as a user's own function; and which settings go together."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from support.preference_rows import prepare, texts

from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.errors import RowError, SettingError

ROWS = [
    {"system": "S", "question": "Q", "good": "C", "bad": "R", "text": "T", "ok": True},
    {"system": "", "question": "Q{x}", "good": "C", "bad": "R", "text": "T", "ok": False},
    {"question": "Q", "good": "C", "bad": "R", "text": "T", "ok": False},
]


def test_pairs_by_format_strings(tmp_path):
    formats = {
        "field_prompt": "question",
        "field_chosen": "good",
        "field_rejected": "bad",
        "prompt_format": "[{system}]{prompt}\n",
        "chosen_format": "{chosen}{{end}}",
    }
    made, _ = prepare(tmp_path, ROWS, rl="ipo", type=formats)
    assert texts(made) == [("[S]Q\n", "C{end}", "R"), ("[]Q{x}\n", "C{end}", "R"), ("[]Q\n", "C{end}", "R")]


def test_rated_by_format_strings(tmp_path):
    formats = {
        "field_prompt": "question",
        "field_completion": "text",
        "field_label": "ok",
        "prompt_format": "{system}|{prompt}",
        "completion_format": "{completion}!",
    }
    made, events = prepare(tmp_path, ROWS, rl="kto", type=formats)
    assert texts(made) == [("S|Q", "T!", True), ("|Q{x}", "T!", False), ("|Q", "T!", False)]
    assert (events.summary["good_answers"], events.summary["bad_answers"]) == (1, 2)


@pytest.mark.parametrize("name", ["user_defined", "user_defined.default"])
def test_user_defined_by_name_has_the_usual_fields(name, tmp_path):
    made, _ = prepare(tmp_path, [{"prompt": "P", "chosen": "C", "rejected": "R"}], type=name)
    assert texts(made) == [("P", "C", "R")]


def own(folder: Path, body: str) -> dict[str, object]:
    """The settings for a function `mine.transform` with this body."""
    file = folder / "mine.py"
    file.write_text(body)
    return {"type": "mine.transform", "type_code": [str(file)]}


def test_a_function_of_ones_own(tmp_path):
    code = own(
        tmp_path,
        "def transform(cfg, *args, **kwargs):\n"
        "    def one(example, tokenizer=None):\n"
        "        end = tokenizer.eos_token if cfg.rl == 'dpo' else ''\n"
        "        return {'prompt': example['question'], 'chosen': example['good'] + end, 'rejected': 'never'}\n"
        "    return one, {'remove_columns': ['question', 'good']}\n",
    )
    made, _ = prepare(tmp_path, ROWS[:1], **code)
    assert texts(made) == [("Q", "C<|im_end|>", "never")]


def test_a_function_for_judged_answers_keeps_what_it_does_not_return(tmp_path):
    code = own(
        tmp_path,
        "def transform(cfg):\n    return lambda row: {'prompt': row['question'], 'completion': row['text']}\n",
    )
    made, _ = prepare(tmp_path, [{**ROWS[0], "label": 1}], rl="kto", **code)
    assert texts(made) == [("Q", "T", True)]


def test_a_function_that_makes_no_pair_or_fails(tmp_path):
    code = own(tmp_path, "def transform(cfg):\n    return lambda row: {'prompt': row['question']}\n")
    with pytest.raises(RowError, match=r"what type: mine.transform made of it: no field 'chosen'"):
        prepare(tmp_path / "a", ROWS, **code)
    code = own(tmp_path, "def transform(cfg):\n    return lambda row: 1 / 0\n")
    with pytest.raises(RowError, match=r"ZeroDivisionError: division by zero \(.*mine.py, line 2\)"):
        prepare(tmp_path / "b", ROWS, **code)
    code = own(tmp_path, "def transform(cfg):\n    return cfg['datasets']\n")
    with pytest.raises(SettingError, match=r"cfg.datasets: the stage preferences does not read this key"):
        prepare(tmp_path / "c", ROWS, **code)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "set either rl or reward_model"),
        ({"rl": "dpo", "reward_model": True}, "set either rl or reward_model"),
        (
            {"rl": "dpo", "type": "chatml.entel"},
            "chatml.entel is not a format for rl: dpo; choose one of chat_",
        ),
        ({"rl": "dpo", "type": "chat_template.argilla"}, "is not a format for rl: dpo"),
        ({"rl": "kto", "type": "chat_template.default"}, "is not a format for rl: kto"),
        ({"reward_model": True, "type": "chatml.intel"}, "is not a format for reward_model: true"),
        ({"reward_model": True}, "None is not a format for reward_model: true"),
        ({"reward_model": True, "type": "m.f", "type_code": ["/m.py"]}, "is not a format for reward_model"),
        ({"reward_model": True, "type": {}}, "have no format strings"),
        ({"rl": "dpo", "type": {"field_label": "ok"}}, "field_label is not used with rl: dpo"),
        ({"rl": "kto", "type": {"chosen_format": "x"}}, "chosen_format is not used with rl: kto"),
        ({"rl": "dpo", "type": {"prompt_format": "{question}"}}, "uses {prompt} and {system} only"),
        ({"rl": "dpo", "type": {"chosen_format": "{0}"}}, "uses {chosen} only"),
        (
            {"rl": "dpo", "type": "chatml.intel", "field_messages": "m"},
            "field_messages is not read with type",
        ),
        ({"rl": "dpo", "type": {}, "field_chosen": "m"}, "not read with type: a mapping of format strings"),
        ({"rl": "dpo", "field_system": "m"}, r"field_system is not read with type: \(unset\)"),
        ({"rl": "dpo", "type": "passthrough", "default_system_message": "m"}, "is not read with type"),
        (
            {
                "rl": "dpo",
                "type": "chat_template.default",
                "message_field_role": "from",
                "message_property_mappings": {"role": "by"},
            },
            "name two fields",
        ),
        (
            {"rl": "dpo", "type": "chat_template.default", "chat_template": "jinja"},
            "chat_template: jinja needs",
        ),
    ],
)
def test_settings_that_do_not_go_together(keys, reason):
    with pytest.raises(ValidationError, match=reason):
        PreferencesConfig(**keys)


def test_equal_answers_are_kept_and_told(tmp_path):
    rows = [{"prompt": "P", "chosen": "C", "rejected": r} for r in ("C", "R", "C")]
    made, events = prepare(tmp_path, rows)
    assert len(texts(made)) == 3
    assert events.summary["rows_with_equal_answers"] == 2
    assert "2 rows have the same text as chosen and as rejected answer" in events.logs


def test_labels_all_alike_are_told(tmp_path):
    _, events = prepare(tmp_path, [{"prompt": "P", "completion": "C", "label": True}] * 2, rl="kto")
    assert "every answer has the same label" in events.logs


def test_what_is_reported(tmp_path):
    rows = [{"prompt": "P " * 200, "chosen": "C", "rejected": "R R"}] * 4
    _, events = prepare(tmp_path, rows)
    (table,) = events.of_type("table")
    assert [row[:2] for row in table["rows"]] == [
        [number, part] for number in (1, 2, 3) for part in ("prompt", "chosen", "rejected")
    ]
    assert table["rows"][0][2] == "P " * 150 + "…"
    assert [plot["title"] for plot in events.of_type("plot")] == [
        f"Lengths of {part}" for part in ("prompt", "chosen", "rejected")
    ]
    assert events.summary["rows"] == 4
    assert sum(events.of_type("plot")[0]["y"]) == 4
