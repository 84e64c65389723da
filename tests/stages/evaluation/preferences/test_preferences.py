"""Scores of held-out preferences against computations of their own, one answer at a time."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.pairs import Texts, echoes, preference_data
from support.tiny_model import Heard, make_model, tiny_config, workspace
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Adapter, Model, PreferenceData
from tunemill.stages.errors import RowError, UserError
from tunemill.stages.evaluation.preferences import log_p_body
from tunemill.stages.evaluation.preferences.body import evaluate
from tunemill.stages.evaluation.preferences.config import PreferenceEvaluationConfig
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.training.orpo.body import orpo
from tunemill.stages.training.orpo.config import OrpoConfig

# Answers of unequal lengths, so that padding and sums over tokens count.
ROWS: list[Texts] = [(p, c * (1 + i % 3), r * (1 + i % 2)) for i, (p, c, r) in enumerate(echoes("abcdefg"))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base, another model of its shape, and an adapter for the base that has learned something."""
    root = tmp_path_factory.mktemp("models")
    base = make_model(root / "base")
    out = workspace(root / "adapter")
    orpo(
        OrpoConfig(learning_rate=1e-2, adapter="lora", lora_r=4, lora_alpha=8, lora_target_linear=True, max_steps=3),
        base_model=Model(base), training_data=preference_data(root / "rows", echoes()), evaluation_data=None,
        out=out, report=Heard().report,
    )  # fmt: skip
    return base, make_model(root / "other", seed=1), out.data


