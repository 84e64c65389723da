"""KTO through its body: it learns, as TRL does it, however a step is cut, with an adapter or without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from support.rated import COLUMNS, judged, rated_data, said_by, signs, unequal
from support.tiny_model import Heard, folder_bytes, make_model, workspace
from support.trl_training import OURS, assert_same_curves, trl_log
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Model, PreferenceData
from tunemill.stages.data.rows.answer_tokens import AnswerTokens
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.rated_body import RatedReader
from tunemill.stages.errors import RowError
from tunemill.stages.models.answers_body import summed_log_p
from tunemill.stages.report import Report
from tunemill.stages.training.kto.body import kto, say_shares
from tunemill.stages.training.kto.config import KtoConfig

SGD: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "lr_scheduler": "constant", "logging_steps": 1,
}  # fmt: skip
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(tmp_path_factory.mktemp("model") / "base"))


def run(
    folder: Path, base: Model, data: PreferenceData, held_out: PreferenceData | None = None, **settings: Any
) -> tuple[Path, Heard]:
    heard = Heard()
    return train(folder, base, data, held_out, heard.report, **settings), heard


def train(
    folder: Path,
    base: Model,
    data: PreferenceData,
    held_out: PreferenceData | None,
    report: Report,
    **settings: Any,
) -> Path:
    config = KtoConfig(**{"learning_rate": 1e-2, **settings})
    alike = {"micro_batch_size": config.micro_batch_size, "sequence_len": config.sequence_len}
    out = workspace(folder)
    kto(
        config,
        base_model=base,
        training_data=data,
        evaluation_data=held_out,
        out=out,
        report=report,
        reference_logprobs=said_by(folder / "said", base, data, **alike),
        held_out_logprobs=None if held_out is None else said_by(folder / "said_out", base, held_out, **alike),
    )
    return out.data


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def accuracy(folder: Path, questions: list[tuple[str, str, str]]) -> float:
    """How often the right answer is likelier than the wrong one to the same question."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompts, right, wrong = zip(*questions, strict=True)
    tokens = AnswerTokens(tokenizer, 64)
    with torch.no_grad():
        of_right, of_wrong = (
            summed_log_p(model, Collator("padded", None)([[row] for row in tokens.rows(prompts, answers)]))
            for answers in (right, wrong)
        )
    return float((of_right > of_wrong).float().mean())


@pytest.mark.slow
def test_it_learns_what_is_desirable(tmp_path: Path, base: Model) -> None:
    questions = signs(100, skip=400)
    held_out = [
        (p, a, label) for p, right, wrong in questions for a, label in ((right, True), (wrong, False))
    ]
    data = rated_data(tmp_path / "rows", judged(384), held_out=held_out)
    folder, heard = run(
        tmp_path / "out",
        base,
        data,
        micro_batch_size=16,
        num_epochs=4,
        eval_strategy="epoch",
        learning_rate=3e-3,
    )
    assert 0.3 < accuracy(base.path, questions) < 0.7
    assert accuracy(folder, questions) > 0.9
    rising = list(heard.steps("eval_rewards/margins").values())
    assert len(rising) == 4 and rising[0] > 0 and rising[-1] > 2 * rising[0]
    assert heard.steps("eval_loss")[96] < 0.45
    assert {plot["title"] for plot in heard.of("plot")} >= {"Held-out loss", "rewards/margins", "kl"}


