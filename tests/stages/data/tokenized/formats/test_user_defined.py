"""`type:` as a mapping."""

import pytest
from pydantic import ValidationError
from support.formats import FormatBench

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.tokenized.config import TokenizedConfig


@pytest.fixture(scope="module")
def bench():
    return FormatBench("chatml")


def prompt(bench, row, **mapping):
    return bench.format(type=mapping).read({"output": "", **row})[0].text


def test_defaults_are_the_documented_ones(bench):
    assert prompt(bench, {"instruction": "Add", "input": "1"}) == "Add 1 "
    assert prompt(bench, {"instruction": "Add", "system": "Be."}) == "Be.Add "
    # The format of rows without input has a default of its own, also beside a format.
    assert prompt(bench, {"instruction": "Add"}, format="[{instruction}|{input}]") == "Add "
    assert prompt(bench, {"instruction": "Add", "input": "1"}, format="[{instruction}|{input}]") == "[Add|1]"


def test_system_texts(bench):
    mapping = {"system_prompt": "Default.", "system_format": "<{system}>", "field_system": "persona"}
    assert prompt(bench, {"instruction": "Add"}, **mapping) == "<Default.>Add "
    assert prompt(bench, {"instruction": "Add", "persona": "Own."}, **mapping) == "<Own.>Add "
    assert prompt(bench, {"instruction": "Add", "persona": ""}, **mapping) == "Add "
    assert prompt(bench, {"instruction": "Add"}, **{**mapping, "system_format": ""}) == "Add "


def test_the_answer_is_trained_and_ends(bench):
    (sample,) = bench.samples([{"q": "Why?", "a": 7}], type={"field_instruction": "q", "field_output": "a"})
    answer = [*bench.ids("7"), bench.tokenizer.eos_token_id]
    assert sample.ids == [*bench.ids("Why? "), *answer]
    assert bench.trained(sample) == answer


def test_an_empty_prompt(bench):
    rows = [{"instruction": "Why?", "output": "So."}]
    (sample,) = bench.samples(rows, type={"no_input_format": ""})
    assert bench.trained(sample) == sample.ids == [*bench.ids("So."), bench.tokenizer.eos_token_id]


def test_bad_rows(bench):
    with pytest.raises(BadRowError, match=r"no field 'q'; the row has \['instruction', 'output'\]"):
        prompt(bench, {"instruction": "Add"}, field_instruction="q")
    with pytest.raises(BadRowError, match="field 'system' is not text"):
        prompt(bench, {"instruction": "Add", "system": {"a": 1}})


@pytest.mark.parametrize(
    "mapping",
    [
        {"format": "{question}"},
        {"no_input_format": "{instruction} {input}"},
        {"system_format": "{"},
        {"format": "{}"},
        {"field_question": "q"},
    ],
)
def test_bad_mappings(mapping):
    with pytest.raises(ValidationError, match=next(iter(mapping))):
        TokenizedConfig(type=mapping)