def run(
    folder: Path,
    model: Path,
    data: PreferenceData,
    reference: Path | None = None,
    adapter: Path | None = None,
    **settings: Any,
) -> tuple[dict[str, Any], list[dict[str, Any]], Heard]:
    out, heard = workspace(folder), Heard()
    evaluate(
        PreferenceEvaluationConfig(**settings), model=Model(model), evaluation_data=data, out=out, report=heard.report,
        adapter=None if adapter is None else Adapter(adapter),
        reference=None if reference is None else Model(reference),
    )  # fmt: skip
    lines = (out.data / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = json.loads((out.data / "metrics.json").read_text())
    assert heard.summary == metrics
    return metrics, [json.loads(line) for line in lines], heard


def log_p_of(model: Any, tokenizer: Any, prompt: str, answer: str) -> torch.Tensor:
    """[answer tokens and EOS, V] log probabilities, and [answer tokens] those of the answer beside them in column 0."""
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    ids = [*tokenizer(prompt + answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        log_p_lv = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)[len(before) - 1 : -1]
    chosen = log_p_lv.gather(1, torch.tensor(ids[len(before) :])[:, None])
    return torch.cat([chosen, log_p_lv], dim=1)


def judged(folder: Path, rows: list[tuple[str, str, bool]]) -> PreferenceData:
    table = pa.table(
        dict(zip(("prompt", "completion", "label"), map(list, zip(*rows, strict=True)), strict=True))
    )
    folder.mkdir(parents=True)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    return PreferenceData(folder)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_figures_are_those_of_each_answer_by_itself(
    tmp_path: Path, models: tuple[Path, Path, Path], batch_size: int
) -> None:
    base, other, _ = models
    metrics, predictions, heard = run(
        tmp_path / "out", other, preference_data(tmp_path / "rows", ROWS), base, eval_batch_size=batch_size
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    model, reference = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (other, base))
    sums: dict[str, list[float]] = {}
    divergences, chosen_tokens = [], 0
    for row, (prompt, *answers) in enumerate(ROWS):
        for side, answer in zip(("chosen", "rejected"), answers, strict=True):
            p, q = (log_p_of(one, tokenizer, prompt, answer) for one in (model, reference))
            for name, values in (("log_p", p[:, 0]), ("reference_log_p", q[:, 0])):
                sums.setdefault(f"{side}_{name}", []).append(float(values.sum()))
                assert predictions[row][f"{side}_{name}"] == pytest.approx(float(values.sum()), abs=1e-4)
            assert predictions[row][f"{side}_tokens"] == len(p)
            sums.setdefault(f"{side}_tokens", []).append(len(p))
            divergences += (p[:, 1:].exp() * (p[:, 1:] - q[:, 1:])).sum(1).tolist()
        assert (predictions[row]["prompt"], predictions[row]["chosen"]) == (prompt, answers[0])
    columns = ("chosen_log_p", "rejected_log_p", "chosen_reference_log_p", "rejected_reference_log_p")
    chosen, rejected, chosen_r, rejected_r = (
        torch.tensor(sums[name], dtype=torch.float64) for name in columns
    )
    chosen_tokens, rejected_tokens = (torch.tensor(sums[f"{side}_tokens"]) for side in ("chosen", "rejected"))
    per_token = chosen / chosen_tokens - rejected / rejected_tokens
    rewards = chosen - chosen_r, rejected - rejected_r
    expected = {
        "accuracy": (chosen > rejected).double().mean(),
        "margin": (chosen - rejected).mean(),
        "accuracy_per_token": (per_token > 0).double().mean(),
        "margin_per_token": per_token.mean(),
        "reward_accuracy": (rewards[0] > rewards[1]).double().mean(),
        "reward_margin": (rewards[0] - rewards[1]).mean(),
        "reward_chosen": rewards[0].mean(),
        "reward_rejected": rewards[1].mean(),
        "kl": sum(divergences) / len(divergences),
        "perplexity": (-chosen.sum() / chosen_tokens.sum()).exp(),
        "rows": 7,
    }
    assert metrics == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)
    assert metrics["kl"] > 0.1, "another model"
    sure = json.loads((tmp_path / "out" / "data" / "intervals.json").read_text())
    assert sure.keys() == metrics.keys() - {"perplexity", "rows"}
    for name, one in sure.items():
        weights = [p[one["weights"]] if "weights" in one else 1 for p in predictions]
        mean = sum(w * p[one["values"]] for w, p in zip(weights, predictions, strict=True)) / sum(weights)
        assert one["low"] <= metrics[name] <= one["high"] and mean == pytest.approx(metrics[name]), name
    assert predictions[0]["id"] == row_id(*ROWS[0])
    assert heard.of("progress")[-1]["done"] == 14
    wrong = [p for p in predictions if p["preferred"] == "rejected"]
    assert len(wrong) == round(7 * (1 - metrics["accuracy"])) > 0
    (table,) = heard.of("table")
    assert table["title"] == f"Rejected answers that are likelier ({len(wrong)})"
    assert {row[0] for row in table["rows"]} == {p["row"] for p in wrong}


def test_few_tokens_at_once_and_tokens_that_cannot_come_change_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    logits_nv, reference_nv = (torch.randn(5, 7, generator=random) for _ in range(2))
    logits_nv[:, 3], reference_nv[:2, 3] = -torch.inf, -torch.inf
    kept = [0, 1, 2, 4, 5, 6]
    p, q = (torch.distributions.Categorical(logits=logits[:2, kept]) for logits in (logits_nv, reference_nv))
    expected = torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(log_p_body.divergence(logits_nv, reference_nv)[:2], expected)
    rows = [(np.arange(1, 6 + n, dtype=np.int32), np.arange(1, 6 + n, dtype=np.int32)) for n in range(3)]
    torch.manual_seed(0)
    model, other = (AutoModelForCausalLM.from_config(tiny_config()).eval() for _ in range(2))
    whole = log_p_body.score_answers(model, log_p_body.logits_of(other), rows, 3, lambda _done: None)
    piecewise = log_p_body.score_answers(
        model, log_p_body.logits_of(other), rows, 3, lambda _done: None, most_bytes=1
    )
    for one, many in zip(piecewise, whole, strict=True):
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(many), rel=1e-6)


