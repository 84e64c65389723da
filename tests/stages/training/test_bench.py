"""A benchmark while a model is trained: what is asked, what is right, and that nothing else changes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.configs import DPO, SFT, load, problems
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    training_data,
    workspace,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.pipelines.graph.check_files import check_files
from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.training.bench import BenchQuestion, bench_questions
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

QUESTIONS = [
    *({"question": f"{n} + {n}", "choices": [n, 2 * n, "no"], "answer": n % 3, "subject": "sums"} for n in range(9)),
    {"question": "capital of France?", "choices": ["Rome", "Paris"], "answer": "B", "subject": "cities"},
    {"input": "the sum of 1 and 1?\nA. 2\nB. 3\nAnswer: ", "output": "A"},
]  # fmt: skip


def write(file: Path, rows: Any) -> Path:
    file.write_text(
        json.dumps(rows) if file.suffix == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows)
    )
    return file


def run(folder: Path, base: Path, **keys: Any) -> Heard:
    heard = Heard()
    settings = {"learning_rate": 1e-2, "max_steps": 4, "eval_steps": 2, "save_strategy": "no", **keys}
    sft(
        SftConfig(**settings), base_model=Model(base), training_data=training_data(folder / "rows", random_rows(8)),
        evaluation_data=evaluation_data(folder / "held_out", random_rows(3)), out=workspace(folder),
        report=heard.report,
    )  # fmt: skip
    return heard


def test_the_share_of_right_letters_is_told_and_nothing_else_changes(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    adapter = {
        "adapter": "lora",
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_target_linear": True,
        "lora_dropout": 0.3,
    }
    plain = run(tmp_path / "plain", base, **adapter)
    file = write(tmp_path / "questions.jsonl", QUESTIONS)
    heard = run(tmp_path / "asked", base, do_bench_eval=True, bench_dataset=str(file), **adapter)
    assert folder_bytes(tmp_path / "asked/data") == folder_bytes(tmp_path / "plain/data")
    assert heard.steps("loss") == plain.steps("loss") and heard.steps("eval_loss") == plain.steps("eval_loss")
    assert set(heard.steps("eval_bench_accuracy")) == {2, 4} and not plain.steps("eval_bench_accuracy")
    assert heard.summary["last_eval_bench_accuracy"] == heard.steps("eval_bench_accuracy")[4]


def test_answers_are_those_of_the_trained_model(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    file = write(tmp_path / "questions.json", QUESTIONS)
    heard = run(tmp_path / "asked", base, do_bench_eval=True, bench_dataset=str(file), eval_batch_size=2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "asked/data")
    words = AutoTokenizer.from_pretrained(base)
    right: dict[str, list[bool]] = {}
    for question, row in zip(bench_questions(file), QUESTIONS, strict=True):
        with torch.no_grad():
            log_p = []
            for answer in question.answers:
                ids = words.encode(question.prompt + answer)
                log_p.append(float(model(torch.tensor([ids])).logits[0].log_softmax(-1)[-2, ids[-1]]))
        wanted = row["answer"] if "answer" in row else row["output"]
        number = wanted if isinstance(wanted, int) else "AB".index(wanted)
        right.setdefault(row.get("subject", "none"), []).append(log_p.index(max(log_p)) == number)
    everything = [one for some in right.values() for one in some]
    figures = {name: heard.steps(f"eval_bench_accuracy{name}")[4] for name in ("", "_sums", "_cities")}
    assert figures == {
        "": sum(everything) / 11, "_sums": sum(right["sums"]) / 9, "_cities": sum(right["cities"])
    }  # fmt: skip
    assert 0 < sum(everything) < 11


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has no questions"),
        ([3], "questions.jsonl:1: a question is a mapping"),
        (
            [{"text": "a"}],
            "a question needs `input` and `output`, or `question`, `choices` and `answer` .it has text",
        ),
        ([{"question": "a", "choices": ["b"], "answer": 0}], "from 2 to 10 of them"),
        ([{"question": "a", "choices": ["b", "c"], "answer": "C"}], "a letter from A to B"),
        ([{"input": "a", "output": "Paris"}], "a letter from A to G"),
        ([{"input": "a", "output": "A", "subject": 3}], "subject must be a text"),
    ],
)
def test_rows_that_are_no_questions_are_named(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        bench_questions(write(tmp_path / "questions.jsonl", rows))


def test_answers_that_a_tokenizer_does_not_tell_apart_are_refused(tmp_path: Path) -> None:
    from tunemill.stages.training.bench_body import asked_of

    words = AutoTokenizer.from_pretrained(make_model(tmp_path / "base"))
    for prompt, answers in (("a", ("b", "b")), ("", ("a", "b"))):
        with pytest.raises(UserError, match="bench_dataset: question 4: to this tokenizer all answers"):
            asked_of(words, 3, BenchQuestion(prompt, answers, 0, None))


def test_what_is_refused_noted_and_left_out_of_the_key(tmp_path: Path) -> None:
    held_out = {**SFT, "val_set_size": 2, "eval_steps": 2}
    (problem,) = problems(tmp_path, {**held_out, "do_bench_eval": True})
    assert problem.path == "do_bench_eval" and "name it with bench_dataset" in problem.message
    asked = {"do_bench_eval": True, "bench_dataset": "questions.jsonl"}
    trained = load(tmp_path, {**held_out, **asked}).node("trained")
    assert trained.sources == {} and trained.places_named == {
        "bench_dataset": [f"{tmp_path}/questions.jsonl"]
    }
    for config, noted in (
        ({**held_out, "bench_dataset": "questions.jsonl"}, {"bench_dataset"}),
        ({**SFT, **asked}, set(asked)),
        ({**DPO, "val_set_size": 2, "eval_steps": 2, **asked}, set(asked)),
    ):
        assert {note.path for note in load(tmp_path, config).notes} & {*asked} == noted


def test_questions_that_are_none_are_told_by_check(tmp_path: Path) -> None:
    asked = {"do_bench_eval": True, "bench_dataset": "questions.jsonl"}
    config, file = {**SFT, "val_set_size": 2, "eval_steps": 2, **asked}, tmp_path / "questions.jsonl"

    def said(**more: Any) -> list[str]:
        (tmp_path / "x.yml").write_text(yaml.safe_dump({**config, **more}))
        (checked,) = check_files([tmp_path / "x.yml"])
        return [one.message for one in checked.problems if one.path == "bench_dataset"]

    write(file, QUESTIONS)
    assert said() == []
    write(file, [*QUESTIONS, {"question": "2 + 2", "choices": ["3", "4"], "answer": "C"}])
    (message,) = said()
    assert message.startswith(f"{file}:12: the answer must be")
    file.write_text("no JSON")
    (message,) = said()
    assert "is no JSON" in message
    assert said(do_bench_eval=None) == ["asks for nothing: do_bench_eval is off"]
