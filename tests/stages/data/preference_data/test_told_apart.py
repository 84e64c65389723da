"""Pairs that teach nothing: equal answers, and answers that say nothing, as far as they fit. They are left out."""

import pytest
from support.preference_rows import TOKENIZERS, prepare
from support.rows import read_arrow, run_stage

from tunemill.stages.artifacts import PreferenceData
from tunemill.stages.data.preference_data.config import PreferenceDataConfig
from tunemill.stages.data.preference_data.stage import PREFERENCE_DATA
from tunemill.stages.data.preference_data.trace_body import trace
from tunemill.stages.errors import RowError

GOOD = {"prompt": "Q", "question": "Q", "input": "Q", "chosen": "yes", "rejected": "no"}
JUDGED = {"prompt": "Q", "question": "Q", "completion": "yes", "label": True}
ALIKE = "so it goes and so it goes on "
FIGURES = ("rows", "dropped_equal_answers", "dropped_empty_answers", "dropped_too_long")


def put_together(folder, rows, tokenizer="chatml", keys=None, **data_keys):
    """Both stages: what is left, and the figures of rows, equal, empty and too long ones."""
    made, first = prepare(folder, rows, tokenizer, **(keys or {}))
    config = PreferenceDataConfig(shuffle_merged_datasets=False, **data_keys)
    data, events = run_stage(PREFERENCE_DATA, config, folder / "data", tokenized=[made])
    return read_arrow(data.rows), tuple(events.summary[name] for name in FIGURES), (made, config, first)


WORDINGS = {
    "passthrough": {},
    "chatml.intel": {},
    "llama3.intel": {},
    "user_defined": {"type": {"chosen_format": "{chosen}</s>", "rejected_format": "{rejected}</s>"}},
    "chat_template": {"type": "chat_template.default", "field_messages": "prompt"},
    "chat_template.qwen3": {
        "type": "chat_template.default",
        "field_messages": "prompt",
        "chat_template": "qwen3",
    },
    "orpo": {"rl": "orpo", "type": "chat_template.default", "field_messages": "prompt"},
    "bradley_terry.llama3": {"reward_model": True},
    "bradley_terry.chat_template": {"reward_model": True},
}


@pytest.mark.parametrize("name", WORDINGS)
def test_equal_and_empty_answers(name, tmp_path):
    rows = [
        GOOD,
        {**GOOD, "rejected": "yes"},
        {**GOOD, "chosen": " \n"},
        {**GOOD, "rejected": "<|im_end|>"},
        {**GOOD, "rejected": "</s> <|eot_id|>\n"},
        {**GOOD, "chosen": "\t", "rejected": " "},
    ]
    left, figures, (made, config, first) = put_together(tmp_path, rows, keys={"type": name, **WORDINGS[name]})
    assert figures == (1, 1, 4, 0) and len(left) == 1
    assert first.summary["rows_with_equal_answers"] >= 1 and first.summary["rows_with_empty_answers"] == 4
    assert not {"same_tokens", "chosen_quiet", "rejected_quiet"} & set(left[0])
    assert [at.row for at in trace(config, PreferenceData(tmp_path / "data"), [0], [made])] == [0]


@pytest.mark.parametrize("name", ["passthrough", "chatml.intel", "llama3.prompt_pairs", "user_defined"])
def test_judged_answers_that_say_nothing(name, tmp_path):
    rows = [JUDGED, {**JUDGED, "completion": " "}, {**JUDGED, "completion": "<|im_end|>", "label": False}]
    if name != "passthrough":
        rows.append({**JUDGED, "completion": ""})
    keys = {"rl": "kto", "type": name}
    if name == "user_defined":
        keys["type"] = {"completion_format": "{completion}<|im_end|>"}
    left, figures, _ = put_together(tmp_path, rows, keys=keys)
    assert figures == (1, 0, len(rows) - 1, 0) and len(left) == 1


def test_answers_of_white_space_that_the_template_trims_are_equal(tmp_path):
    row = {"messages": "Q", "chosen": "yes \n", "rejected": " yes"}
    keys = {"type": "chat_template.default", "chat_template": "llama3"}
    _, figures, _ = put_together(tmp_path, [{**row, "rejected": "no"}, row], keys=keys)
    assert figures[:3] == (1, 1, 0)


def test_answers_that_are_the_same_tokens_are_equal(tmp_path):
    # The normalizer of this tokenizer makes one form of what Unicode writes in two.
    row = {"prompt": "Q", "chosen": "caf\u00e9", "rejected": "cafe\u0301"}
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(TOKENIZERS / "chatml")
    from tokenizers.normalizers import NFC

    loaded.backend_tokenizer.normalizer = NFC()
    loaded.save_pretrained(tmp_path / "nfc")
    _, figures, _ = put_together(tmp_path / "rows", [GOOD, row], tmp_path / "nfc")
    assert figures[:3] == (1, 1, 0)


