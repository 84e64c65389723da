"""Scores of lm-evaluation-harness against log-probabilities and answers of transformers, by hand. Needs lm_eval."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.harness_tasks import CITIES, SUMS, write_tasks
from support.tiny_model import Heard, folder_bytes, make_model, training_data, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SourceError, UserError
from tunemill.stages.evaluation.harness.keys import HarnessConfig
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

pytest.importorskip("lm_eval")

NAMES = ("cities", "sums", "likely")


def run(
    folder: Path, tasks: Path, model: Path, names: tuple[str, ...] = NAMES, adapter: Path | None = None, **more: Any
) -> tuple[dict[str, float], list[dict[str, Any]], Heard]:  # fmt: skip
    """Metrics, predictions, and what was said."""
    from tunemill.stages.evaluation.harness.scored_body import evaluate

    paths = [str(tasks / f"{name}.yaml") if (tasks / f"{name}.yaml").is_file() else name for name in names]
    out, heard = workspace(folder), Heard()
    evaluate(
        HarnessConfig(**{"lm_eval_tasks": paths, **more}),
        model=Model(model),
        adapter=None if adapter is None else Adapter(adapter),
        out=out,
        report=heard.report,
    )
    lines = (out.data / "predictions.jsonl").read_text().splitlines()
    return json.loads((out.data / "metrics.json").read_text()), [json.loads(line) for line in lines], heard


def log_p(model: Any, words: Any, prompt: str, answer: str) -> float:
    """Of an answer after a prompt, in nats."""
    ids, given = words.encode(prompt + answer), len(words.encode(prompt))
    with torch.no_grad():
        log_p_tv = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_p_tv[place - 1, ids[place]]) for place in range(given, len(ids)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks")


def test_compared_answers_have_their_log_probabilities(tmp_path: Path, tasks: Path, model: Path) -> None:
    metrics, predictions, _ = run(tmp_path / "out", tasks, model, ("cities",))
    loaded, words = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    right, right_by_letter = [], []
    for row, found in zip(CITIES, predictions, strict=True):
        prompt = f"Question: {row['question']}\nAnswer:"
        own = [log_p(loaded, words, prompt, f" {choice}") for choice in row["choices"]]
        assert found["log_p"] == pytest.approx(own, abs=1e-4)
        best = own.index(max(own))
        by_letter = [value / len(choice) for value, choice in zip(own, row["choices"], strict=True)]
        right.append(best == row["answer"])
        right_by_letter.append(by_letter.index(max(by_letter)) == row["answer"])
        assert (found["prompt"], found["prediction"]) == (prompt, row["choices"][best])
        assert found["reference"] == row["choices"][row["answer"]]
        assert found["cities/acc"] is right[-1] and found["cities/acc_norm"] is right_by_letter[-1]
    assert metrics == {"cities/acc": sum(right) / 4, "cities/acc_norm": sum(right_by_letter) / 4}
    assert 0 < sum(right) < 4, "some of each"
    intervals = json.loads((tmp_path / "out" / "data" / "intervals.json").read_text())
    assert set(intervals) == set(metrics)
    assert intervals["cities/acc"]["method"] == "wilson" and intervals["cities/acc"]["rows"] == 4


def test_one_answer_has_its_log_probability(tmp_path: Path, tasks: Path, model: Path) -> None:
    metrics, predictions, _ = run(tmp_path / "out", tasks, model, ("likely",))
    loaded, words = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    own = [log_p(loaded, words, f"{row['question']} =", f" {row['answer']}") for row in SUMS]
    assert [row["log_p"][0] for row in predictions] == pytest.approx(own, abs=1e-4)
    assert metrics["likely/perplexity"] == pytest.approx(
        float(torch.tensor(own).mean().neg().exp()), rel=1e-4
    )
    assert "likely/perplexity" not in predictions[0], "it is no mean over rows"


def test_answers_are_what_the_model_writes(tmp_path: Path, tasks: Path, model: Path) -> None:
    metrics, predictions, heard = run(tmp_path / "out", tasks, model, ("sums",))
    loaded, words = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    assert [row["doc_id"] for row in predictions] == [0, 1, 2], "of the function that the task names"
    for row, found in zip(SUMS, predictions, strict=False):
        given = words(f"{row['question']} =", return_tensors="pt")
        made = loaded.generate(**given, max_new_tokens=6, do_sample=False)[0, given["input_ids"].shape[1] :]
        text = words.decode(made, skip_special_tokens=True).split("\n")[0]
        assert found["prediction"] == text and found["reference"] == f" {row['answer']}"
        assert found["sums/exact_match"] is (text == f" {row['answer']}")
    assert metrics == {"sums/exact_match": 0.0} and heard.summary == metrics
    assert heard.of("table")[0]["title"] == "Wrong answers (3)"


def test_scores_are_the_same_again_to_the_byte(tmp_path: Path, tasks: Path, model: Path) -> None:
    for name in ("one", "two"):
        run(tmp_path / name, tasks, model, lm_eval={"generation": {"do_sample": True, "temperature": 1.0}})
    one, two = (folder_bytes(tmp_path / name / "data") for name in ("one", "two"))
    assert one == two and set(one) == {"metrics.json", "predictions.jsonl", "intervals.json"}


def test_settings_are_honoured(tmp_path: Path, tasks: Path, model: Path) -> None:
    plain = run(tmp_path / "plain", tasks, model, ("sums",))[1]
    for name, settings in {
        "limit": {"limit": 1},
        "num_fewshot": {"num_fewshot": 2},
        "chat_template": {"chat_template": True},
        "system_prompt": {"system_prompt": "Be brief.", "chat_template": True},
        "generation": {"generation": {"max_gen_toks": 2}},
    }.items():
        found = run(tmp_path / name, tasks, model, ("sums",), lm_eval=settings)[1]
        if name == "limit":
            assert found == plain[:1]
        elif name == "num_fewshot":
            assert found[0]["prompt"].count(" =") == 3 and found[0]["id"] != plain[0]["id"]
        elif name == "generation":
            assert all(a["prediction"] != b["prediction"] for a, b in zip(found, plain, strict=True))
        else:
            assert "<|im_start|>user" in found[0]["prompt"]
            assert ("Be brief." in found[0]["prompt"]) == (name == "system_prompt")


def test_a_group_has_figures_of_its_own(tmp_path: Path, tasks: Path, model: Path) -> None:
    (tasks / "both.yaml").write_text(
        "group: both\ntask: [cities, likely]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    metrics, predictions, _ = run(tmp_path / "out", tasks, model, ("both",))
    rights = [row.get("cities/acc", row.get("likely/acc")) for row in predictions]
    assert metrics["both/acc"] == pytest.approx(sum(rights) / 9)


def test_an_adapter_and_a_quantized_model_are_scored(tmp_path: Path, tasks: Path, model: Path) -> None:
    words = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path / "tokenizer"))
    rows = []
    for row in SUMS:
        prompt, answer = words.encode(f"{row['question']} ="), words.encode(f" {row['answer']}\n")
        rows.append((prompt + answer, [-100] * len(prompt) + answer))
    sft(
        SftConfig(
            adapter="lora", lora_r=16, lora_alpha=32, lora_target_linear=True, learning_rate=2e-2, num_epochs=60,
            micro_batch_size=5, lr_scheduler="constant", save_strategy="no",
        ),
        base_model=Model(model), training_data=training_data(tmp_path / "rows", rows), evaluation_data=None,
        out=workspace(tmp_path / "adapter"), report=Heard().report,
    )  # fmt: skip
    adapter = tmp_path / "adapter" / "data"
    metrics, predictions, _ = run(tmp_path / "a", tasks, model, ("sums", "likely"), adapter)
    assert metrics["sums/exact_match"] == 1.0 and metrics["likely/acc"] == 1.0
    assert predictions[0]["prediction"] == " 2"
    quantize(
        QuantizedConfig(quantization={"weight_dtype": "int8"}), model=Model(model), evaluation_data=None,
        out=workspace(tmp_path / "int8"), report=Heard().report,
    )  # fmt: skip
    small = run(tmp_path / "q", tasks, tmp_path / "int8" / "data", ("likely",))[1]
    full = run(tmp_path / "f", tasks, model, ("likely",))[1]
    for one, other in zip(small, full, strict=True):
        assert one["log_p"] != other["log_p"] and one["log_p"] == pytest.approx(other["log_p"], rel=0.1)


def test_what_cannot_be_run_is_said(tmp_path: Path, tasks: Path, model: Path) -> None:
    (tasks / "hub.yaml").write_text(
        "task: hub\ndataset_path: nobody/nothing\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\n"
    )
    with pytest.raises(
        SourceError, match=r"hub\.yaml reads data of the Hub, which cannot be reached.*HF_HUB_OFFLINE"
    ):
        run(tmp_path / "hub", tasks, model, ("hub",))
    (tasks / "chosen.py").write_text("def first(rows):\n    return rows.gone\n")
    with pytest.raises(
        UserError, match=r"!function chosen\.first raised AttributeError: .*chosen\.py, line 2"
    ):
        run(tmp_path / "wrong", tasks, model, ("sums",))
    (tasks / "chosen.py").write_text("def second(rows):\n    return rows\n")
    with pytest.raises(SourceError, match=r"!function chosen\.first: .*chosen\.py: AttributeError"):
        run(tmp_path / "absent", tasks, model, ("sums",))
    (tasks / "likely.yaml").write_text(
        (tasks / "likely.yaml").read_text().replace("{{question}}", "{{gone}}")
    )
    with pytest.raises(
        SourceError, match=r"likely\.yaml cannot be loaded: UndefinedError: 'gone' is undefined"
    ):
        run(tmp_path / "template", tasks, model, ("likely",))
    (tasks / "cities.yaml").write_text((tasks / "cities.yaml").read_text() + "unsafe_code: true\n")
    with pytest.raises(UserError, match="runs code that the model has written"):
        run(tmp_path / "unsafe", tasks, model, ("cities",))


def test_a_row_that_a_template_cannot_do_with_is_named(tmp_path: Path, tasks: Path, model: Path) -> None:
    rows = (tasks / "rows" / "sums.jsonl").read_text().splitlines()
    rows[2] = json.dumps({"question": "2 + 2", "answer": None})
    (tasks / "rows" / "sums.jsonl").write_text("\n".join(rows) + "\n")
    text = (tasks / "likely.yaml").read_text()
    (tasks / "likely.yaml").write_text(text.replace("{{answer}}", "{{answer.strip()}}"))
    said = r"task likely: row 3 \(doc_id 2\): doc_to_target: UndefinedError: 'None' has no attribute 'strip'"
    with pytest.raises(UserError, match=said):
        run(tmp_path / "row", tasks, model, ("likely",))


def test_a_figure_that_is_no_number_is_said(tmp_path: Path, tasks: Path, model: Path) -> None:
    text = (tasks / "sums.yaml").read_text()
    (tasks / "own.py").write_text(
        "def mean(values):\n    return float('nan')\n\n\n"
        "def score(row, results):\n    return {'odd': 1.0, 'exact_match': 0.0}\n"
    )
    metrics = (
        "[{metric: odd, aggregation: !function own.mean, higher_is_better: true}, {metric: exact_match}]"
    )
    text = text.replace("[{metric: exact_match}]", metrics) + "process_results: !function own.score\n"
    (tasks / "sums.yaml").write_text(text)
    metrics, _, heard = run(tmp_path / "nan", tasks, model, ("sums",))
    assert set(metrics) == {"sums/exact_match"}
    assert any(
        "warning: sums/odd: no finite number came out" in event["message"] for event in heard.of("log")
    )


def test_metrics_that_nobody_computes_are_told_by_check(tasks: Path) -> None:
    def said() -> list[str]:
        return [fault.reason for fault in HarnessConfig(lm_eval_tasks=[f"{tasks}/sums.yaml"]).faults()]

    assert said() == []
    text = (tasks / "sums.yaml").read_text()
    for name in ("wer", "owner/metric", "bleu", "chrf++"):
        (tasks / "sums.yaml").write_text(text.replace("metric: exact_match", f"metric: {name}"))
        assert said() == [], name
    (tasks / "sums.yaml").write_text(text.replace("metric: exact_match", "metric: exact_mach"))
    (reason,) = said()
    assert "a metric exact_mach; did you mean exact_match?" in reason
    (tasks / "sums.yaml").write_text(
        text.replace("metric: exact_match", "metric: own") + "process_results: !function chosen.first\n"
    )
    assert said() == []
    own = tasks / "chosen.py"
    own.write_text(
        own.read_text() + "\n@register_metric(metric='exact_mach')\ndef mean(values):\n    return 1\n"
    )
    (tasks / "sums.yaml").write_text(text.replace("metric: exact_match", "metric: exact_mach"))
    assert said() == [], "what a module of the task itself registers"


def test_names_are_looked_up_in_the_package() -> None:
    def said(*names: str) -> list[str]:
        return [fault.reason for fault in HarnessConfig(lm_eval_tasks=list(names)).faults()]

    assert said("arc_easy", "mmlu", "mmlu_astronomy", "ai2_arc") == []
    (reason,) = said("arc_easy", "arc_eazy")
    assert reason.startswith("arc_eazy: lm_eval 0.4.") and "has no task of this name" in reason
