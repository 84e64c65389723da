"""DPO and IPO through their bodies: they learn, as TRL does it, however a step is cut and whoever is the reference."""

import gc
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.pairs import echoes, preference_data
from support.tiny_model import Heard, folder_bytes, make_model, workspace
from support.trl_training import OURS, assert_same_curves, pairs_of, trl_log
from support.variants import first_in_ci
from trl import DPOConfig, DPOTrainer

from tunemill.stages.artifacts import Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.report import Report
from tunemill.stages.training.dpo.body import dpo
from tunemill.stages.training.dpo.config import DpoConfig
from tunemill.stages.training.ipo.body import ipo
from tunemill.stages.training.ipo.config import IpoConfig
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.reference_body import LiveReference
from tunemill.stages.training.reference_logprobs.body import reference_logprobs
from tunemill.stages.training.reference_logprobs.config import ReferenceConfig

LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
METHODS = {"dpo": (dpo, DpoConfig), "ipo": (ipo, IpoConfig)}
BESIDE = {"precompute_ref_log_probs": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(tmp_path_factory.mktemp("model") / "base"))


def stored(
    folder: Path, base: Model, data: PreferenceData, training: Any, size: int | None
) -> ReferenceLogProbs:
    out = workspace(folder)
    config = ReferenceConfig(
        micro_batch_size=size or training.micro_batch_size,
        adapter=training.adapter,
        lora_model_dir=training.lora_model_dir,
        bf16=False,
    )
    reference_logprobs(config, base_model=base, preference_data=data, out=out, report=Report(lambda _: None))
    return ReferenceLogProbs(out.data)


