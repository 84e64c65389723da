"""Mixtures of experts: all that a type has a format for is quantized, and what has none is named or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.moe import make_moe
from support.tiny_model import Heard, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.models.quantization import QatSettings, QuantizationSettings
from tunemill.stages.models.quantization_body import round_in_forward
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig

IDS = torch.arange(3, 60).reshape(3, 19)


def run(folder: Path, model: Path, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = QuantizedConfig(quantization=QuantizationSettings(**settings))
    quantize(config, model=Model(model), out=out, report=heard.report)
    return out.data, heard


@pytest.mark.parametrize(
    ("family", "settings", "kind"),
    [
        ("mixtral", {}, "Int8Tensor"),
        ("qwen3_moe", {"group_size": 16}, "Int8Tensor"),
        ("qwen3_moe", {"activation_dtype": "int8"}, "Int8Tensor"),
        ("mixtral", {"weight_dtype": "fp8"}, "Float8Tensor"),
        ("gpt_oss", {"weight_dtype": "fp8"}, "Float8Tensor"),
    ],
    ids=str,
)
def test_stock_transformers_loads_and_runs_experts(
    tmp_path: Path, family: str, settings: dict[str, Any], kind: str
) -> None:
    source = make_moe(family, tmp_path / "model")
    data, heard = run(tmp_path / "out", source, **settings)
    model, before = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (data, source))
    experts = model.model.layers[1].mlp.experts
    assert {type(experts.gate_up_proj).__name__, type(experts.down_proj).__name__} == {kind}
    assert heard.summary["quantized_expert_tensors"] == 4
    assert heard.summary["left_out_share"] == 0
    # In float32 a weight has 4 bytes, and one afterwards: the rest are embeddings, head, norms, routers and scales.
    weights = 2 * (4 * 3 * 32 * 64 + 32 * 32 * 2 + 32 * 16 * 2)
    saved = heard.summary["bytes_before"] - heard.summary["bytes_after"]
    assert 0.9 * 3 * weights < saved < 3 * weights if "group_size" not in settings else saved > 2 * weights
    with torch.no_grad():
        logits = before(IDS).logits
        moved = (model(IDS).logits - logits).abs().mean()
    assert 0 < float(moved) < 0.4 * float(logits.abs().mean())
    assert json.loads((data / "config.json").read_text())["experts_implementation"] == "eager"


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("mixtral", {"weight_dtype": "int4"}, "no format in int4"),
        ("mixtral", {"weight_dtype": "nvfp4"}, "no format in nvfp4"),
        ("gpt_oss", {}, "no format in int8"),
    ],
    ids=str,
)
def test_a_type_without_a_format_is_refused_where_experts_are_the_model(
    tmp_path: Path, family: str, settings: dict[str, Any], words: str
) -> None:
    source = make_moe(family, tmp_path / "model")
    with pytest.raises(
        UserError, match=rf"^quantization: 89% of the weights of linear layers .* {words}.* fp8"
    ):
        run(tmp_path / "out", source, **settings)


def test_a_small_share_is_named(tmp_path: Path) -> None:
    source = make_moe("qwen3_moe", tmp_path / "model", moe_intermediate_size=8, num_attention_heads=16)
    _, heard = run(tmp_path / "out", source, weight_dtype="int4")
    share = heard.summary["left_out_share"]
    assert 0.1 < share < 0.5
    said = f"{share:.0%} of the weights of linear layers are those of experts"
    assert any(said in event["message"] for event in heard.of("log"))


def test_training_for_it_is_refused_too(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_moe("mixtral", tmp_path / "model"))
    with pytest.raises(UserError, match=r"^qat: 89% .* Train without qat, and use quantization"):
        round_in_forward(model, QatSettings())
