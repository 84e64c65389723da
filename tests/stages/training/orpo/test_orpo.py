"""ORPO through its body: it learns, as TRL does it, however a step is cut, with an adapter or without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.pairs import Texts, echoes, preference_data
from support.tiny_model import Heard, folder_bytes, make_model, workspace
from support.trl_training import OURS, assert_same_curves, pairs_of, trl_log, trl_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from tunemill.stages.artifacts import Model, PreferenceData
from tunemill.stages.data.rows.pairs_body import PairReader, collate_pairs
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.training.method import LossParts
from tunemill.stages.training.orpo.body import counts_of, loss_of, orpo
from tunemill.stages.training.orpo.config import OrpoConfig

SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "max_grad_norm": 0,
    "lr_scheduler": "constant",
    "logging_steps": 1,
}
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(tmp_path_factory.mktemp("model") / "base"))


def run(
    folder: Path, base: Model, data: PreferenceData, held_out: PreferenceData | None = None, **settings: Any
) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = OrpoConfig(**{"learning_rate": 1e-2, **settings})
    orpo(config, base_model=base, training_data=data, evaluation_data=held_out, out=out, report=heard.report)
    return out.data, heard


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("settings", [{}, pytest.param(LORA, marks=pytest.mark.slow)], ids=["full", "lora"])
def test_it_learns_to_prefer_the_chosen_answers(
    tmp_path: Path, base: Model, settings: dict[str, Any]
) -> None:
    data = preference_data(tmp_path / "pairs", echoes("abcdefghijklmnop"), held_out=echoes("qrst"))
    given = {"micro_batch_size": 4, "num_epochs": 8, "eval_strategy": "epoch", "logging_steps": 4, **settings}
    _, heard = run(tmp_path / "odds", base, data, **given, orpo_alpha=1.0)
    losses = heard.steps("eval_loss")
    assert len(losses) == 8 and losses[32] < 0.7 * losses[4]
    assert heard.summary["last_rewards/accuracies"] == 1.0
    assert heard.steps("eval_rewards/accuracies")[32] == heard.summary["last_eval_rewards/accuracies"] >= 0.75
    assert {plot["title"] for plot in heard.of("plot")} >= {"Held-out loss", "rewards/margins", "nll_loss"}
    # Likelihood alone teaches the answers, and pulls them less far apart.
    _, likelihood = run(tmp_path / "likelihood", base, data, **given, orpo_alpha=1e-6)
    assert heard.summary["last_eval_log_odds_chosen"] > 1 + likelihood.summary["last_eval_log_odds_chosen"]


@pytest.mark.slow
def test_one_by_eight_is_eight_by_one(tmp_path: Path, base: Model) -> None:
    """Prompts and answers of unequal lengths: a mean over micro batches would be another loss."""
    pairs = [(p * (1 + i % 3), c * (1 + i % 4), r * (1 + i % 2)) for i, (p, c, r) in enumerate(echoes())]
    data = preference_data(tmp_path / "pairs", pairs)
    whole, one = run(tmp_path / "whole", base, data, micro_batch_size=8, num_epochs=2, **SGD)
    cut, eight = run(
        tmp_path / "cut", base, data, micro_batch_size=1, gradient_accumulation_steps=8, num_epochs=2, **SGD
    )
    assert len(one.steps("loss")) == 6, "the last step of an epoch has four pairs"
    for figure in (
        "loss",
        "grad_norm",
        "nll_loss",
        "log_odds_chosen",
        "rewards/margins",
        "rewards/accuracies",
    ):
        assert eight.steps(figure) == pytest.approx(one.steps(figure), rel=1e-4, abs=1e-6), figure
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_same_run_twice_is_the_same_bytes_and_monitoring_changes_none(
    tmp_path: Path, base: Model
) -> None:
    data = preference_data(tmp_path / "pairs", echoes(), held_out=echoes("xyz"))
    settings = {**LORA, "lora_dropout": 0.1, "max_steps": 5, "micro_batch_size": 2}
    first, _ = run(tmp_path / "first", base, data, **settings)
    second, heard = run(tmp_path / "second", base, data, **settings, eval_steps=2, eval_batch_size=1)
    assert folder_bytes(first) == folder_bytes(second)
    assert list(heard.steps("eval_loss")) == [2, 4]


@pytest.mark.slow
def test_held_out_figures_are_the_same_for_any_batch_size(tmp_path: Path, base: Model) -> None:
    data = preference_data(tmp_path / "pairs", echoes())
    held_out = preference_data(tmp_path / "held_out", echoes("uvwxyz"))
    figures = []
    for size in (1, 4):
        given = {"max_steps": 2, "eval_steps": 2, "eval_batch_size": size}
        _, heard = run(tmp_path / str(size), base, data, held_out, **given)
        figures.append({name: heard.steps(name)[2] for name in ("eval_loss", "eval_log_odds_chosen")})
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def ours(config: OrpoConfig, base: Model, data: PreferenceData, batch_size: int) -> tuple[float, LossParts]:
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    reader = PairReader(data.rows, tokenizer, config.sequence_len)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    batch = collate_pairs([reader.read(place) for place in range(batch_size)])
    parts, counts = loss_of(config, model, batch), counts_of(batch)
    return float(sum(total / counts[name] for name, total in parts.totals.items())), parts


def trls(folder: Path, base: Model, rows: list[Texts], alpha: float) -> tuple[float, dict[str, float]]:
    """What TRL's own trainer says of all rows as one batch."""
    trainer = trl_trainer(
        ORPOTrainer, ORPOConfig, folder, base.path, pairs_of(rows), beta=alpha, max_length=512
    )
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    with torch.no_grad():
        loss, metrics = trainer.get_batch_loss_metrics(trainer.model, batch)
    return float(loss), metrics


