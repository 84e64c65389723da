"""Quantization-aware training: a model that computes as it will when quantized, and is stored as it was trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support.tiny_model import (
    Heard,
    folder_bytes,
    make_model,
    packs_of,
    random_rows,
    training_data,
    workspace,
)
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model, TrainingData
from tunemill.stages.errors import SettingError
from tunemill.stages.models.quantization import QatSettings, QuantizationSettings
from tunemill.stages.models.quantization_body import Fp4Rounding, round_in_forward, to_mxfp4, to_nvfp4
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.report import Report
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

INT4 = {"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 16}
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
ROUNDINGS: dict[str, dict[str, Any]] = {
    "int4, int8 inputs": INT4,
    "int4": {"weight_dtype": "int4"},
    "int8": {},
    "nvfp4": {"weight_dtype": "nvfp4"},
    "int4, embeddings": {"weight_dtype": "int4", "quantize_embedding": True},
}
IDS = torch.arange(3, 60).reshape(3, 19)


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_model(tmp_path / "base"))


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return training_data(tmp_path / "rows", random_rows(8, longest=30))


def run(folder: Path, base: Model, data: TrainingData, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = SftConfig(**{"learning_rate": 1e-2, "logging_steps": 1, **settings})
    sft(config, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report)
    return out.data, heard


def store(folder: Path, model: Path, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    quantize(QuantizedConfig(**settings), model=Model(model), out=out, report=heard.report)
    return out.data, heard


@pytest.mark.parametrize(
    "rounding",
    [
        pytest.param(
            one,
            marks=()
            if one == "int4"
            else pytest.mark.slow
            if one in ("int4, int8 inputs", "nvfp4")
            else pytest.mark.exhaustive,
        )
        for one in ROUNDINGS
    ],
)
def test_it_is_stored_as_it_was_trained(
    tmp_path: Path, base: Model, data: TrainingData, rounding: str
) -> None:
    qat = ROUNDINGS[rounding]
    trained, heard = run(tmp_path / "qat", base, data, qat=qat)
    plain, unrounded = run(tmp_path / "plain", base, data)
    assert heard.steps("loss")[1] != unrounded.steps("loss")[1], "it rounds"
    names = load_file(trained / "model.safetensors").keys()
    assert names == load_file(plain / "model.safetensors").keys()
    as_trained = AutoModelForCausalLM.from_pretrained(trained).eval()
    round_in_forward(as_trained, QatSettings(**qat))
    data_of, said = store(tmp_path / "stored", trained, qat=qat)
    with torch.no_grad():
        foreseen, found = (
            model(IDS).logits for model in (as_trained, AutoModelForCausalLM.from_pretrained(data_of).eval())
        )
    assert torch.equal(foreseen, found)
    assert said.summary["max_abs_difference_to_training"] == 0
    assert said.summary["max_abs_logit_difference"] > 0


def test_it_is_stored_in_mxfp4_as_it_was_trained(tmp_path: Path, data: TrainingData) -> None:
    qat = {"weight_dtype": "mxfp4", "activation_dtype": "mxfp4"}
    base = Model(make_model(tmp_path / "bfloat16", dtype=torch.bfloat16))
    trained, _ = run(tmp_path / "qat", base, data, qat=qat, bf16=True, max_steps=2)
    _, said = store(tmp_path / "stored", trained, qat=qat)
    assert said.summary["max_abs_difference_to_training"] == 0


def test_an_output_head_that_is_tied_to_rounded_embeddings_is_rounded_too(
    tmp_path: Path, data: TrainingData
) -> None:
    qat = {"weight_dtype": "int4", "group_size": 16, "quantize_embedding": True}
    base = Model(make_model(tmp_path / "tied", tie_word_embeddings=True))
    trained, heard = run(tmp_path / "qat", base, data, qat=qat, max_steps=2)
    assert any("and the embeddings round their weights to int4" in e["message"] for e in heard.of("log"))
    _, said = store(tmp_path / "stored", trained, qat=qat)
    assert said.summary["max_abs_difference_to_training"] == 0
    assert said.summary["quantized_embeddings"] == 1


def test_it_moves_every_weight_that_it_rounds(tmp_path: Path, base: Model, data: TrainingData) -> None:
    trained, _ = run(tmp_path / "qat", base, data, qat=INT4, optimizer="sgd")
    before, after = (load_file(folder / "model.safetensors") for folder in (base.path, trained))
    for name, tensor in before.items():
        assert not torch.equal(tensor, after[name]), name


def test_steps_before_the_rounding_are_those_of_a_plain_training(
    tmp_path: Path, base: Model, data: TrainingData
) -> None:
    _, heard = run(tmp_path / "qat", base, data, qat={**INT4, "fake_quant_after_n_steps": 3}, num_epochs=1)
    _, plain = run(tmp_path / "plain", base, data, num_epochs=1)
    same = [heard.steps("loss")[step] == plain.steps("loss")[step] for step in range(1, 9)]
    assert same == [True, True, True, False, False, False, False, False]


class StoppedError(Exception):
    """What stands for a killed process."""


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 6], ids=["before the rounding", "after it"])
def test_it_goes_on_exactly(tmp_path: Path, base: Model, data: TrainingData, stop: int) -> None:
    settings: dict[str, Any] = {"qat": {**INT4, "fake_quant_after_n_steps": 4}, "save_steps": 1}
    whole, expected = run(tmp_path / "whole", base, data, **settings)

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == stop:
            raise StoppedError

    config = SftConfig(learning_rate=1e-2, logging_steps=1, **settings)
    out = workspace(tmp_path / "stopped")
    with pytest.raises(StoppedError):
        sft(config, base, data, None, out, Report(interrupt))
    resumed, heard = run(tmp_path / "stopped", base, data, **settings)
    assert min(heard.steps("loss")) == stop
    assert heard.steps("loss").items() <= expected.steps("loss").items()
    assert folder_bytes(whole) == folder_bytes(resumed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "beside",
    first_in_ci(
        {"sample_packing": True, "sequence_len": 90}, {"gradient_checkpointing": True}, {"bf16": True}
    ),
    ids=str,
)
def test_it_goes_with(tmp_path: Path, base: Model, beside: dict[str, Any]) -> None:
    rows = training_data(tmp_path / "rows", random_rows(8, longest=30), packs_of(8, 2))
    rows = rows if "sample_packing" in beside else training_data(tmp_path / "plain", random_rows(8))
    trained, heard = run(tmp_path / "qat", base, rows, qat=INT4, num_epochs=2, **beside)
    assert heard.steps("loss")[max(heard.steps("loss"))] < heard.steps("loss")[1]
    _, said = store(tmp_path / "stored", trained, qat=INT4)
    assert said.summary["max_abs_difference_to_training"] == 0


@pytest.mark.slow
def test_a_model_trained_for_it_loses_less(tmp_path: Path, base: Model) -> None:
    """Both trainings learn 32 rows by heart; then each is stored in 4 bits."""
    rows = random_rows(32, longest=30)
    data, losses = training_data(tmp_path / "rows", rows), {}
    for name, qat in (("for it", {"qat": {"weight_dtype": "int4"}}), ("not", {})):
        trained, _ = run(tmp_path / name, base, data, num_epochs=20, micro_batch_size=8, **qat)
        folder, _ = store(tmp_path / f"{name}, stored", trained, quantization={"weight_dtype": "int4"})
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            losses[name] = sum(
                float(model(torch.tensor([ids]), labels=torch.tensor([labels])).loss) for ids, labels in rows
            )
    # Measured: .19 and .24 a row.
    assert losses["for it"] < 0.9 * losses["not"], losses


def test_nvfp4_rounds_as_its_format_says() -> None:
    """A block of 16 has a float8 scale, of which a number is one of 0, .5, 1, 1.5, 2, 3, 4, 6 times."""
    tensor = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    overall = tensor.abs().max() / (448 * 6)
    blocks = tensor.reshape(-1, 16)
    scales = (blocks.abs().amax(1, keepdim=True) / 6 / overall).to(torch.float8_e4m3fn).float() * overall
    nearest = grid[((blocks / scales).abs().unsqueeze(-1) - grid).abs().argmin(-1)] * blocks.sign() * scales
    torch.testing.assert_close(to_nvfp4(tensor), nearest.reshape(tensor.shape), atol=1e-6, rtol=1e-5)
    rounding, given = Fp4Rounding(to_nvfp4), tensor.clone().requires_grad_()
    weights = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    (rounding(given) * weights).sum().backward()
    assert given.grad is not None and torch.equal(given.grad, weights), "the gradient passes the rounding by"
    rounding.enabled = False
    assert rounding(tensor) is tensor


def test_mxfp4_rounds_as_its_format_says() -> None:
    """The scale of 32 numbers is the power of two of the largest, by 4; what is above 6 times it is cut off."""
    tensor = torch.randn(3, 2, 64, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    blocks = tensor.reshape(-1, 32)
    scales = torch.exp2(torch.floor(torch.log2(blocks.abs().amax(1, keepdim=True))) - 2)
    nearest = grid[((blocks / scales).abs().unsqueeze(-1) - grid).abs().argmin(-1)] * blocks.sign() * scales
    assert torch.equal(to_mxfp4(tensor), nearest.reshape(tensor.shape))
    assert torch.equal(to_mxfp4(tensor.half()), to_mxfp4(tensor.half().float()).half())
    assert torch.equal(to_mxfp4(tensor.transpose(0, 1)), to_mxfp4(tensor).transpose(0, 1))


def test_it_trains_for_a_type_that_is_not_stored(tmp_path: Path, base: Model, data: TrainingData) -> None:
    qat = {"weight_dtype": "mxfp4", "activation_dtype": "mxfp4"}
    _, heard = run(tmp_path / "qat", base, data, qat=qat)
    _, plain = run(tmp_path / "plain", base, data)
    assert heard.steps("loss")[1] != plain.steps("loss")[1]
    assert heard.steps("loss")[max(heard.steps("loss"))] < heard.steps("loss")[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"qat": INT4, **LORA}, "an adapter's product"),
        ({"qat": INT4, "fp8": True}, "each rounds what goes into linear modules"),
        ({"qat": {"weight_dtype": "fp8"}}, "fp8 is not supported in training"),
        ({"qat": {"weight_dtype": "mxfp4", "group_size": 16}}, "in mxfp4 32 inputs share a scale"),
        ({"qat": {"weight_dtype": "int4", "activation_dtype": "fp8"}}, "does not go with weights in int4"),
        ({"qat": {"weight_dtype": "nvfp4", "group_size": 32}}, "in nvfp4 16 inputs share a scale"),
        ({"qat": {"fake_quant_after_n_steps": -1}}, "greater than or equal to 0"),
        ({"qat": {"quantize_embedding": True, "weight_dtype": "nvfp4"}}, "looks up no embeddings in nvfp4"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftConfig(learning_rate=1e-2, **settings)


def test_quantization_beside_it_is_refused() -> None:
    with pytest.raises(ValidationError, match="Keep qat alone"):
        QuantizedConfig(qat=QatSettings(), quantization=QuantizationSettings())


def test_a_size_that_does_not_fit_is_refused(tmp_path: Path, base: Model, data: TrainingData) -> None:
    with pytest.raises(
        SettingError, match=r"^qat\.group_size: 48 does not divide the 32 inputs of model.layers.0"
    ):
        run(tmp_path / "qat", base, data, qat={"weight_dtype": "int4", "group_size": 48})