def run(
    folder: Path,
    base: Model,
    data: PreferenceData,
    method: str = "dpo",
    reference_size: int | None = None,
    **settings: Any,
) -> tuple[Path, Heard]:
    """`reference_size`: pairs of a batch of the reference, where they are not those of the training."""
    out, heard = workspace(folder), Heard()
    body, kind = METHODS[method]
    config = kind(**{"learning_rate": 1e-2, "bf16": False, "logging_steps": 1, **settings})
    reference = None
    if not config.asks_beside_each_step:
        reference = stored(folder / "reference", base, data, config, reference_size)
    body(
        config,
        base_model=base,
        training_data=data,
        evaluation_data=None,
        reference_logprobs=reference,
        out=out,
        report=heard.report,
    )
    return out.data, heard


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("dpo", {}), pytest.param("ipo", LORA, marks=pytest.mark.slow)],
    ids=["dpo", "ipo-lora"],
)
def test_it_learns_to_prefer_the_chosen_answers(
    tmp_path: Path, base: Model, method: str, settings: dict[str, Any]
) -> None:
    data = preference_data(tmp_path / "pairs", echoes("abcdefghijklmnop"), held_out=echoes("qrst"))
    given = {"micro_batch_size": 4, "num_epochs": 6, "eval_strategy": "epoch", **settings}
    _, heard = run(tmp_path / "run", base, data, method, **given)
    margins = heard.steps("eval_rewards/margins")
    assert heard.steps("rewards/margins")[1] == 0
    assert heard.steps("loss")[1] == pytest.approx({"dpo": 0.6931472, "ipo": 25.0}[method], abs=1e-6)
    assert heard.steps("eval_rewards/accuracies")[24] > 0.9 and margins[24] > margins[4] > 0


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param({"dpo_loss_type": ["sigmoid"]}, marks=pytest.mark.exhaustive),
        {"dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1.0, 0.3]},
        pytest.param(
            {"dpo_loss_type": ["robust"], "dpo_label_smoothing": 0.1, "dpo_use_weighting": True},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["sigmoid", "with-sft", "weighted"],
)
def test_ten_steps_are_those_of_trl(tmp_path: Path, base: Model, loss: dict[str, Any]) -> None:
    rows = echoes()
    _, heard = run(tmp_path / "ours", base, preference_data(tmp_path / "pairs", rows), **{**OURS, **loss})
    theirs = {name.removeprefix("dpo_"): value for name, value in loss.items()}
    log = trl_log(
        DPOTrainer, DPOConfig, tmp_path / "theirs", base.path, pairs_of(rows), max_length=512, **theirs
    )
    assert_same_curves(heard, log, ("loss", "rewards/margins", "rewards/chosen", "logps/rejected"))


@pytest.mark.slow
def test_ten_steps_of_ipo_are_those_of_trl(tmp_path: Path, base: Model) -> None:
    rows = echoes()
    _, heard = run(tmp_path / "ours", base, preference_data(tmp_path / "pairs", rows), "ipo", **OURS)
    log = trl_log(
        DPOTrainer,
        DPOConfig,
        tmp_path / "theirs",
        base.path,
        pairs_of(rows),
        max_length=512,
        loss_type=["ipo"],
    )
    assert_same_curves(heard, log, ("loss", "rewards/margins"))


@pytest.mark.parametrize("settings", [pytest.param({}, marks=pytest.mark.slow), LORA], ids=["full", "lora"])
def test_a_reference_beside_each_step_says_what_was_stored(
    tmp_path: Path, base: Model, settings: dict[str, Any]
) -> None:
    data = preference_data(tmp_path / "pairs", echoes())
    given = {"max_steps": 6, "micro_batch_size": 4, **settings}
    _, before = run(tmp_path / "before", base, data, **given)
    _, beside = run(tmp_path / "beside", base, data, **given, **BESIDE)
    for figure in ("loss", "rewards/margins", "rewards/chosen"):
        assert beside.steps(figure) == pytest.approx(before.steps(figure), abs=1e-5), figure


@pytest.mark.slow
@pytest.mark.parametrize("start", first_in_ci({}, {"peft_init_lora_weights": "loftq"}), ids=str)
def test_further_training_is_compared_with_the_stored_adapter(
    tmp_path: Path, base: Model, start: dict[str, Any]
) -> None:
    data = preference_data(tmp_path / "pairs", echoes())
    given = {"max_steps": 2, "micro_batch_size": 4}
    first, before = run(tmp_path / "first", base, data, **given, **LORA, **start)
    _, further = run(tmp_path / "further", base, data, **given, adapter="lora", lora_model_dir=str(first))
    assert further.steps("rewards/margins")[1] == 0 and further.steps("rewards/margins")[2] != 0
    assert further.steps("loss")[1] == pytest.approx(math.log(2), abs=1e-7)
    assert further.steps("logps/chosen")[1] > before.steps("logps/chosen")[1] + 1
    # Where every weight is trained the adapter is noted, and no part of the reference.
    _, full = run(tmp_path / "full", base, data, **given, lora_model_dir=str(first))
    assert full.steps("rewards/margins")[1] == 0


@pytest.mark.slow
def test_a_compiled_model_begins_where_the_reference_is(tmp_path: Path, base: Model) -> None:
    data = preference_data(tmp_path / "pairs", echoes())
    given = {"max_steps": 1, "micro_batch_size": 4, "torch_compile": True, "torch_compile_backend": "eager"}
    _, heard = run(tmp_path / "out", base, data, **given)
    assert heard.steps("rewards/margins")[1] == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({**BESIDE, "relora": True, "jagged_restart_steps": 2}, "relora changes that base"),
        ({**BESIDE, "peft_init_lora_weights": "pissa"}, "peft_init_lora_weights changes that base"),
        ({**BESIDE, "peft": {"loftq_config": {"loftq_bits": 4}}}, "peft changes that base"),
        ({"peft_layer_replication": [(0, 2), (1, 2)]}, "more layers than the reference"),
    ],
    ids=str,
)
def test_a_reference_that_would_be_another_model_is_refused(settings: dict[str, Any], reason: str) -> None:
    for config in (DpoConfig, IpoConfig):
        with pytest.raises(ValueError, match=reason):
            config(learning_rate=1e-2, **LORA, **settings)


def test_nothing_of_a_failed_attempt_is_kept(tmp_path: Path, base: Model) -> None:
    """What runs out of memory is tried again, and memory is what there is not."""
    live = LiveReference(DpoConfig(learning_rate=1e-2, **BESIDE), base)
    model = load_causal_lm(base.path, dtype=torch.float32, compute_type=torch.float32)
    gone = weakref.ref(model)
    live.meet(model, Precision(torch.float32), tmp_path)
    del model
    gc.collect()
    assert gone() is None


