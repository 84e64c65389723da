"""Preference and reward rows equal those that Axolotl 0.19.0 prepared, exactly."""

import json
from pathlib import Path

import pytest
from support.preference_rows import TOKENIZERS, write_raw
from support.rows import files_of, run_stage
from transformers import AutoTokenizer

from tunemill.stages.data.preference_data.config import PreferenceDataConfig
from tunemill.stages.data.preference_data.export_body import export_table
from tunemill.stages.data.preference_data.stage import PREFERENCE_DATA
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.stage import PREFERENCES
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER

GOLDEN = Path(__file__).parents[3] / "golden" / "preferences"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))


# Rows of which Axolotl loses the white space that an answer begins with: one token reaches into it from the prompt.
LOST = {"bradley_terry_chat": (2, 4), "bradley_terry_chat_short": (3, 5)}


def with_all_characters(expected, row, tokenizer):
    """A row that Axolotl prepared, with the tokens of its whole conversations instead of theirs."""
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    found = dict(expected)
    for side in ("chosen", "rejected"):
        texts = {"system": row["system"], "user": row["input"], "assistant": row[side]}
        turns = [{"role": role, "content": text} for role, text in texts.items() if text]
        ids = loaded.apply_chat_template(turns, tokenize=True, return_dict=False)
        found[f"{side}_ids"] = ids[: len(expected[f"{side}_ids"])]
    assert found != expected, "there is something to mend"
    return found


def test_there_are_cases():
    assert len(CASES) >= 11


@pytest.mark.parametrize("name", CASES)
def test_golden(name, tmp_path):
    case = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    config = TokenizerConfig(base_model=str(TOKENIZERS / case["tokenizer_folder"]), **case["tokenizer"])
    tokenizer, _ = run_stage(TOKENIZER, config, tmp_path / "t", upstream=None)
    raw = write_raw(tmp_path / "raw", case["rows"])
    config = PreferencesConfig(**case["preferences"])
    made, said = run_stage(PREFERENCES, config, tmp_path / "p", dataset=raw, tokenizer=tokenizer)
    assert said.summary["engine"] == "gigatoken"
    slow = config.model_copy(update={"tokenizer_engine": "tokenizers"})
    alike, said = run_stage(PREFERENCES, slow, tmp_path / "s", dataset=raw, tokenizer=tokenizer)
    assert said.summary["engine"] == "tokenizers"
    assert files_of(alike) == files_of(made)
    config = PreferenceDataConfig(shuffle_merged_datasets=False, **case["preference_data"])
    prepared, _ = run_stage(PREFERENCE_DATA, config, tmp_path / "q", tokenized=[made])

    rows = export_table(prepared.rows).to_pylist()
    columns = list(case["expected"][0])
    expected = [
        with_all_characters(row, given, tokenizer.path) if number in LOST.get(name, ()) else row
        for number, (row, given) in enumerate(zip(case["expected"], case["rows"], strict=False))
    ]
    assert [{name: row[name] for name in columns} for row in rows] == expected
    for row in rows:
        for side in ("chosen", "rejected"):
            if f"{side}_ids" in row:
                assert row[f"attention_mask_{side}"] == [1] * len(row[f"{side}_ids"])
