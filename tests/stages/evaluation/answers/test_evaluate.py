"""Held-out loss and generated answers against independent computations."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from support.evaluated import run
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    training_data,
    workspace,
)
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Model
from tunemill.stages.data.rows.mapped import Rows, batches_by_length
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.evaluation.questions import question_of
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

PAIRS = [
    ("What is the capital of France?", "Paris"),
    ("Write 3 March 1998", "1998-03-03"),
    ("user", "the assistant responds"),
    ("Write the request.", "A helpful task"),
]


def chat_rows(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Questions with an answer and its end token trained, then an untrained line break, as chatml has it."""
    words = AutoTokenizer.from_pretrained(make_tokenizer(folder))
    rows = []
    for question, answer in PAIRS:
        prompt = words.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        reply, tail = words.encode(f"{answer}<|im_end|>"), words.encode("\n")
        rows.append((prompt + reply + tail, [-100] * len(prompt) + reply + [-100] * len(tail)))
    return rows


def own_loss(model: Any, rows: list[tuple[list[int], list[int]]]) -> tuple[float, list[float]]:
    """Token-weighted and per-row loss, one row at a time from log-probabilities."""
    totals, counts = [], []
    for ids, labels in rows:
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        trained = [t for t in range(1, len(ids)) if labels[t] != -100]
        totals.append(-sum(float(log_p[t - 1, labels[t]]) for t in trained))
        counts.append(len(trained))
    return sum(totals) / sum(counts), [total / count for total, count in zip(totals, counts, strict=True)]