def test_the_loss_is_trls(tmp_path: Path, base: Model) -> None:
    rows = [(p, c * (1 + i % 3), r) for i, (p, c, r) in enumerate(echoes("abcde"))]
    loss, parts = ours(
        OrpoConfig(learning_rate=1, orpo_alpha=0.3),
        base,
        preference_data(tmp_path / "pairs", rows),
        len(rows),
    )
    expected, metrics = trls(tmp_path / "trl", base, rows, 0.3)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, (total, counted) in parts.metrics.items():
        if counted == "pairs":
            assert float(total) / len(rows) == pytest.approx(metrics[name], rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_ten_steps_are_trls(tmp_path: Path, base: Model) -> None:
    rows = [(p, c * (1 + i % 3), r) for i, (p, c, r) in enumerate(echoes())]
    _, heard = run(tmp_path / "out", base, preference_data(tmp_path / "pairs", rows), **OURS, orpo_alpha=0.3)
    log = trl_log(
        ORPOTrainer, ORPOConfig, tmp_path / "trl", base.path, pairs_of(rows), beta=0.3, max_length=512
    )
    assert len(log) == 10 and log[-1]["loss"] < log[0]["loss"]
    assert_same_curves(heard, log, ("loss", *OrpoConfig.own_figures))


@pytest.mark.slow
def test_pairs_of_which_nothing_is_left_are_not_trained_on(tmp_path: Path, base: Model) -> None:
    rows = [("a long prompt " * 20, "yes", "no"), *echoes("ab")]
    data = preference_data(tmp_path / "pairs", rows)
    _, heard = run(tmp_path / "out", base, data, sequence_len=64)
    assert heard.summary["steps"] == 2
    none = preference_data(tmp_path / "none", rows[:1])
    with pytest.raises(UserError, match="no row to train on"):
        run(tmp_path / "empty", base, none, sequence_len=64)


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    model = Model(make_model(tmp_path / "mute"))
    settings = model.path / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"eos_token": "<|im_end|>",', ""))
    with pytest.raises(SettingError, match="no EOS token to end answers with; set special_tokens: eos_token"):
        run(tmp_path / "out", model, preference_data(tmp_path / "pairs", echoes("ab")))
