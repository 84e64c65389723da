"""Every kind of wrong value is said in our words: the rule, what was given, what may have been meant."""

import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core._pydantic_core import list_all_errors
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.schema import config_classes
from tunemill.pipelines.config.wording import CHOICES, RULES, missing, unread, words_of
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.choices import ChoiceError, nearest

PYDANTICS = re.compile(
    r"[Ii]nput should|should (be|have|match)|[Vv]alue error,|Extra inputs|Field required"
    r"|valid (string|integer|dictionary|number|boolean|list)|unable to|instance of|after validation"
    r"|NoneType|Assertion failed"
)
# Kind of schema -> the errors that it makes.
ERRORS_OF: dict[str, tuple[str, ...]] = {
    "str": ("string_type", "string_too_short", "string_too_long", "string_pattern_mismatch"),
    "bool": ("bool_type", "bool_parsing"),
    "int": ("int_type", "int_parsing", "int_from_float", "int_parsing_size", "greater_than", "greater_than_equal",
            "less_than", "less_than_equal", "multiple_of", "finite_number"),
    "float": ("float_type", "float_parsing", "finite_number", "greater_than", "greater_than_equal", "less_than",
              "less_than_equal", "multiple_of"),
    "literal": ("literal_error",),
    "enum": ("enum",),
    "list": ("list_type", "too_short", "too_long"),
    "dict": ("dict_type",),
    "tuple": ("tuple_type", "missing", "too_long"),
    "model": ("model_type", "extra_forbidden", "missing"),
    "none": ("none_required",),
    "definitions": (), "definition-ref": (),
    # A validator before it says which there are.
    "tagged-union": (),
    "any": (), "union": (), "nullable": (), "default": (), "model-field": (), "model-fields": (),
    "function-wrap": (), "function-after": (), "function-before": (), "no-info": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("words") / "project")


def kinds_of(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["type"]} if isinstance(schema.get("type"), str) else set()
        return own.union(*map(kinds_of, schema.values()))
    if isinstance(schema, list | tuple):
        return set().union(*map(kinds_of, schema))
    return set()


def test_every_error_that_our_configs_can_make_has_words_of_its_own():
    for config in config_classes():
        # Schemas are made when they are needed first.
        config.model_rebuild()
    kinds = set().union(*(kinds_of(config.__pydantic_core_schema__) for config in config_classes()))
    assert kinds <= set(ERRORS_OF), "say here which errors the new kind of schema makes"
    for error in {error for kind in kinds for error in ERRORS_OF[kind]}:
        assert error in RULES or error in CHOICES or missing(error) or unread(error), error


@pytest.mark.parametrize("error", list_all_errors(), ids=lambda error: error["type"])
def test_no_error_at_all_is_told_in_pydantics_words(error):
    context = error.get("example_context") or {}
    item = {
        "type": error["type"],
        "loc": ("x",),
        "msg": error["message_template_python"],
        "input": 7,
        "ctx": context,
    }
    said = words_of([item]).message
    assert said.startswith("must be ") and not PYDANTICS.search(said)
    assert "(given: 7)" in said