def test_the_base_is_its_own_reference(tmp_path: Path, models: tuple[Path, Path, Path]) -> None:
    base, _, _ = models
    data = preference_data(tmp_path / "rows", ROWS)
    metrics, _, _ = run(tmp_path / "alone", base, data)
    assert (metrics["kl"], metrics["reward_margin"], metrics["reward_accuracy"]) == (0.0, 0.0, 0.5)
    beside, _, _ = run(tmp_path / "beside", base, data, base)
    assert beside == pytest.approx(metrics, abs=1e-6)


def test_an_adapter_is_compared_with_its_base(tmp_path: Path, models: tuple[Path, Path, Path]) -> None:
    base, _, adapter = models
    data = preference_data(tmp_path / "rows", ROWS)
    whole = tmp_path / "merged"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    adapted.merge_and_unload().save_pretrained(whole)
    AutoTokenizer.from_pretrained(base).save_pretrained(whole)
    metrics, _, _ = run(tmp_path / "adapter", base, data, adapter=adapter)
    merged, _, _ = run(tmp_path / "whole", whole, data, base)
    assert metrics == pytest.approx(merged, rel=1e-4)
    assert metrics["kl"] > 1e-3 and metrics["reward_margin"] > 0


def test_answers_that_are_judged_by_themselves(tmp_path: Path, models: tuple[Path, Path, Path]) -> None:
    base, other, _ = models
    rows = [(p, answer, answer == c) for p, c, r in ROWS for answer in (c, r)]
    data = judged(tmp_path / "rows", rows)
    metrics, predictions, _ = run(tmp_path / "out", other, data, base)
    again, _, _ = run(tmp_path / "again", other, data, base, eval_batch_size=1)
    assert metrics == pytest.approx(again, abs=1e-5)
    pairs, _, _ = run(tmp_path / "pairs", other, preference_data(tmp_path / "pairs_of", ROWS), base)
    # The same answers as pairs: what no comparison enters is the same.
    same = {"reward_desirable": "reward_chosen", "reward_undesirable": "reward_rejected", "kl": "kl",
            "perplexity": "perplexity", "reward_margin": "reward_margin"}  # fmt: skip
    assert {name: metrics[name] for name in same} == pytest.approx(
        {name: pairs[other] for name, other in same.items()}
    )
    rewards = [(p["completion_log_p"] - p["completion_reference_log_p"], p["label"]) for p in predictions]
    right = sum(one > other for one, good in rewards if good for other, bad in rewards if not bad)
    assert metrics["reward_accuracy"] == pytest.approx(right / 49) and metrics["rows"] == 14
    assert predictions[1]["completion"] == "never" and "preferred" not in predictions[1]


def test_rows_of_which_nothing_is_left_are_left_out_and_none_is_refused(
    tmp_path: Path, models: tuple[Path, Path, Path]
) -> None:
    base, _, _ = models
    rows = [("a long prompt " * 20, "yes", "no"), *ROWS, ("same", "x", "x")]
    data = preference_data(tmp_path / "rows", rows)
    metrics, predictions, heard = run(tmp_path / "out", base, data, sequence_len=64)
    assert metrics["rows"] == 7 and metrics["left_out_rows"] == 2
    assert [p["row"] for p in predictions] == list(range(1, 8))
    assert "2 held-out rows are left out" in heard.of("log")[0]["message"]
    first, _, _ = run(tmp_path / "first", base, data, sequence_len=64, evaluation={"max_rows": 4})
    assert first["rows"] == 3 and first["left_out_rows"] == 1
    with pytest.raises(RowError, match="none of 1 rows is left to score"):
        run(tmp_path / "none", base, data, sequence_len=64, evaluation={"max_rows": 1})


def test_a_model_whose_numbers_overflow_is_refused_in_words(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", dtype=torch.float16)
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"][:] = 6e4
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"log probability of the held-out answers is -?(nan|inf): computed in float16"
    ):
        run(tmp_path / "out", model, preference_data(tmp_path / "rows", ROWS))
