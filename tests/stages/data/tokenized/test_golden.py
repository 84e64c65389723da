"""Token ids and labels equal those that Axolotl 0.19.0 prepared, exactly, but for what is listed as trained beyond."""

import json
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest
from support.rows import files_of, read_arrow, run_stage, write_lines
from transformers import AutoTokenizer

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.stage import TOKENIZED
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.data.training_data.stage import TRAINING_DATA

GOLDEN = Path(__file__).parents[3] / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "cases").glob("*.json"))
EMPTY, SPACE = "<think>\n\n</think>\n\n", ""
# What a model has to write between the generation prompt and an answer, which Axolotl masks: text -> how often. The
# empty text is the token of the space that Mistral's templates put before an answer, which is decoded as nothing.
TRAINED_BEYOND = {
    "tmpl_mistral_v1": {SPACE: 6},
    "tmpl_mistral_v1_sys": {SPACE: 4},
    "tmpl_mistral_v2v3": {SPACE: 6},
    "tmpl_mistral_v2v3_sys": {SPACE: 2},
    "tmpl_qwen3": {EMPTY: 4},
    "tmpl_qwen3_5": {"\n</think>\n\n": 4},
    "tmpl_qwen3_reasoning": {EMPTY: 2, "<think>\n": 2},
    "tmpl_qwen3_think_nosplit": {EMPTY: 2, "<think>\n": 2},
    "tmpl_qwen3_tools": {EMPTY: 4},
}


def trained_ranges(labels):
    """[[start, end], ...] of the labels that are not masked."""
    ranges = []
    for trained, run in groupby(enumerate(labels), key=lambda item: item[1] != -100):
        positions = [position for position, _ in run]
        if trained:
            ranges.append([positions[0], positions[-1] + 1])
    return ranges


def trained(ranges):
    """The positions of the trained tokens."""
    return {position for start, end in ranges for position in range(start, end)}


def texts(tokenizer, ids, positions):
    """The texts of the tokens at some positions, those in a row as one."""
    numbered = groupby(enumerate(sorted(positions)), key=lambda item: item[1] - item[0])
    return Counter(tokenizer.decode([ids[position] for _, position in run]) for _, run in numbered)


def test_there_are_cases():
    assert len(CASES) >= 30
    assert set(CASES) >= set(TRAINED_BEYOND)


@pytest.mark.parametrize("name", CASES)
def test_golden(name, tmp_path):
    case = json.loads((GOLDEN / "cases" / f"{name}.json").read_text(encoding="utf-8"))
    base_model = str(GOLDEN / "tokenizers" / case["tokenizer_folder"])
    source = write_lines(tmp_path / "rows.jsonl", case["rows"])

    tokenizer, _ = run_stage(
        TOKENIZER, TokenizerConfig(base_model=base_model, **case["tokenizer"]), tmp_path / "t", upstream=None
    )
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source), **case["dataset"]), tmp_path / "d")
    tokenized, said = run_stage(
        TOKENIZED, TokenizedConfig(**case["tokenized"]), tmp_path / "r", dataset=dataset, tokenizer=tokenizer
    )
    assert said.summary["engine"] == "gigatoken"
    slow = TokenizedConfig(**case["tokenized"], tokenizer_engine="tokenizers")
    alike, said = run_stage(TOKENIZED, slow, tmp_path / "s", dataset=dataset, tokenizer=tokenizer)
    assert said.summary["engine"] == "tokenizers"
    assert files_of(alike) == files_of(tokenized)
    config = TrainingDataConfig(shuffle_merged_datasets=False, **case["training_data"])
    prepared, _ = run_stage(TRAINING_DATA, config, tmp_path / "p", tokenized=[tokenized])

    rows = read_arrow(prepared.rows)
    assert [row["input_ids"] for row in rows] == [row["input_ids"] for row in case["expected"]]
    ranges = [trained_ranges(row["labels"]) for row in rows]
    expected = [row["trained"] for row in case["expected"]]
    if name in TRAINED_BEYOND:
        words, found = AutoTokenizer.from_pretrained(tokenizer.path, local_files_only=True), Counter()
        for row, own, given in zip(rows, map(trained, ranges), map(trained, expected), strict=True):
            assert own >= given
            found += texts(words, row["input_ids"], own - given)
        assert found == TRAINED_BEYOND[name]
    else:
        assert ranges == expected
    for row in rows:
        assert all(
            label in (-100, token) for token, label in zip(row["input_ids"], row["labels"], strict=True)
        )
