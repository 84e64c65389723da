"""What a teacher says: aligned with the trained tokens, whichever way rows are batched, of the same tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.teachers import make_teacher, taught
from support.tiny_model import VOCABULARY, Heard, folder_bytes, random_rows, training_data, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.data.rows.teacher_rows import TeacherRows, trained_positions
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.teacher_logprobs import body

ROWS = [*random_rows(9, longest=20), ([5, 6, 7, 8, 9, 10], [5, -100, 7, -100, -100, 10])]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher") / "teacher")


def test_each_trained_token_has_the_likeliest_and_their_log_probabilities(
    tmp_path: Path, teacher: Path
) -> None:
    data, heard = training_data(tmp_path / "data", ROWS), Heard()
    said = TeacherRows([taught(tmp_path / "said", teacher, data, top_k=8, heard=heard)], data)
    rows, model = Rows(data.rows), AutoModelForCausalLM.from_pretrained(teacher)
    trained = 0
    for row in range(len(ROWS)):
        labels = rows.labels(row)
        token_ids_nk, log_p_nk = said.of(row, labels)
        with torch.no_grad():
            log_p_lv = model(torch.tensor(ROWS[row][0])[None]).logits[0].log_softmax(-1)
        # A token is predicted from the one before it.
        # The model has embeddings of more tokens than there are.
        log_p_lv = log_p_lv[:, : len(load_words(teacher))]
        expected_nk, ids_nk = log_p_lv[trained_positions(labels) - 1].topk(8)
        assert token_ids_nk.tolist() == ids_nk.tolist()
        np.testing.assert_allclose(log_p_nk, expected_nk.numpy(), atol=2e-5)
        trained += len(log_p_nk)
    # Of the last row the first token has a label, and is predicted from nothing.
    assert trained_positions(rows.labels(len(ROWS) - 1)).tolist() == [2, 5]
    assert heard.summary["trained_tokens"] == trained and heard.summary["bytes_per_token"] == 64


def test_how_rows_are_put_together_changes_nothing(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = training_data(tmp_path / "data", ROWS)
    first = TeacherRows([taught(tmp_path / "first", teacher, data)], data)
    monkeypatch.setattr(body, "BYTES_AT_ONCE", 2000)
    monkeypatch.setattr(body, "BATCH_ROWS", 2)
    second = TeacherRows([taught(tmp_path / "second", teacher, data)], data)
    rows = Rows(data.rows)
    for row in range(len(ROWS)):
        one, other = (said.of(row, rows.labels(row)) for said in (first, second))
        assert one.token_ids_nk.tolist() == other.token_ids_nk.tolist()
        np.testing.assert_allclose(one.log_p_nk, other.log_p_nk, atol=2e-5)
    assert [len(window) for window in body.windows(Rows(data.rows), 8)] != [len(ROWS)]


def test_the_same_twice(tmp_path: Path, teacher: Path) -> None:
    data = training_data(tmp_path / "data", ROWS)
    one, other = (taught(tmp_path / name, teacher, data).path for name in ("one", "other"))
    assert folder_bytes(one) == folder_bytes(other)


def test_no_more_tokens_than_there_are(tmp_path: Path, teacher: Path) -> None:
    # The model has a few rows that the tokenizer has no token for.
    data, heard = training_data(tmp_path / "data", ROWS[:2]), Heard()
    said = TeacherRows([taught(tmp_path / "said", teacher, data, top_k=10_000, heard=heard)], data)
    width = said.of(0, Rows(data.rows).labels(0)).log_p_nk.shape[1]
    assert width == heard.summary["top_k"] <= VOCABULARY


def test_other_labels_than_the_teacher_saw_are_noticed(tmp_path: Path, teacher: Path) -> None:
    data = training_data(tmp_path / "data", ROWS)
    said = TeacherRows([taught(tmp_path / "said", teacher, data)], data)
    with pytest.raises(AssertionError, match="the teacher saw other labels"):
        said.of(0, np.flip(Rows(data.rows).labels(0)))


def test_a_teacher_of_other_tokens_is_refused(tmp_path: Path, teacher: Path) -> None:
    data = training_data(tmp_path / "data", ROWS)
    other = make_teacher(tmp_path / "other")
    file = other / "tokenizer.json"
    words = json.loads(file.read_text())
    vocabulary = words["model"]["vocab"]
    (a, first), (b, second), *_ = sorted(vocabulary.items(), key=lambda item: -item[1])
    vocabulary[a], vocabulary[b] = second, first
    file.write_text(json.dumps(words))
    out = tmp_path / "said"
    config = body.TeacherLogprobsConfig(teacher=str(other))
    with pytest.raises(SettingError, match=r"pipeline\.teacher: .*other.*(the same tokenizer|has the id)"):
        body.teacher_logprobs(config, Tokenizer(teacher), data, workspace(out), Heard().report)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no config.json, so no model folder"),
        ({"config.json": "{}"}, "no *.safetensors"),
        ({"config.json": "[1]", "model.safetensors": ""}, "its config.json is no JSON object"),
        (
            {"config.json": '{"architectures": ["LlamaForSequenceClassification"]}', "model.safetensors": ""},
            "it is a model that scores whole sequences (2 scores), and a teacher is a language model",
        ),
    ],
)
def test_what_is_no_language_model_is_refused_before_anything_runs(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    config = body.TeacherLogprobsConfig(teacher=str(tmp_path))
    (fault,) = config.faults()
    assert fault.key == "teacher" and said in fault.reason and "reinit_weights" not in fault.reason
    with pytest.raises(SourceError, match=r"pipeline\.teacher: .*\.$"):
        body.teacher_folder(config, None)
