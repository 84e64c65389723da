"""Packing on every attention that runs on a CPU, and batches without padding: the same losses as row by row."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.tiny_model import (
    Heard,
    evaluation_data,
    make_model,
    packs_of,
    random_rows,
    tiny_config,
    training_data,
    workspace,
)
from support.variants import first_in_ci, kept_in_ci
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from tunemill.stages.artifacts import EvaluationData, Model, TrainingData
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.isolation_body import rows_leak
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.answers.body import evaluate
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.models import packed_loss_body
from tunemill.stages.models.loss_body import row_losses
from tunemill.stages.models.packed_loss_body import packed_row_losses
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

ATTENTION = ["eager", "sdpa", "flex_attention"]
ROWS = random_rows(9, seed=3, longest=30)
SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "num_epochs": 1}


@contextmanager
def quickly() -> Iterator[None]:
    """Flex attention without a compiler: the same masks, in plain operations."""
    torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        torch.compiler.set_stance("default")


def tiny_model(attention: str) -> Any:
    torch.manual_seed(0)
    config = tiny_config(use_cache=False)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def logits(model: Any, packs: list[list[tuple[Any, Any]]]) -> Any:
    batch = Collator("packed", 96)(packs)
    with torch.no_grad(), quickly():
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_row_does_not_see_its_neighbours(attention: str) -> None:
    model = tiny_model(attention)
    rows = [(np.asarray(ids, np.int32), np.asarray(labels, np.int32)) for ids, labels in ROWS[:3]]
    start, end = len(rows[0][0]), len(rows[0][0]) + len(rows[1][0])
    before, after = [(rows[i][0][::-1].copy(), rows[i][1]) for i in (0, 2)]
    neighbours = [(rows[0], rows[2]), (before, rows[2]), (rows[0], after), (before, after)]
    found = [logits(model, [[first, rows[1], last], [rows[1]]]) for first, last in neighbours]
    for other in found[1:]:
        assert torch.equal(other[0, start:end], found[0][0, start:end])
        assert not torch.equal(other[0], found[0][0])
    alone = logits(model, [[rows[1]]])[0, : end - start]
    torch.testing.assert_close(found[0][0, start:end], alone, atol=1e-5, rtol=1e-4)
    with quickly():
        assert not rows_leak(model, "cpu")


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_packed_loss_of_each_row_is_that_of_the_row(
    tmp_path: Path, attention: str, batch_size: int
) -> None:
    model = tiny_model(attention).train()
    rows = Rows(evaluation_data(tmp_path, ROWS).rows)
    numbers = [4, 0, 1, 8, 2]
    alone = row_losses(tiny_model("eager"), rows, numbers, 1)
    with quickly():
        packed = packed_row_losses(model, rows, numbers, batch_size)
    assert [loss.tokens for loss in packed] == [loss.tokens for loss in alone]
    assert [loss.total for loss in packed] == pytest.approx([loss.total for loss in alone], rel=1e-4)
    assert model.training


def test_packs_of_held_out_rows_are_fewer_than_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    model = tiny_model("sdpa")
    model.register_forward_pre_hook(
        lambda _m, _a, given: shapes.append(given["input_ids"].shape), with_kwargs=True
    )
    rows = Rows(evaluation_data(tmp_path, ROWS).rows)
    packed_row_losses(model, rows, range(9), 2)
    longest = int(rows.lengths.max())
    # The first two passes ask whether the model keeps rows apart.
    assert sum(batch for batch, _ in shapes[2:]) == -(-int(rows.lengths.sum()) // longest)
    monkeypatch.setattr(packed_loss_body, "LOGIT_BYTES", 1)
    shapes.clear()
    packed_row_losses(model, rows, range(9), 2)
    assert {batch for batch, _ in shapes} == {1}


def test_a_model_whose_rows_see_each_other_is_refused(tmp_path: Path) -> None:
    mamba = MambaForCausalLM(MambaConfig(vocab_size=416, hidden_size=16, num_hidden_layers=1, state_size=4))
    rows = Rows(evaluation_data(tmp_path, ROWS).rows)
    with pytest.raises(SettingError, match="eval_sample_packing: in MambaForCausalLM the rows"):
        packed_row_losses(mamba, rows, range(9), 2)


def run(
    folder: Path, base: Model, data: TrainingData, held_out: EvaluationData | None = None, **settings: Any
) -> Heard:
    heard = Heard()
    config = SftConfig(**{"logging_steps": 1, **SGD, **settings})
    sft(
        config, base_model=base, training_data=data, evaluation_data=held_out, out=workspace(folder),
        report=heard.report,
    )  # fmt: skip
    return heard


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_model(tmp_path / "base"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    first_in_ci(
        {"batch_flattening": True, "attn_implementation": "sdpa", "pad_to_multiple_of": 32},
        {"batch_flattening": True, "attn_implementation": "eager"},
        {"batch_flattening": "auto"},
        {"pad_to_multiple_of": 16},
        {"pad_to_sequence_len": True, "sequence_len": 40},
    ),
)
def test_how_batches_are_laid_out_does_not_change_training(
    tmp_path: Path, base: Model, settings: dict[str, Any]
) -> None:
    data = training_data(tmp_path / "rows", random_rows(12, longest=30))
    padded = run(tmp_path / "padded", base, data, micro_batch_size=4)
    other = run(tmp_path / "other", base, data, micro_batch_size=4, **settings)
    assert other.steps("loss") == pytest.approx(padded.steps("loss"), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("real", kept_in_ci([True, False, None], True, False))
def test_packs_as_a_batch_or_in_one_line(tmp_path: Path, base: Model, real: bool | None) -> None:
    rows = random_rows(24, longest=30)
    packed = training_data(tmp_path / "rows", rows, packs_of(24, 3))
    settings = {"sample_packing": True, "sequence_len": 90, "multipack_real_batches": real}
    wide = run(tmp_path / "8x1", base, packed, micro_batch_size=8, **settings)
    long = run(tmp_path / "1x8", base, packed, gradient_accumulation_steps=8, **settings)
    single = run(
        tmp_path / "single", base, training_data(tmp_path / "single", rows), micro_batch_size=6,
        gradient_accumulation_steps=4,
    )  # fmt: skip
    assert len(wide.steps("loss")) == 1
    assert long.steps("loss") == pytest.approx(wide.steps("loss"), abs=1e-5)
    assert single.steps("loss") == pytest.approx(wide.steps("loss"), abs=1e-5)


def test_evaluation_while_training_gives_the_same_loss_packed(tmp_path: Path, base: Model) -> None:
    data = training_data(tmp_path / "rows", random_rows(8))
    held_out = evaluation_data(tmp_path / "held_out", ROWS)
    settings = {"eval_strategy": "epoch", "num_epochs": 2, "eval_batch_size": 2}
    alone = run(tmp_path / "alone", base, data, held_out, **settings)
    packed = run(tmp_path / "packed", base, data, held_out, **settings, eval_sample_packing=True)
    assert len(packed.steps("eval_loss")) == 2
    assert packed.steps("eval_loss") == pytest.approx(alone.steps("eval_loss"), rel=1e-5)
    assert packed.steps("loss") == alone.steps("loss"), "evaluations change no weight"


def test_the_evaluation_stage_gives_the_same_losses_packed(tmp_path: Path, base: Model) -> None:
    held_out = evaluation_data(tmp_path / "held_out", ROWS)
    found = []
    for packing in (False, True):
        config = EvaluationConfig(
            eval_batch_size=2, eval_sample_packing=packing, evaluation={"exact_match": False}
        )
        out = workspace(tmp_path / str(packing))
        evaluate(config, base, None, held_out, out, Heard().report)
        lines = (out.data / "predictions.jsonl").read_text().splitlines()
        found.append([json.loads(line)["loss"] for line in lines])
    assert found[1] == pytest.approx(found[0], rel=1e-5) and len(found[0]) == 9
    assert found[1] != found[0], "only rounding differs, but that does"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_flattening": True, "sample_packing": True}, "sample_packing: true does not"),
        ({"batch_flattening": True, "pad_to_sequence_len": True}, "pad_to_sequence_len: true does not"),
        ({"sample_packing": True, "pad_to_multiple_of": 8}, "every sequence is padded to sequence_len"),
    ],
)
def test_settings_that_exclude_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftConfig(learning_rate=0.1, **settings)