def literals(annotation: Any) -> list[Any]:
    """Texts that a field takes, each as a value with which it is filled: in a list where a list is meant."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return literals(get_args(annotation)[0])
    if origin is Literal:
        return [item for item in get_args(annotation) if isinstance(item, str)]
    if origin in (Union, types.UnionType):
        return [item for part in get_args(annotation) for item in literals(part)]
    if origin is list:
        return [[item] for item in literals(get_args(annotation)[0])]
    return []


def models(config: type[BaseModel]) -> list[type[BaseModel]]:
    found = [config]
    for field in config.model_fields.values():
        parts = [field.annotation, *get_args(field.annotation)]
        found += [
            model
            for part in parts
            if isinstance(part, type) and issubclass(part, BaseModel)
            for model in models(part)
        ]
    return found


CHOSEN = sorted(
    {
        (model.__name__, name): (model, name, field.annotation)
        for config in config_classes()
        for model in models(config)
        for name, field in model.model_fields.items()
        if literals(field.annotation)
    }.items()
)


@pytest.mark.parametrize(
    ("model", "name", "annotation"), [item for _, item in CHOSEN], ids=[".".join(key) for key, _ in CHOSEN]
)
def test_a_slip_in_any_enumerated_value_is_answered_with_the_value(model, name, annotation):
    accepted = literals(annotation)
    for value in accepted:
        text = value[0] if isinstance(value, list) else value
        if len(text) < 4:
            continue
        slip = text[0] + text[2] + text[1] + text[3:]
        slip = slip if len(text) > 5 and slip != text else f"{text}x"
        with pytest.raises(ValidationError) as caught:
            model.model_validate({name: [slip] if isinstance(value, list) else slip})
        items = [
            item for item in caught.value.errors() if item["loc"][:1] == (name,) and item["input"] == slip
        ]
        words = words_of(items)
        assert words.suggestion == text, (slip, words)
        assert f"(given: '{slip}')" in words.message and not PYDANTICS.search(words.message)


@pytest.mark.parametrize(
    ("override", "message", "suggestion"),
    [
        ("optimizer=adamw", r"must be one of \d\d values, which `tunemill schema` lists", "adamw_torch"),
        ("optimizer=xyz", r"must be one of \d\d values", None),
        ("lr_scheduler=cosin", r"must be one of \d\d values, which `tunemill schema` lists", "cosine"),
        ("chat_template=chatlm", r"one of \d\d values, which `tunemill schema` lists", "chatml"),
        ("datasets[0].type=chat_templat", "no known format", "chat_template"),
        ("adapter=lor", "must be one of lora, qlora", "lora"),
        ("bf16=ture", "must be one of auto, full, true, false", "true"),
        ("quantization.weight_dtype=int9", "must be one of int8, int4, fp8, nvfp4, mxfp4", "int8"),
        ("kernels=[rms_nrom]", "must be one of rms_norm", "rms_norm"),
        ("plugins=[ligr]", "must be one of", "liger"),
        ("attn_implementation=Flash-Attention-2", "must be one of eager", "flash_attention_2"),
        ("gradient_checkpointing=ture", "must be true or false", "true"),
        ("pipeline.evaluate=[bse]", "must be one of base", "base"),
        ("micro_batch_size=1.5", r"must be a whole number \(given: 1.5\); write 2", None),
        ("tokens=abc", r"must be a list \(given: 'abc'\); write \[abc\]", None),
        ("special_tokens.pad_token=3", r"must be text \(given: 3\); put it in quotes", None),
        ("lora_target_modules=3", r"must be a list, or text \(given: 3\)", None),
        ("quantization=3", r"must be a mapping of keys to values \(given: 3\)", None),
        ("datasets=[3]", r"must be a mapping of keys to values \(given: 3\)", None),
        ("datasets=[]", r"a list of at least 1 item \(given: \[\]\)", None),
        ("val_set_size=true", r"must be a number, not true or false \(given: true\)", None),
        ("adam_beta1=1", r"must be below 1 \(given: 1\)", None),
        ("sequence_len=0", r"must be above 0 \(given: 0\)", None),
        ("pipeline.name=a-b", "must be text of the form", None),
        ("quantization.weight_dtype=", "given: nothing, or null", None),
        ("datasets[0].roles={user: human}", r"must be a list \(given: 'human'\)", None),
        ("rl=dpoo", "must be one of dpo, ipo, simpo, ", "dpo"),
    ],
)  # fmt: skip
def test_what_a_user_reads(project, override, message, suggestion):
    with pytest.raises(ConfigError) as caught:
        load_pipeline(project.yaml, [override])
    (problem,) = [item for item in caught.value.problems if not item.is_note]
    assert re.search(message, problem.message) and problem.suggestion == suggestion
    assert not PYDANTICS.search("\n".join(caught.value.lines()))


@pytest.mark.parametrize(
    "line", ["learning_rate:", "learning_rate: null", "learning_rate: ~", "learning_rate: ''"]
)
def test_an_empty_key_is_not_called_missing(project, tmp_path, line, capsys):
    path = tmp_path / "x.yml"
    path.write_text(re.sub(r"^learning_rate: .*$", line, project.yaml.read_text(), flags=re.M))
    assert main(["check", str(path)]) == 1
    (said,) = [
        text for text in capsys.readouterr().err.splitlines() if "learning_rate: " in text and "x.yml" in text
    ]
    number = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text == line)
    assert f"{path}:{number}:" in said and "is not given" not in said
    assert (
        "has no value, or null" in said and "write `learning_rate: VALUE`" in said
    ) or "must be a number" in said


def test_a_key_that_is_not_there_is_called_so(project, tmp_path, capsys):
    path = tmp_path / "x.yml"
    path.write_text(re.sub(r"^learning_rate: .*\n", "", project.yaml.read_text(), flags=re.M))
    assert main(["check", str(path)]) == 1
    assert (
        "is required and is not given (peak learning rate); add `learning_rate: VALUE`"
        in capsys.readouterr().err
    )


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path, capsys):
    path = tmp_path / "x.yml"
    path.write_text(
        "base_model:\nrl: dpoo\noptimizer: adamw\nlearning_rate: .nan\nlearnin_rate: 3\nsequence_len: -5\n"
        "datasets:\n  - path: rows.jsonl\n    typ: alpaca\nlora_r: !!mine 3\nadapter: lora\nseed: 3\nseed: 4\n"
    )
    assert main(["check", str(path), "--micro_batch_size=x"]) == 1
    said = capsys.readouterr().err
    places = [int(number) for number in re.findall(rf"^{re.escape(str(path))}:(\d+):", said, re.M)]
    assert places == sorted(places) and {1, 2, 3, 4, 5, 6, 8, 9, 10, 13} <= set(places)
    assert said.rindex("in the override") > said.rindex(f"{path}:13:")
    # What could not be read is not also said to be missing.
    assert len(re.findall(r"learning_rate: ", said)) == len(re.findall(r"learning_rate: \.nan", said))


def test_a_mapping_that_is_wrong_in_itself_is_not_also_said_to_be_no_text(project):
    with pytest.raises(ConfigError) as caught:
        load_pipeline(project.yaml, ["datasets[0].type={format: '{instruction} {foo}'}"])
    assert "is not a format string that uses {instruction} and {input} only" in str(caught.value)
    assert "must be text" not in str(caught.value)


def test_what_is_near_is_found_whatever_its_case_and_dashes():
    assert nearest("Flash-Attention 2", ["sdpa", "flash_attention_2"]) == ["flash_attention_2"]
    assert nearest("Alpaca", ["alpaca_chat", "alpaca"]) == ["alpaca"]
    assert nearest("xyz", ["sdpa", "eager"]) == []
    many = [f"value_{number}" for number in range(40)]
    assert "which `tunemill schema` lists" in str(ChoiceError("valu_3", many)) and "value_3" in str(
        ChoiceError("valu_3", many)
    )


def test_the_schema_lists_the_values_to_which_messages_send_people():
    adapter = next(c for c in config_classes() if c.__name__ == "TokenizerConfig").model_fields[
        "chat_template"
    ]
    assert "chatml" in str(TypeAdapter(adapter.annotation).json_schema())
