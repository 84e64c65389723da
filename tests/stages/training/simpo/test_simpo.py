"""SimPO through its body: it learns a preference, as TRL does it, however a step is cut, with an adapter or without."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.pairs import echoes, halves, preference_data
from support.tiny_model import Heard, make_model, workspace
from support.trl_training import OURS, assert_same_curves, pairs_of, trl_log
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from tunemill.stages.artifacts import Model, PreferenceData
from tunemill.stages.data.rows.pairs_body import PairReader
from tunemill.stages.training.method import OwnLoss
from tunemill.stages.training.pairs_body import PAIRS
from tunemill.stages.training.preferences_body import scorer
from tunemill.stages.training.simpo.body import counts_of, loss_of, simpo
from tunemill.stages.training.simpo.config import SimpoConfig

LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(tmp_path_factory.mktemp("model") / "base"))


def run(folder: Path, base: Model, data: PreferenceData, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = SimpoConfig(**{"learning_rate": 1e-2, "logging_steps": 1, **settings})
    simpo(config, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report)
    return out.data, heard


def untrained(base: Model, data: PreferenceData, config: SimpoConfig) -> dict[str, float]:
    """The figures of held-out pairs before the first step."""
    reader = PairReader(data.held_out, AutoTokenizer.from_pretrained(base.path), config.sequence_len)
    own_loss = OwnLoss(lambda model, batch: loss_of(config, model, batch), counts_of)
    return scorer(PAIRS, config, own_loss, reader)(AutoModelForCausalLM.from_pretrained(base.path))


@pytest.mark.parametrize(
    "settings",
    [pytest.param({}, marks=pytest.mark.slow), {**LORA, "learning_rate": 3e-3}],
    ids=["full", "lora"],
)
def test_it_learns_a_preference_that_holds_for_pairs_it_has_not_seen(
    tmp_path: Path, base: Model, settings: dict[str, Any]
) -> None:
    data = preference_data(tmp_path / "pairs", halves(64, seed=1), held_out=halves(40, seed=2))
    given = {"micro_batch_size": 8, "num_epochs": 4, "eval_strategy": "epoch", "rl_beta": 2}
    before = untrained(base, data, SimpoConfig(learning_rate=1, rl_beta=2, eval_batch_size=8))
    assert 0.3 < before["eval_rewards/accuracies"] < 0.7
    _, heard = run(tmp_path / "out", base, data, **{"learning_rate": 5e-3, **given, **settings})
    accuracies, margins = heard.steps("eval_rewards/accuracies"), heard.steps("eval_rewards/margins")
    assert accuracies[32] == heard.summary["last_eval_rewards/accuracies"] > 0.9
    rising = [before["eval_rewards/margins"], *margins.values()]
    assert len(rising) == 5 and rising == sorted(rising)
    assert {plot["title"] for plot in heard.of("plot")} >= {"Held-out loss", *SimpoConfig.own_figures}


def test_the_first_loss_is_the_untrained_models(tmp_path: Path, base: Model) -> None:
    rows = halves(4, seed=3)
    data = preference_data(tmp_path / "pairs", rows, held_out=rows)
    _, heard = run(tmp_path / "out", base, data, micro_batch_size=4, max_steps=1, cpo_alpha=0.5)
    # By plain PyTorch, one answer at a time.
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path)

    def log_p(prompt: str, answer: str) -> torch.Tensor:
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor([*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id])
        with torch.no_grad():
            every = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        return every.gather(-1, ids[1:, None])[start - 1 :, 0]

    chosen, rejected = ([log_p(row[0], row[side]) for row in rows] for side in (1, 2))
    of_pairs = [
        math.log1p(math.exp(0.5 - 0.1 * float(c.mean() - r.mean())))
        for c, r in zip(chosen, rejected, strict=True)
    ]
    expected = sum(of_pairs) / 4 - 0.5 * float(torch.cat(chosen).mean())
    assert heard.steps("loss")[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_one_by_eight_is_eight_by_one(tmp_path: Path, base: Model) -> None:
    """Prompts and answers of unequal lengths: a mean over micro batches would be another loss."""
    pairs = [(p * (1 + i % 3), c * (1 + i % 4), r * (1 + i % 2)) for i, (p, c, r) in enumerate(echoes())]
    data = preference_data(tmp_path / "pairs", pairs)
    given = {"optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "lr_scheduler": "constant"}
    whole, one = run(tmp_path / "whole", base, data, micro_batch_size=8, num_epochs=2, **given)
    cut, eight = run(
        tmp_path / "cut", base, data, micro_batch_size=1, gradient_accumulation_steps=8, num_epochs=2, **given
    )
    assert len(one.steps("loss")) == 6, "the last step of an epoch has four pairs"
    for figure in ("loss", "grad_norm", *SimpoConfig.own_figures):
        assert eight.steps(figure) == pytest.approx(one.steps(figure), rel=1e-4, abs=1e-6), figure
    found, expected = (load_file(next(folder.glob("*.safetensors"))) for folder in (cut, whole))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cpo_alpha", first_in_ci(1.0, 0.0))
def test_ten_steps_are_trls(tmp_path: Path, base: Model, cpo_alpha: float) -> None:
    rows = [(p, c * (1 + i % 3), r) for i, (p, c, r) in enumerate(echoes())]
    asked = {"simpo_gamma": 0.8, "cpo_alpha": cpo_alpha}
    _, heard = run(
        tmp_path / "out", base, preference_data(tmp_path / "pairs", rows), **OURS, rl_beta=2.0, **asked
    )
    log = trl_log(
        CPOTrainer, CPOConfig, tmp_path / "trl", base.path, pairs_of(rows),
        loss_type="simpo", beta=2.0, max_length=512, **asked,
    )  # fmt: skip
    assert len(log) == 10 and log[-1]["loss"] < log[0]["loss"]
    # Without its weight TRL does not compute the likelihood, and says 0.
    names = SimpoConfig.own_figures if cpo_alpha else SimpoConfig.own_figures[1:]
    assert_same_curves(heard, log, ("loss", *names))