@pytest.mark.parametrize(
    "name", ["passthrough", "chatml.intel", "chat_template", "orpo", "bradley_terry.chat_template"]
)
def test_a_common_beginning_that_is_all_that_fits(name, tmp_path):
    long = {**GOOD, "chosen": ALIKE * 9 + "yes", "rejected": ALIKE * 9 + "no"}
    keys = {"type": name, **WORDINGS[name]}
    limits = {"sequence_len": 40, "excess_length_strategy": "truncate"}
    left, figures, _ = put_together(tmp_path / "some", [GOOD, long], keys=keys, **limits)
    assert figures == (1, 1, 0, 0) and len(left) == 1
    _, figures, _ = put_together(tmp_path / "all", [GOOD, long], keys=keys, sequence_len=1000)
    assert figures == (2, 0, 0, 0)
    with pytest.raises(RowError, match="of 1 rows 1 have equal answers and 0 an answer that says nothing"):
        put_together(tmp_path / "none", [long], keys=keys, **limits)


def test_answers_of_which_only_what_says_nothing_is_left(tmp_path):
    thinking = {"type": "chat_template.default", "chat_template": "qwen3", "field_messages": "prompt"}
    made, _ = prepare(tmp_path / "measure", [GOOD], **thinking)
    (row,) = read_arrow(made.rows)
    assert row["chosen_quiet"] > 2, "the empty thought"
    for more, figures in ((0, (0, 1)), (1, (1, 0))):
        limits = {
            "sequence_len": row["prompt_tokens"] + row["chosen_quiet"] + more,
            "excess_length_strategy": "truncate",
        }
        rows = [GOOD, {**GOOD, "prompt": "long " * 50}]
        if not more:
            with pytest.raises(
                RowError, match=r"0 have equal answers and 1 an answer that says nothing.*1 are longer"
            ):
                put_together(tmp_path / str(more), rows, keys=thinking, **limits)
            continue
        _, found, _ = put_together(tmp_path / str(more), rows, keys=thinking, **limits)
        assert (found[0], found[2]) == figures
    # A character whose bytes do not all fit is left out, and then nothing is left.
    rows = [{"prompt": "Q", "chosen": "🙂 a", "rejected": "🙃 b"}]
    made, _ = prepare(tmp_path / "smile", rows)
    (row,) = read_arrow(made.rows)
    bytes_of_it = row["chosen_quiet"] + 1
    assert bytes_of_it > 1
    for kept in range(1, bytes_of_it + 1):
        limits = {"sequence_len": row["prompt_tokens"] + kept, "excess_length_strategy": "truncate"}
        if kept < bytes_of_it:
            with pytest.raises(RowError, match="1 an answer that says nothing"):
                put_together(tmp_path / f"smile{kept}", rows, **limits)
        else:
            put_together(tmp_path / f"smile{kept}", rows, **limits)


def test_a_character_cut_in_half_does_not_tell_answers_apart(tmp_path):
    rows = [{"prompt": "Q", "chosen": "a🙂", "rejected": "a🙃"}]
    made, _ = prepare(tmp_path / "measure", rows)
    (row,) = read_arrow(made.rows)
    for kept in range(1, len(row["chosen_ends"])):
        limits = {"sequence_len": row["prompt_tokens"] + kept, "excess_length_strategy": "truncate"}
        with pytest.raises(RowError, match="1 have equal answers"):
            put_together(tmp_path / str(kept), rows, **limits)


def test_a_reward_models_prompt_that_fills_everything_leaves_no_answer(tmp_path):
    rows = [{**GOOD, "input": "long " * 60}]
    keys = {"reward_model": True, "type": "bradley_terry.chat_template"}
    with pytest.raises(RowError, match="0 have equal answers and 1 an answer that says nothing"):
        put_together(tmp_path, rows, keys=keys, sequence_len=30)


def test_other_special_tokens_are_answers(tmp_path):
    rows = [{"prompt": "Q", "chosen": "<|reserved_special_token_0|>", "rejected": "<|start_header_id|>"}]
    _, figures, _ = put_together(tmp_path, rows, "llama3")
    assert figures == (1, 0, 0, 0)


def test_the_end_of_turn_of_a_template_of_ones_own_says_nothing(tmp_path):
    own = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[over]\n{% endfor %}"
    row = {"messages": "Q", "chosen": "yes", "rejected": "no"}
    rows = [
        row,
        {**row, "rejected": "[over]\n"},
        {**row, "rejected": "[over][over]"},
        {**row, "rejected": "over"},
    ]
    keys = {"type": "chat_template.default", "chat_template_jinja": own}
    _, figures, _ = put_together(tmp_path, rows, keys=keys)
    assert figures[:3] == (2, 0, 2)