@pytest.mark.parametrize(
    "settings",
    [pytest.param({}, marks=pytest.mark.slow), {**LORA, "lora_dropout": 0.5}],
    ids=["full", "lora"],
)
def test_the_first_step_is_where_the_reference_is(
    tmp_path: Path, base: Model, settings: dict[str, Any]
) -> None:
    data = rated_data(tmp_path / "rows", unequal(8))
    given = {"micro_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 2, "logging_steps": 1}
    _, heard = run(tmp_path / "out", base, data, **given, **settings, kto_desirable_weight=1.2)
    desirable = sum(label for *_, label in unequal(8))
    assert heard.steps("loss")[1] == pytest.approx(0.5 * (desirable * 1.2 + 8 - desirable) / 8, abs=1e-7)
    for name in ("kl", "rewards/margins", "rewards/chosen", "rewards/rejected"):
        assert (heard.steps(name)[1] == 0 and heard.steps(name)[2] != 0) or name == "kl"


@pytest.mark.slow
def test_one_by_eight_is_eight_by_one(tmp_path: Path, base: Model) -> None:
    """Also where a micro batch has one kind only: the reference point is that of the whole step."""
    data = rated_data(tmp_path / "rows", unequal(20))
    whole, one = run(tmp_path / "whole", base, data, micro_batch_size=8, num_epochs=2, **SGD)
    cut, eight = run(
        tmp_path / "cut", base, data, micro_batch_size=1, gradient_accumulation_steps=8, num_epochs=2, **SGD
    )
    assert len(one.steps("loss")) == 6, "the last step of an epoch has four rows"
    assert max(one.steps("kl").values()) > 1e-3
    for figure in ("loss", "grad_norm", *KtoConfig.own_figures):
        assert eight.steps(figure) == pytest.approx(one.steps(figure), rel=1e-4, abs=1e-6), figure
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_same_run_twice_is_the_same_bytes_and_monitoring_changes_none(
    tmp_path: Path, base: Model
) -> None:
    data = rated_data(tmp_path / "rows", judged(12), held_out=judged(5, skip=300))
    settings = {**LORA, "max_steps": 5, "micro_batch_size": 2}
    first, _ = run(tmp_path / "first", base, data, **settings)
    second, heard = run(tmp_path / "second", base, data, **settings, eval_steps=2, eval_batch_size=1)
    assert folder_bytes(first) == folder_bytes(second)
    assert list(heard.steps("eval_loss")) == [2, 4]


@pytest.mark.slow
def test_nothing_is_dropped_out(tmp_path: Path, base: Model) -> None:
    data = rated_data(tmp_path / "rows", judged(8))
    given = {**LORA, "max_steps": 3, "micro_batch_size": 4, "logging_steps": 1}
    first, heard = run(tmp_path / "first", base, data, **given, lora_dropout=0.5)
    second, plain = run(tmp_path / "second", base, data, **given)
    assert heard.steps("loss") == plain.steps("loss")
    for name, tensor in weights(first).items():
        assert torch.equal(weights(second)[name], tensor), name


@pytest.mark.slow
def test_held_out_figures_are_the_same_for_any_batch_size(tmp_path: Path, base: Model) -> None:
    data, held_out = (
        rated_data(tmp_path / "rows", judged(8)),
        rated_data(tmp_path / "out", unequal(7, skip=300)),
    )
    figures = []
    for size in (1, 4):
        given = {"max_steps": 2, "eval_steps": 2, "eval_batch_size": size, "micro_batch_size": 4}
        _, heard = run(tmp_path / str(size), base, data, held_out, **given)
        names = ("eval_loss", *(f"eval_{name}" for name in KtoConfig.own_figures))
        figures.append({name: heard.steps(name)[2] for name in names})
    assert figures[0] == pytest.approx(figures[1], rel=1e-4, abs=1e-6)


def test_steps_and_held_out_rows_of_one_kind_have_no_figures_of_the_other(
    tmp_path: Path, base: Model
) -> None:
    rows = [("a=", "+", True), ("b=", "-", True), ("c=", "+", False), ("d=", "-", False)]
    data = rated_data(tmp_path / "rows", rows, held_out=rows[:2])
    given = {"micro_batch_size": 2, "max_steps": 2, "eval_steps": 2, "logging_steps": 1}
    _, heard = run(tmp_path / "out", base, data, **given)
    assert list(heard.steps("rewards/chosen")) == [1] and list(heard.steps("rewards/rejected")) == [2]
    assert not heard.steps("rewards/margins") and not heard.steps("eval_rewards/margins")
    assert list(heard.steps("eval_logps/chosen")) == [2] and len(heard.steps("loss")) == 2
    assert heard.summary["last_rewards/chosen"] == 0 and "last_rewards/rejected" in heard.summary


def test_ten_steps_are_trls(tmp_path: Path, base: Model) -> None:
    """All rows in one batch: there TRL moves completions on by one row as we do."""
    from trl import KTOConfig, KTOTrainer

    rows = unequal(8)
    weighted = {"kto_desirable_weight": 1.3, "kto_undesirable_weight": 0.8, "rl_beta": 0.3}
    given = {**OURS, "micro_batch_size": 8, **weighted}
    _, heard = run(tmp_path / "out", base, rated_data(tmp_path / "rows", rows), **given)
    columns = Dataset.from_list([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    settings = {"desirable_weight": 1.3, "undesirable_weight": 0.8, "beta": 0.3, "max_length": 512}
    log = trl_log(
        KTOTrainer, KTOConfig, tmp_path / "trl", base.path, columns, per_device_train_batch_size=8, **settings
    )
    assert len(log) == 10 and log[-1]["loss"] < log[0]["loss"] and log[-1]["kl"] > 0
    assert_same_curves(heard, log, ("loss", *KtoConfig.own_figures))


@pytest.mark.slow
@pytest.mark.parametrize("start", first_in_ci("lora_ga", "eva"))
def test_an_adapter_may_start_from_judged_answers(tmp_path: Path, base: Model, start: str) -> None:
    given = {**LORA, "lora_r": 4, "micro_batch_size": 8, "max_steps": 2, "peft_init_lora_weights": start}
    _, heard = run(tmp_path / "out", base, rated_data(tmp_path / "rows", unequal(16)), **given)
    assert heard.steps("loss") and heard.summary["steps"] == 2


class StoppedError(Exception):
    """What stands for a killed process; test_resume.py kills real ones."""


@pytest.mark.slow
@pytest.mark.parametrize("step", first_in_ci(7, 3))
def test_it_goes_on_exactly(tmp_path: Path, base: Model, step: int) -> None:
    data = rated_data(tmp_path / "rows", unequal(10))
    given = {
        **LORA, "gradient_accumulation_steps": 2, "num_epochs": 2, "save_steps": 2,
        "logging_steps": 1,
    }  # fmt: skip

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(tmp_path / "resumed", base, data, None, Report(interrupt), **given)
    found, resumed = run(tmp_path / "resumed", base, data, **given)
    expected, whole = run(tmp_path / "whole", base, data, **given)
    assert folder_bytes(found) == folder_bytes(expected)
    assert resumed.steps("loss") == {s: loss for s, loss in whole.steps("loss").items() if s >= step}


def test_kinds_that_are_out_of_balance_are_told(tmp_path: Path, base: Model) -> None:
    data = rated_data(tmp_path / "rows", [(f"{letter}=", "+", letter != "A") for letter in "ABCDEFGH"])
    rows, heard = RatedReader(data.rows, AutoTokenizer.from_pretrained(base.path), 64), Heard()
    say_shares(KtoConfig(learning_rate=1), rows, heard.report)
    assert heard.summary["desirable_rows"] == 7 and heard.summary["undesirable_rows"] == 1
    (said,) = [event["message"] for event in heard.of("log")]
    assert "7.00 to 1" in said and "kto_desirable_weight between 0.14 and 0.19" in said
    heard = Heard()
    say_shares(KtoConfig(learning_rate=1, kto_desirable_weight=0.16), rows, heard.report)
    assert not heard.of("log") and heard.summary["desirable_rows"] == 7


def test_rows_of_which_nothing_is_left_are_told_or_refused(tmp_path: Path, base: Model) -> None:
    long = ("a long prompt " * 20, "yes", True)
    data = rated_data(tmp_path / "rows", [long, *judged(4)], held_out=[long])
    with pytest.raises(RowError, match="none of the 1 held-out rows is left to score"):
        run(tmp_path / "none", base, data, sequence_len=32)
    data = rated_data(tmp_path / "mended", [long, *judged(4)])
    _, heard = run(tmp_path / "out", base, data, sequence_len=32, micro_batch_size=2)
    assert heard.summary["left_out_rows"] == 1 and heard.summary["steps"] == 2
