"""No suggestion lies: the real format reads a real row of every shape that keys are suggested for."""

import json

import pytest
from support.formats import FormatBench

from tunemill.stages.data.preferences.body import make_reader, with_texts
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.records import Pair, Rated
from tunemill.stages.data.rows import shapes
from tunemill.stages.data.rows.shapes import GOALS, SHAPES, Messages, completion, shapes_of
from tunemill.stages.registry import METHODS
from tunemill.stages.report import Report


@pytest.fixture(scope="module")
def bench():
    return FormatBench("chatml")


def value_of(name, kind):
    """A value of a kind, with the field's name in its text."""
    if isinstance(kind, Messages):
        role, content = kind.names
        # Either answer of a pair answers the same question.
        question = {role: "user", content: f"question in {name if kind.least < 2 else 'both'}"}
        answer = {role: "assistant", content: f"answer in {name}"}
        return [question, answer] if not kind.also_one or name in shapes.MESSAGE_FIELDS else [answer]
    return {
        shapes.is_text: f"some {name}",
        shapes.is_flag: True,
        shapes.are_flags: [True, False],
        shapes.are_texts: [f"one of {name}", f"another of {name}"],
        shapes.are_tokens: [5, 6, 7],
        shapes.are_segments: [{"text": f"in {name}", "label": False}, {"text": f"out {name}", "label": True}],
    }.get(kind, f"some {name}")


def example(shape):
    row = {name: value_of(name, kind) for name, kind in shape.fields.items()}
    assert shape.fits(row)
    return row


def texts_in(value):
    """The texts of a row's values that must come out again."""
    if isinstance(value, str):
        return {value} - {"user", "assistant"}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return {text for item in items for text in texts_in(item)}


def read(bench, shape, row, keys):
    """What the real format makes of the row, as one text."""
    if shape.goal in ("tokens", "steps"):
        chosen = bench.format(**keys)
        (sample,) = bench.encoder.encode([chosen.read(row)], chosen.ends)
        assert shape.goal == "steps" or bench.trained(sample), "there is something to learn"
        return bench.tokenizer.decode(sample.ids)
    config = PreferencesConfig(**GOALS[shape.goal].settings, **keys)
    record = with_texts(make_reader(config, bench.loaded, Report(lambda _: None))(row))
    if isinstance(record, Pair):
        return record.prompt + record.chosen + record.rejected
    return (
        record.prompt + record.completion
        if isinstance(record, Rated)
        else record.chosen.text + record.rejected.text
    )


def test_every_shape_is_read_by_its_keys(bench):
    assert len(SHAPES) > 700
    for shape in SHAPES:
        row = example(shape)
        keys = shape.keys_for([row])
        made = read(bench, shape, row, keys)
        for text in texts_in(row):
            assert text in made, (keys, text, made)


def test_every_row_of_a_known_shape_is_read_by_what_comes_first(bench):
    for shape in SHAPES:
        row = example(shape)
        first = shapes_of([row])[0]
        if first != shape:
            assert read(bench, first, row, first.keys_for([row])), (shape, first)
        assert (first.goal == "tokens") == (shape.goal == "tokens"), "pairs are not taken for texts"


def test_what_is_said_to_train_does():
    for goal in GOALS.values():
        named = goal.settings.get("rl", {"reward_model": "reward", "process_reward_model": "process_reward"})
        method = named if isinstance(named, str) else named.get(next(iter(goal.settings), ""), "sft")
        assert method in METHODS, goal


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, {"type": "alpaca"}),
        ({"instruction": "a", "output": "b", "system": "c"}, {"type": "alpaca_w_system"}),
        ({"question": "a", "answer": "b"}, {"type": "alpaca_chat.load_qa"}),
        (
            {"prompt": "a", "completion": "b"},
            {"type": {"field_instruction": "prompt", "field_output": "completion"}},
        ),
        (
            {"instruction": "a", "context": "b", "response": "c"},
            {
                "type": {
                    "field_instruction": "instruction",
                    "field_output": "response",
                    "field_input": "context",
                }
            },
        ),
        ({"text": "a", "url": "b"}, {"type": "completion"}),
        ({"Zeile": "a", "n": 1}, {"type": "completion", "field": "Zeile"}),
        ({"input_ids": [1, 2], "labels": [1, 2]}, {}),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            {"type": "chat_template.default", "field_messages": "prompt"},
        ),
        (
            {"system": "s", "question": "a", "chosen": "b", "rejected": "c"},
            {"type": "chat_template.default", "field_messages": "question", "field_system": "system"},
        ),
        (
            {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"},
            {"type": "chat_template.default", "field_messages": "prompt"},
        ),
        (
            {
                "messages": json.dumps(
                    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
                )
            },
            {"type": "chat_template"},
        ),
        (
            {"conversations": [{"speaker": "Customer", "text": "a"}, {"speaker": "Bot", "text": "b"}]},
            {
                "type": "chat_template",
                "field_messages": "conversations",
                "message_property_mappings": {"role": "speaker", "content": "text"},
                "roles": {"user": ["Customer"], "assistant": ["Bot"]},
            },
        ),
    ],
)
def test_well_known_rows(bench, row, keys):
    first = shapes_of([row])[0]
    assert first.keys_for([row]) == keys
    assert read(bench, first, row, keys)


def test_a_template_with_names_of_its_own_for_roles_is_left_alone():
    messages = [{"role": role, "content": "x"} for role in ("system", "developer", "human", "gpt", "tool")]
    (first, *_) = shapes_of([{"messages": messages}])
    assert first.keys_for([{"messages": messages}]) == {"type": "chat_template"}
    assert first.roles([{"messages": messages}]) == ["system", "developer", "human", "gpt", "tool"]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"title": "a", "summary": "b"},
        {"messages": []},
        {"messages": "hello", "n": "b"},
        {"messages": [{"a": 1}]},
        {"messages": "[not json", "n": "b"},
        {"n": 1},
    ],
)
def test_what_is_no_known_shape_is_none(row):
    assert shapes_of([row]) == []


def test_all_rows_must_fit():
    assert shapes_of([{"text": "a"}, {"instruction": "b", "output": "c"}]) == [] == shapes_of([])
    assert completion("x").fits({"x": "a"}) and not completion("x").fits({"x": 3})