@pytest.mark.parametrize(
    "batch_size", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(100, marks=pytest.mark.slow)]
)
def test_the_loss_is_the_mean_over_trained_tokens(tmp_path: Path, batch_size: int) -> None:
    model = make_model(tmp_path / "model")
    rows = random_rows(7, longest=40)
    metrics, predictions, heard = run(
        tmp_path / "out", model, evaluation_data(tmp_path / "rows", rows), eval_batch_size=batch_size,
        eval_max_new_tokens=4,
    )  # fmt: skip
    mean, per_row = own_loss(AutoModelForCausalLM.from_pretrained(model), rows)
    assert metrics["eval_loss"] == pytest.approx(mean, abs=1e-5)
    assert metrics["eval_loss"] != pytest.approx(sum(per_row) / 7, abs=1e-3), "not the mean over rows"
    assert metrics["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert [p["loss"] for p in predictions] == pytest.approx(per_row, abs=1e-5)
    assert metrics["rows"] == 7
    assert heard.summary == metrics
    sure = json.loads((tmp_path / "out" / "data" / "intervals.json").read_text())
    assert sure["eval_loss"]["low"] < mean < sure["eval_loss"]["high"]
    assert math.log(sure["perplexity"]["high"]) == pytest.approx(sure["eval_loss"]["high"])
    weighted = sum(p["loss"] * p["loss_tokens"] for p in predictions) / sum(
        p["loss_tokens"] for p in predictions
    )
    assert weighted == pytest.approx(mean, abs=1e-5)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base, an adapter and a full model, both of which know the four answers by heart; `rows` beside them."""
    root = tmp_path_factory.mktemp("learned")
    base = make_model(root / "base")
    data = training_data(root / "data", chat_rows(root / "tokenizer"))
    shared = {"num_epochs": 60, "micro_batch_size": 4, "lr_scheduler": "constant", "save_strategy": "no"}
    lora = {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}
    for name, settings in {
        "full": {"learning_rate": 1e-2},
        "adapter": {"learning_rate": 2e-2, **lora},
    }.items():
        sft(
            SftConfig(**{**shared, **settings}), base_model=Model(base), training_data=data, evaluation_data=None,
            out=workspace(root / name), report=Heard().report,
        )  # fmt: skip
    return base, root / "adapter" / "data", root / "full" / "data"


def test_a_model_that_knows_the_answers_matches_exactly(
    tmp_path: Path, learned: tuple[Path, Path, Path]
) -> None:
    base, adapter, full = learned
    rows = evaluation_data(tmp_path / "rows", chat_rows(tmp_path / "tokenizer"))
    metrics, predictions, heard = run(tmp_path / "full", full, rows, eval_batch_size=3)
    assert metrics["exact_match"] == 1.0 and metrics["answers"] == 4
    assert [(p["prediction"], p["reference"]) for p in predictions] == [
        (answer, answer) for _, answer in PAIRS
    ]
    assert predictions[0]["prompt"].endswith("capital of France?<|im_end|>\n<|im_start|>assistant\n")
    asked = "user\nWhat is the capital of France?\nassistant"
    assert predictions[0]["id"] == row_id(asked, "Paris"), "special tokens left out"
    assert len({p["id"] for p in predictions}) == 4
    assert not heard.of("table")
    metrics, _, _ = run(tmp_path / "adapter", base, rows, adapter)
    assert metrics["exact_match"] == 1.0
    metrics, predictions, heard = run(tmp_path / "base", base, rows)
    assert metrics["exact_match"] == 0.0
    table = heard.of("table")[0]
    assert table["title"] == "Wrong answers (4)" and len(table["rows"]) == 4
    assert heard.of("progress")[-1]["done"] == 4


def test_a_quantized_model_is_scored(tmp_path: Path, learned: tuple[Path, Path, Path]) -> None:
    _, _, full = learned
    out = workspace(tmp_path / "quantized")
    quantize(QuantizedConfig(), model=Model(full), out=out, report=Heard().report)
    rows = chat_rows(tmp_path / "tokenizer")
    metrics, _, _ = run(tmp_path / "out", out.data, evaluation_data(tmp_path / "rows", rows))
    assert metrics["exact_match"] == 1.0
    mean, _ = own_loss(AutoModelForCausalLM.from_pretrained(out.data), rows)
    assert metrics["eval_loss"] == pytest.approx(mean, abs=1e-5)


def test_the_order_of_rows_does_not_matter(tmp_path: Path, learned: tuple[Path, Path, Path]) -> None:
    _, _, full = learned
    rows = chat_rows(tmp_path / "tokenizer") + random_rows(5)
    straight, first, _ = run(tmp_path / "a", full, evaluation_data(tmp_path / "ra", rows), eval_batch_size=2)
    turned, second, _ = run(
        tmp_path / "b", full, evaluation_data(tmp_path / "rb", rows[::-1]), eval_batch_size=2
    )
    assert straight["exact_match"] == turned["exact_match"] > 0
    assert straight["eval_loss"] == pytest.approx(turned["eval_loss"], abs=1e-12)
    # Batches are made by length and content, so that even the rounding is the same.
    assert [{**p, "row": 0} for p in first] == [{**p, "row": 0} for p in second[::-1]]


@pytest.mark.slow
def test_answers_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    rows = evaluation_data(tmp_path / "rows", random_rows(9, longest=40))
    _, alone, _ = run(tmp_path / "a", model, rows, eval_batch_size=1)
    _, together, _ = run(tmp_path / "b", model, rows, eval_batch_size=9)
    assert [p["prediction"] for p in alone] == [p["prediction"] for p in together]
    assert len({p["prediction"] for p in alone}) > 5


def test_generation_settings_of_the_model_do_not_leak_in(
    tmp_path: Path, learned: tuple[Path, Path, Path]
) -> None:
    _, _, full = learned
    rows = evaluation_data(tmp_path / "rows", chat_rows(tmp_path / "tokenizer"))
    hot = tmp_path / "hot"
    hot.mkdir()
    for name, content in folder_bytes(full).items():
        (hot / name).write_bytes(content)
    path = hot / "generation_config.json"
    noise = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 9.0, "min_new_tokens": 30}
    path.write_text(json.dumps({**json.loads(path.read_text()), **noise}))
    assert run(tmp_path / "out", hot, rows)[0]["exact_match"] == 1.0


def test_settings(tmp_path: Path, learned: tuple[Path, Path, Path]) -> None:
    _, _, full = learned
    rows = evaluation_data(tmp_path / "rows", chat_rows(tmp_path / "tokenizer"))
    metrics, predictions, _ = run(tmp_path / "a", full, rows, evaluation={"max_rows": 2})
    assert metrics["rows"] == len(predictions) == 2
    metrics, predictions, _ = run(tmp_path / "b", full, rows, evaluation={"exact_match": False})
    assert "exact_match" not in metrics and predictions[0]["prediction"] is None
    metrics, predictions, heard = run(tmp_path / "c", full, rows, eval_max_new_tokens=2)
    assert metrics["exact_match"] < 1
    assert "references are longer than eval_max_new_tokens 2" in heard.of("log")[0]["message"]
    with pytest.raises(ValidationError, match=r"evaluation\.exact_mach"):
        EvaluationConfig(evaluation={"exact_mach": True})


def test_rows_without_a_prompt_or_labels_have_a_loss_but_no_answer(
    tmp_path: Path, learned: tuple[Path, Path, Path]
) -> None:
    _, _, full = learned
    rows = [([5, 6, 7], [5, 6, 7]), ([5, 6, 7], [-100, -100, -100]), ([5, 6, 2], [-100, 6, 2])]
    metrics, predictions, heard = run(tmp_path / "a", full, evaluation_data(tmp_path / "rows", rows))
    assert metrics["answers"] == 1 and metrics["rows"] == 3
    assert [p["exact_match"] is None for p in predictions] == [True, True, False]
    assert [p["loss"] is None for p in predictions] == [False, True, False]
    assert "2 rows have no prompt" in heard.of("log")[0]["message"]
    nothing = evaluation_data(tmp_path / "nothing", rows[1:2])
    with pytest.raises(UserError, match="none of 1 rows has a token to score"):
        run(tmp_path / "b", full, nothing)


def test_stop_tokens_of_a_question(tmp_path: Path) -> None:
    rows = [([5, 6, 8, 1], [-100, 6, 8, 1]), ([5, 2, 7, 2], [-100, 2, 7, 2]), ([5, 6, 7], [-100, 6, 7])]
    data = Rows(evaluation_data(tmp_path, rows).rows)
    questions = [question_of(data, row, frozenset({2}), frozenset({0, 1, 2})) for row in range(3)]
    assert [sorted(q.stops) for q in questions if q] == [[1, 2], [], [2]]
    assert [q.stopped for q in questions if q] == [True, False, False]


def test_batches_stay_within_their_tokens(tmp_path: Path) -> None:
    rows = [([9] * length, [9] * length) for length in (3, 10, 2, 3, 50)]
    data = Rows(evaluation_data(tmp_path, rows).rows)
    assert batches_by_length(data, range(5), batch_size=2, max_tokens=1000) == [[2, 0], [3, 1], [4]]
    # Two rows of three tokens: whichever is stored first, the smaller one is padded with the row of two.
    other = Rows(
        evaluation_data(tmp_path / "b", [([7] * 3, [7] * 3), ([9] * 3, [9] * 3), ([9] * 2, [9] * 2)]).rows
    )
    turned = Rows(
        evaluation_data(tmp_path / "c", [([9] * 3, [9] * 3), ([7] * 3, [7] * 3), ([9] * 2, [9] * 2)]).rows
    )
    assert batches_by_length(other, range(3), batch_size=2, max_tokens=1000) == [[2, 0], [1]]
    assert batches_by_length(turned, range(3), batch_size=2, max_tokens=1000) == [[2, 1], [0]]
    assert batches_by_length(data, range(5), batch_size=9, max_tokens=12) == [[2, 0, 3], [1], [4]]


def test_a_model_whose_numbers_overflow_is_refused_in_words(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", dtype=torch.float16)
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"][:] = 6e4
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"the loss on held-out rows is (nan|inf): computed in float16"):
        run(tmp_path / "out", model, evaluation_data(tmp_path / "rows", random_rows(2)))
    with pytest.raises(UserError, match=r"the largest logit of the model is (nan|inf): computed in float16"):
        quantize(
            QuantizedConfig(), model=Model(model), out=workspace(tmp_path / "stored"), report=Heard().report
        )