def test_one_by_eight_is_eight_by_one(tmp_path: Path, base: Model) -> None:
    """Also where the reference was asked eight at a time: auto_find_batch_size cuts the steps of the training alone."""
    pairs = [(p * (1 + i % 3), c * (1 + i % 4), r * (1 + i % 2)) for i, (p, c, r) in enumerate(echoes())]
    data = preference_data(tmp_path / "pairs", pairs)
    given = {"max_steps": 4, "learning_rate": 1e-3, "dpo_loss_type": ["sigmoid", "sft"]}
    _, one = run(tmp_path / "whole", base, data, micro_batch_size=8, **given)
    cut = {"micro_batch_size": 1, "gradient_accumulation_steps": 8, "reference_size": 8}
    _, eight = run(tmp_path / "cut", base, data, **cut, **given)
    for figure in ("loss", "nll_loss", "rewards/margins"):
        assert eight.steps(figure) == pytest.approx(one.steps(figure), rel=1e-4, abs=1e-5), figure


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", first_in_ci({}, {"dpo_use_weighting": True, "dpo_loss_type": ["ipo", "sft"]}), ids=str
)
def test_without_padding_the_figures_are_the_same(tmp_path: Path, base: Model, loss: dict[str, Any]) -> None:
    pairs = [(p * (1 + i % 3), c * (1 + i % 4), r * (1 + i % 2)) for i, (p, c, r) in enumerate(echoes())]
    data = preference_data(tmp_path / "pairs", pairs, held_out=pairs[:5])
    given = {"max_steps": 4, "micro_batch_size": 4, "learning_rate": 1e-3, "eval_steps": 4, **loss}
    _, padded = run(tmp_path / "padded", base, data, **given)
    _, flat = run(tmp_path / "flat", base, data, **given, dpo_padding_free=True)
    for figure in ("loss", "nll_loss", "rewards/margins", "logps/chosen", "eval_loss"):
        assert flat.steps(figure) == pytest.approx(padded.steps(figure), rel=1e-4, abs=1e-4), figure


def test_a_reference_that_follows_is_mixed_with_the_trained_model(tmp_path: Path, base: Model) -> None:
    data = preference_data(tmp_path / "pairs", echoes())
    given = {"max_steps": 4, "micro_batch_size": 4, "sync_ref_model": True, "ref_model_sync_steps": 2}
    _, all_of_it = run(tmp_path / "all", base, data, **given, ref_model_mixup_alpha=1.0)
    # After two steps the reference is the trained model, so the third begins where it began.
    assert all_of_it.steps("rewards/margins")[3] == pytest.approx(0, abs=1e-6)
    assert all_of_it.steps("loss")[3] == pytest.approx(all_of_it.steps("loss")[1], abs=1e-6)


@pytest.mark.slow
def test_a_reference_that_follows_half_is_between(tmp_path: Path, base: Model) -> None:
    data = preference_data(tmp_path / "pairs", echoes())
    given = {"max_steps": 4, "micro_batch_size": 4}
    follows = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5}
    _, half = run(tmp_path / "half", base, data, **given, **follows)
    _, fixed = run(tmp_path / "fixed", base, data, **given)
    assert 0 < abs(half.steps("rewards/margins")[3]) < abs(fixed.steps("rewards/margins")[3])


@pytest.mark.slow
def test_there_is_no_dropout_and_the_same_run_twice_is_the_same_bytes(tmp_path: Path, base: Model) -> None:
    data = preference_data(tmp_path / "pairs", echoes())
    given = {**LORA, "max_steps": 3, "micro_batch_size": 2}
    first, heard = run(tmp_path / "first", base, data, **given, lora_dropout=0.3)
    second, _ = run(tmp_path / "second", base, data, **given, lora_dropout=0.3)
    plain, _ = run(tmp_path / "plain", base, data, **given)
    assert folder_bytes(first) == folder_bytes(second)
    assert heard.steps("rewards/margins")[1] == 0
    for name, tensor in weights(plain).items():
        assert torch.equal(weights(first)[name], tensor), name
