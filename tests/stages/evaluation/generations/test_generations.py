"""Answers are those of the model, the same for any size of batch, and each is kept with how it ended."""

import pytest
from support.tiny_model import Heard, evaluation_data, make_model, random_rows, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.answered import read_answered
from tunemill.stages.evaluation.generations.body import generate
from tunemill.stages.evaluation.generations.config import GenerationsConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("answering") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return evaluation_data(tmp_path_factory.mktemp("asked"), random_rows(7, longest=20))


def answers(folder, model, data, **settings):
    out, heard = workspace(folder), Heard()
    config = GenerationsConfig(max_new_tokens=6, **settings)
    generate(config, Model(model), None, data, out, heard.report)
    return list(read_answered(out.data / "generations.jsonl")), heard.summary


def test_drawn_answers_are_the_same_in_batches_of_any_size(tmp_path, model, data):
    drawn = {"do_sample": True, "temperature": 1.3}
    alone, _ = answers(tmp_path / "1", model, data, batch_size=1, **drawn)
    three, _ = answers(tmp_path / "3", model, data, batch_size=3, **drawn)
    assert alone == three
    other, _ = answers(tmp_path / "other", model, data, batch_size=3, seed=1, **drawn)
    assert sum(one.answer_ids == two.answer_ids for one, two in zip(three, other, strict=True)) < 3
    # Of one token alone the likeliest is drawn.
    greedy, _ = answers(tmp_path / "greedy", model, data)
    only, _ = answers(tmp_path / "only", model, data, do_sample=True, top_k=1)
    nucleus, _ = answers(tmp_path / "nucleus", model, data, do_sample=True, top_p=1e-6)
    assert [one.answer_ids for one in only] == [one.answer_ids for one in greedy]
    assert [one.answer_ids for one in nucleus] == [one.answer_ids for one in greedy]


def test_what_is_kept_says_how_an_answer_ends(tmp_path, model, data):
    found, summary = answers(tmp_path / "all", model, data)
    assert [one.row for one in found] == list(range(7))
    for one in found:
        assert (one.finish_reason == "stop") == (one.answer_ids[-1] == 2)
        assert one.tokens == 6 or one.finish_reason == "stop"
        assert len(one.id) == 16 and one.prompt_ids and one.reference_ids
    assert summary["generated_tokens"] == sum(one.tokens for one in found)
    first, _ = answers(tmp_path / "first", model, data, max_rows=2)
    assert first == found[:2]


def test_rows_without_a_question_are_refused(tmp_path, model):
    rows = evaluation_data(tmp_path / "rows", [([5, 6, 7], [5, 6, 7])])
    with pytest.raises(UserError, match="none of 1 rows has a prompt before an answer"):
        answers(tmp_path / "out", model, rows)
