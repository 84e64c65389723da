"""BLEU, chrF and TER of answers: what is asked for, what it is by hand, and what is refused or asks for nothing."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.configs import ORPO, SFT, load, problems
from support.evaluated import run
from support.parrot import chain, ids_of, make_parrot
from support.tiny_model import evaluation_data
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.pipelines.graph.check_files import check_files
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.evaluation.questions import Question

INSTALLED = importlib.util.find_spec("sacrebleu") is not None
needs_sacrebleu = pytest.mark.skipif(not INSTALLED, reason="sacrebleu is an extra")


def asked(**settings: Any) -> tuple[str, ...]:
    return EvaluationConfig(**settings).text_scores


def test_which_scores_are_asked_for() -> None:
    assert asked() == asked(do_causal_lm_eval=False) == asked(eval_causal_lm_metrics=["ter"]) == ()
    assert asked(do_causal_lm_eval=True) == ("sacrebleu", "chrf", "ter")
    assert asked(do_causal_lm_eval=True, eval_causal_lm_metrics=["ter", "perplexity"]) == ("ter",)
    assert EvaluationConfig(do_causal_lm_eval=True).used_libraries() == ("sacrebleu",)
    with pytest.raises(ValidationError, match="comet is computed by a model of its own"):
        asked(eval_causal_lm_metrics=["comet"])


def test_what_is_computed_anyway_is_no_part_of_the_key() -> None:
    perplexity = EvaluationConfig(do_causal_lm_eval=True, eval_causal_lm_metrics=["perplexity"])
    assert perplexity.semantic() == EvaluationConfig().semantic()
    assert {item.key for item in perplexity.idle()} == {"do_causal_lm_eval", "eval_causal_lm_metrics"}
    assert {item.key for item in EvaluationConfig(eval_causal_lm_metrics=["ter"]).idle()} == {
        "eval_causal_lm_metrics"
    }
    assert EvaluationConfig(do_causal_lm_eval=True).semantic() != EvaluationConfig().semantic()


def test_check_says_what_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "sacrebleu" else found(name, *more)
    )
    config = {**SFT, "val_set_size": 2, "do_causal_lm_eval": True}
    load(tmp_path, config)
    (checked,) = check_files([tmp_path / "x.yml"], [])
    (problem,) = [problem for problem in checked.problems if problem.path == "do_causal_lm_eval"]
    assert "pip install 'tunemill[sacrebleu]'" in problem.message


@pytest.mark.parametrize("config", [SFT, ORPO])
def test_where_nothing_is_evaluated_it_is_noted(tmp_path: Path, config: dict[str, Any]) -> None:
    (note,) = load(tmp_path, {**config, "do_causal_lm_eval": True}).notes
    assert note.path == "do_causal_lm_eval" and "no model answers held-out rows here" in note.message


def test_what_needs_the_hub_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {**SFT, "val_set_size": 2, "eval_causal_lm_metrics": ["comet"]})
    assert problem.path == "eval_causal_lm_metrics"


@needs_sacrebleu
@pytest.mark.parametrize(
    ("name", "reference", "prediction", "score"),
    [
        # 1- to 4-grams: 5 of 6, 3 of 5, 2 of 4, 1 of 3; the geometric mean of these.
        ("sacrebleu", "the cat sat on a mat", "the cat sat on the mat", 100 * (5 / 36) ** 0.25 * 0.6**0.25),
        # 1- to 3-grams of letters: 2 of 3, 1 of 2, 0 of 1, precision and recall alike.
        ("chrf", "abd", "abc", 100 * (2 / 3 + 1 / 2) / 3),
        ("ter", "a b d", "a b c", 100 / 3),
    ],
)
def test_scores_by_hand(tmp_path: Path, name: str, reference: str, prediction: str, score: float) -> None:
    from tunemill.stages.evaluation.answers.text_scores_body import text_scores

    words = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path))
    end = words.encode("<|im_end|>")
    question = Question(7, (3,), tuple(words.encode(reference) + end), frozenset(end), frozenset(end))
    answers = {7: words.encode(prediction) + end}
    assert text_scores([name], [question], answers, words) == {name: pytest.approx(score)}


@needs_sacrebleu
def test_the_stage_scores_what_the_model_says(tmp_path: Path) -> None:
    model = make_parrot(tmp_path / "model", {})
    prompt, answer, end = ids_of(model, "?")[-1], ids_of(model, "abc"), ids_of(model, "<|im_end|>")
    model = make_parrot(tmp_path / "knows", chain(prompt, *answer, *end))
    row = [prompt, *answer, *end]
    data = evaluation_data(tmp_path / "rows", [(row, [-100, *answer, *end])])
    metrics, _, _ = run(
        tmp_path / "out", model, data, do_causal_lm_eval=True, evaluation={"exact_match": False}
    )
    assert (metrics["chrf"], metrics["ter"]) == (100, 0) and "sacrebleu" in metrics
    assert "exact_match" not in metrics
