"""Tools and tool calls: empty ones, nulls, and JSON stored as text that loses nothing unseen."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.rows import read_arrow, run_stage
from support.words import read_words, talk
from transformers import AutoTokenizer

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.stage import TOKENIZED

TEMPLATE = (
    "{% if tools %}tools {{ tools | tojson }} {% endif %}{% for m in messages %}<{{ m.role }}> {{ m.content }}"
    "{% for c in m.tool_calls or [] %} call {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    " </s>\n{% endfor %}"
)
# As most templates that take both: with a `function` around the name, and without.
BARE = TEMPLATE.replace("c.function.", "(c.function or c).")
NULLS = {"x": None, "y": {"z": None}, "w": [None, 1]}
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"properties": {"u": {"default": None, "enum": [None, "a"]}}},
    },
}
NOTHING = ["", "  \n", None, [], "null", "[]", " [] "]


def row_of(arguments, **more):
    function = {"name": "f"} if arguments is ... else {"name": "f", "arguments": arguments}
    answer = {"role": "assistant", "content": "b", "tool_calls": [{"function": function}]}
    return {**talk("user: a", answer), **more}


def text(row):
    return read_words(row, TEMPLATE)[0].text


def written(arguments):
    return text(row_of(arguments)).partition(" call f ")[2].partition(" </s>")[0]


@pytest.mark.parametrize("empty", [*NOTHING, {}, "{}", ...])
def test_empty_arguments_are_none(empty):
    assert written(empty) == "{}"


@pytest.mark.parametrize("arguments", [*NOTHING, {}, NULLS, json.dumps(NULLS)])
def test_calls_without_a_function_around_them_are_read_alike(arguments):
    call = {"name": "f", "arguments": arguments}
    one, other = (
        read_words(talk("user: a", {"role": "assistant", "content": "b", "tool_calls": [item]}), BARE)[0].text
        for item in (call, {"function": call})
    )
    assert one == other
    assert "{}" in one or "null" in one


@pytest.mark.parametrize("empty", [*NOTHING, {}, ...])
@pytest.mark.parametrize("parameters", [*NOTHING, {}, NULLS, json.dumps(NULLS)])
def test_parameters_of_calls_are_their_arguments(parameters, empty):
    given = {"name": "f", "parameters": parameters, **({} if empty is ... else {"arguments": empty})}
    usual = {"name": "f", "arguments": parameters}
    for wrap in (lambda function: function, lambda function: {"function": function}):
        one, other = (
            read_words(
                talk("user: a", {"role": "assistant", "content": "b", "tool_calls": [wrap(function)]}), BARE
            )[0].text
            for function in (given, usual)
        )
        assert one == other
    assert ("null" in one) is (parameters in (NULLS, json.dumps(NULLS)))
    both = {"function": {"name": "f", "arguments": {"x": 1}, "parameters": NULLS}}
    said = text(talk("user: a", {"role": "assistant", "content": "b", "tool_calls": [both]}))
    assert 'call f {"x": 1} </s>' in said


@pytest.mark.parametrize("empty", NOTHING)
def test_empty_tools_and_calls_are_none(empty):
    plain = talk("user: a", "assistant: b")
    assert text({**plain, "tools": empty}) == text(plain)
    assert text(talk("user: a", {"role": "assistant", "content": "b", "tool_calls": empty})) == text(plain)


@pytest.mark.parametrize("empty", ["", " ", "null", "{}"])
def test_empty_parameters_are_none(empty):
    tool = {"function": {"name": "f", "parameters": empty}}
    assert 'tools [{"function": {"name": "f", "parameters": {}}}]' in text(
        {**talk("user: a", "assistant: b"), "tools": [tool]}
    )


@pytest.mark.parametrize(("given", "read"), [("", "{}"), ("null", "{}"), ('{"d": null}', '{"d": null}')])
def test_tools_without_a_function_around_them_are_read_alike(given, read):
    tool = {"name": "f", "parameters": given}
    expected = f'tools [{{"name": "f", "parameters": {read}}}]'
    assert expected in text({**talk("user: a", "assistant: b"), "tools": [tool]})


@pytest.mark.parametrize("arguments", [NULLS, {"n": 2**80}, {"n": -(10**30)}, {"n": 0.1}, {"é": "\n"}])
def test_arguments_are_written_as_they_were_in_both_spellings(arguments):
    spelled = json.dumps(arguments, ensure_ascii=False)
    assert written(arguments) == written(spelled) == written(f" {spelled}\n") == spelled


@pytest.mark.parametrize("arguments", [[1], 5, 0, True, False, 0.5])
def test_arguments_that_are_no_object_are_the_template_s_business(arguments):
    assert written(arguments) == written(json.dumps(arguments)) == json.dumps(arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"x": 1e400}', "should be JSON: 1e400 is larger than a number can be"),
        ('{"x": -1e999}', "should be JSON: -1e999 is larger"),
        ('{"x": NaN}', "should be JSON: NaN is not a JSON value"),
        ('{"x": -Infinity}', "should be JSON: -Infinity is not a JSON value"),
        ('{"x": {"k": 1, "k": 2}}', "should be JSON: the key 'k' stands twice in one object"),
        ('{"x": 1, "x": 1}', "should be JSON: the key 'x' stands twice"),
        (r'{"x": "\ud83d"}', "should be JSON: a string holds half a surrogate pair"),
        ("[" * 100_000, "should be JSON: arrays and objects lie in one another more than 256"),
        ('{"x": 1' + "0" * 5000 + "}", "should be JSON: .* has 5001 digits"),
        ('{"x": 1', "should be JSON: Expecting"),
        ("Paris", "should be JSON: Expecting value"),
        ("{'x': 1}", "should be JSON: Expecting property name"),
        ('{"x": 1} {}', "should be JSON: Extra data"),
    ],
)
def test_arguments_that_cannot_be_kept_make_a_bad_row(arguments, reason):
    with pytest.raises(BadRowError, match=f"message 2: the arguments of tool call 1:? {reason}"):
        text(row_of(arguments))


def test_calls_and_tools_in_every_spelling_are_the_same():
    calls = row_of(NULLS)["messages"][1]["tool_calls"]
    spellings = [
        (calls, [TOOL]),
        (json.dumps(calls), json.dumps([TOOL])),
        ([json.dumps(call) for call in calls], [json.dumps(TOOL)]),
        (row_of(json.dumps(NULLS))["messages"][1]["tool_calls"], [TOOL]),
        (
            [{**call, "function": json.dumps({**call["function"], "id": None})} for call in calls],
            [{**TOOL, "function": f" {json.dumps({**TOOL['function'], 'strict': None})}\n"}],
        ),
        (
            [{"function": json.dumps({"name": "f", "arguments": json.dumps(NULLS)})}],
            [
                {
                    **TOOL,
                    "function": json.dumps(
                        {"name": "f", "parameters": json.dumps(TOOL["function"]["parameters"])}
                    ),
                }
            ],
        ),
    ]
    answers = [{"role": "assistant", "content": "b", "tool_calls": calls} for calls, _ in spellings]
    rows = [
        {**talk("user: a", answer), "tools": tools}
        for answer, (_, tools) in zip(answers, spellings, strict=True)
    ]
    rows.append({**rows[0], "messages": json.dumps(rows[0]["messages"])})
    texts = {text(row) for row in rows}
    assert len(texts) == 1
    assert json.dumps(NULLS) in min(texts) and json.dumps([TOOL]) in min(texts)


@pytest.mark.parametrize("given", [None, 3, [], "3", "null", '"f"'])
def test_calls_and_tools_that_are_no_objects_make_a_bad_row(given):
    calls = [row_of({})["messages"][1]["tool_calls"][0], given]
    with pytest.raises(BadRowError, match=r"message 2: tool call 2 is not an object: (None|3|\[\]|'f')$"):
        text(talk("user: a", {"role": "assistant", "content": "b", "tool_calls": calls}))
    with pytest.raises(BadRowError, match=r"field 'tools': tool 2 is not an object: (None|3|\[\]|'f')$"):
        text({**talk("user: a", "assistant: b"), "tools": [TOOL, given]})


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (3, "is not an object: 3"),
        ([], r"is not an object: \[\]"),
        ('{"name": "f"', "should be JSON: Expecting"),
        ('{"name": "f", "name": "g"}', "should be JSON: the key 'name' stands twice"),
    ],
)
def test_functions_that_are_no_objects_make_a_bad_row(function, reason):
    call = {"type": "function", "function": function}
    with pytest.raises(BadRowError, match=f"message 2: the function of tool call 1:? {reason}"):
        text(talk("user: a", {"role": "assistant", "content": "b", "tool_calls": [call]}))
    with pytest.raises(BadRowError, match=f"field 'tools': tool 1: its function:? {reason}"):
        text({**talk("user: a", "assistant: b"), "tools": [call]})


def test_a_function_that_is_a_mere_name_is_the_template_s_business():
    template = TEMPLATE.replace("c.function.name", "c.function").replace("c.function.arg", "c.arg")
    call = {"function": "f", "arguments": {"x": 1}}
    row = talk("user: a", {"role": "assistant", "content": "b", "tool_calls": [call]})
    assert ' call f {"x": 1} </s>' in read_words({**row, "tools": [call]}, template)[0].text


def through_the_stages(tmp_path, tokenizer, source, **settings):
    folder = tmp_path / source.name.replace(".", "_")
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), folder / "dataset")
    config = TokenizedConfig(
        type="chat_template", chat_template="jinja", chat_template_jinja=TEMPLATE, **settings
    )
    made, _ = run_stage(TOKENIZED, config, folder / "tokenized", dataset=dataset, tokenizer=tokenizer)
    words = AutoTokenizer.from_pretrained(tokenizer.path)
    return [words.decode(row["input_ids"]) for row in read_arrow(made.rows)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize("field", ["tools", "defs"])
def test_json_rows_keep_the_nulls_that_were_written(tmp_path, tokenizer, name, field):
    row, source = row_of(NULLS), tmp_path / name
    row["messages"][0]["reasoning_content"] = None
    # Tools differ by row, and some rows have none. Nulls beside the parameters are no fields.
    more = {**TOOL, "id": None, "function": {**TOOL["function"], "strict": None}}
    rows = [row | {field: [more]}, row, row | {field: ""}, row | {field: json.dumps([more])}]
    lines = [json.dumps(row) for row in rows]
    source.write_text("\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]")
    first, second, third, fourth = through_the_stages(tmp_path, tokenizer, source, field_tools=field)
    assert f"tools {json.dumps([TOOL])} <user>" in first and first == fourth
    assert "tools" not in second and second == third
    assert f"call f {json.dumps(NULLS)} </s>" in second


def test_columns_fill_in_nulls_and_those_are_no_arguments(tmp_path, tokenizer):
    rows = [row_of({"x": 1}), row_of({"y": {"a": "b"}}), row_of({"y": {"c": [None, 2]}})]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    assert "'y': None" in str(pq.read_table(tmp_path / "rows.parquet").to_pylist()[0])
    for name in ("rows.parquet", "rows.arrow"):
        found = through_the_stages(tmp_path, tokenizer, tmp_path / name)
        expected = ['{"x": 1}', '{"y": {"a": "b"}}', '{"y": {"c": [null, 2]}}']
        assert [line.partition(" call f ")[2].partition(" </s>")[0] for line in found] == expected


def test_functions_that_a_column_holds_as_text(tmp_path, tokenizer):
    call = {"type": "function", "function": json.dumps({"name": "f", "arguments": NULLS})}
    tool = {**TOOL, "function": json.dumps(TOOL["function"])}
    answer = {"role": "assistant", "content": "b", "tool_calls": [call]}
    rows = [{**talk("user: a", answer), "tools": [tool]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "functions.parquet")
    (found,) = through_the_stages(tmp_path, tokenizer, tmp_path / "functions.parquet")
    assert f"tools {json.dumps([TOOL])} <user>" in found and f"call f {json.dumps(NULLS)} </s>" in found


def test_texts_and_maps_in_columns_keep_their_nulls(tmp_path, tokenizer):
    rows = [row_of(json.dumps(NULLS)), row_of('{"q": null}')]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "texts.parquet")
    found = through_the_stages(tmp_path, tokenizer, tmp_path / "texts.parquet")
    assert json.dumps(NULLS) in found[0] and '{"q": null}' in found[1]
    function = pa.struct([("name", pa.string()), ("arguments", pa.map_(pa.string(), pa.int64()))])
    message = pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            ("tool_calls", pa.list_(pa.struct([("function", function)]))),
        ]
    )
    schema = pa.schema([("messages", pa.list_(message))])
    pq.write_table(pa.Table.from_pylist([row_of({"x": None, "y": 1})], schema), tmp_path / "maps.parquet")
    (found,) = through_the_stages(tmp_path, tokenizer, tmp_path / "maps.parquet")
    assert 'call f {"x": null, "y": 1}' in found
