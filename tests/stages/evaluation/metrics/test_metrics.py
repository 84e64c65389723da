"""Each metric of generated answers, by answers whose value is known."""

import importlib.util
import json
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from tunemill.stages.evaluation.answered import Answered, read_answered, write_answered
from tunemill.stages.evaluation.metrics.json_schema import JsonSchema
from tunemill.stages.evaluation.metrics.keys import NAMES, AnyMetric
from tunemill.stages.evaluation.metrics.normalized_match import normalized
from tunemill.stages.evaluation.metrics.numeric import last_number
from tunemill.stages.evaluation.metrics.table import METRICS


def answered(prediction="", reference="", **more):
    given = {
        "row": 0,
        "id": "0",
        "prompt": "?",
        "prompt_ids": [1],
        "reference_ids": [2],
        "answer_ids": [2, 3],
    }
    return Answered(
        **{**given, "prediction": prediction, "reference": reference, "stops": True, "finish_reason": "stop", **more}
    )  # fmt: skip


def value(metric, prediction, reference="", **more):
    settings = TypeAdapter(AnyMetric).validate_python(metric)
    return METRICS[settings.metric].score(settings, answered(prediction, reference, **more))


@pytest.mark.parametrize(
    "metric, prediction, reference, expected",
    [
        ("exact_match", "Paris", "Paris", True),
        ("exact_match", "Paris ", "Paris", False),
        ("normalized_match", "The  Paris.", "paris", True),
        ("normalized_match", "3.5", "35", False),
        ({"metric": "regex", "pattern": r"^\d{4}-\d\d$"}, "1998-03", "", True),
        ({"metric": "regex", "pattern": r"^\d{4}-\d\d$"}, "in 1998-03", "", False),
        (
            {"metric": "regex", "pattern": r"#### (\d+)", "as_reference": True},
            "#### 1\n#### 7",
            "so #### 7",
            True,
        ),
        ({"metric": "regex", "pattern": r"#### (\d+)", "as_reference": True}, "7", "so #### 7", False),
        ({"metric": "regex", "pattern": r"#### (\d+)", "as_reference": True}, "#### 7", "none", None),
        ("contains", "It is Paris, surely", "Paris", True),
        ("contains", "It is paris", "Paris", False),
        ({"metric": "contains", "ignore_case": True}, "It is paris", "Paris", True),
        ({"metric": "contains", "text": "sorry"}, "Paris", "Paris", False),
        ("numeric", "5 apples and 1,234.50 pears", "1234.5", True),
        ("numeric", "I do not know", "7", False),
        ("numeric", "7", "seven", None),
        ({"metric": "numeric", "relative": 0.1}, "105", "100", True),
        ({"metric": "numeric", "absolute": 0.5}, "0.4", "0", True),
        ("json_schema", '{"a": 1}', "", True),
        ("json_schema", "{'a': 1}", "", False),
        ("json_schema", "[" * 100_000, "", False),
        ({"metric": "json_schema", "fits": {"required": ["b"]}}, '{"a": 1}', "", False),
        ({"metric": "json_schema", "fits": {"required": ["a"]}}, '{"a": 1}', "", True),
    ],
)
def test_an_answer_has_the_value_that_it_should(metric, prediction, reference, expected):
    assert value(metric, prediction, reference) is expected


@pytest.mark.parametrize(
    "schema, said",
    [
        ({"items": {"$ref": "#/$defs/one"}, "$defs": {"one": {"type": "string"}}}, None),
        ({"items": {"$ref": "#/$defs/two"}, "$defs": {"one": {"type": "string"}}}, "#/$defs/two is nowhere"),
        ({"anyOf": [{"$ref": "https://example.org/one.json"}]}, "https://example.org/one.json is nowhere"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$schema": 3}, "must be a text"),
        ({"type": "strin"}, "is no JSON schema"),
    ],
)
def test_a_schema_is_whole(schema, said):
    fault = JsonSchema(metric="json_schema", fits=schema).fault()
    assert fault is None if said is None else said in fault


def test_an_exact_match_ends_where_the_reference_does():
    assert value("exact_match", "a", "a", finish_reason="length") is False
    assert value("exact_match", "a", "a", finish_reason="length", stops=False) is True
    broken = {"prediction": "\ufffd", "reference": "\ufffd"}
    assert value("exact_match", **broken, reference_ids=[5, 2], answer_ids=[6, 2]) is False, "other bytes"


def test_numbers_are_read_however_they_are_written():
    assert [last_number(text) for text in ("-3", "10-5", "1e3.", "a2", ".5", "$1,000,000", "none", "3.")] == [
        -3, 5, 1000, None, 0.5, 1e6, None, 3,
    ]  # fmt: skip


def test_normalised_texts_lose_what_does_not_count():
    assert normalized("An  ‘Answer’, the one!") == "answer one"


def test_scores_of_texts_are_those_of_their_libraries():
    sacrebleu = pytest.importorskip("sacrebleu")
    one, other = "the cat sat on the mat", "the cat is on the mat"
    assert value("bleu", one, other) == pytest.approx(sacrebleu.sentence_bleu(one, [other]).score)
    assert value("chrf", one, other) == pytest.approx(sacrebleu.sentence_chrf(one, [other]).score)
    rows = [answered(one, other), answered("a b c d", "a b c d")]
    settings = TypeAdapter(AnyMetric).validate_python("bleu")
    corpus = sacrebleu.corpus_bleu([one, "a b c d"], [[other, "a b c d"]]).score
    assert METRICS["bleu"].overall(settings, rows) == pytest.approx(corpus)


ROUGE = """
import json
from tunemill.stages.evaluation.metrics.rouge import Rouge, score
from types import SimpleNamespace
row = SimpleNamespace(prediction="the cat sat on the mat", reference="the cat is on the mat")
print(json.dumps([score(Rouge(metric="rouge", of=of), row) for of in ("rougeL", "rouge2")]))
"""


def test_rouge_is_what_both_share():
    """In a process of its own: absl, which rouge-score imports, closes what pytest captures."""
    if importlib.util.find_spec("rouge_score") is None:
        pytest.skip("rouge-score is an extra")
    done = subprocess.run([sys.executable, "-c", ROUGE], capture_output=True, text=True, check=True)
    # Of six words each, five in their order; of five pairs of words, three.
    assert json.loads(done.stdout) == pytest.approx([5 / 6, 3 / 5])


def test_every_metric_has_its_place_in_the_table():
    assert {*METRICS, "judge", "loss"} == set(NAMES)


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [answered("é\n\u2028", "x", group="g"), answered()]
    write_answered(rows, tmp_path / "rows.jsonl")
    assert list(read_answered(tmp_path / "rows.jsonl")) == rows
    assert [len(json.loads(line)) for line in (tmp_path / "rows.jsonl").open()] == [11, 11]
