"""Quantized models: really int8, as small as predicted, loaded by stock transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from support.tiny_model import Heard, evaluation_data, folder_bytes, make_model, random_rows, workspace
from transformers import AutoModelForCausalLM, AutoTokenizer, GemmaConfig, GPT2Config, MambaConfig

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizationSettings, QuantizedConfig

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
IDS = torch.arange(3, 60).reshape(3, 19)


def run(folder: Path, model: Path, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = QuantizedConfig(quantization=QuantizationSettings(**settings))
    quantize(config, model=Model(model), out=out, report=heard.report)
    return out.data, heard


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits.float()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("group_size", [None, 16])
def test_stock_transformers_loads_int8_weights(
    tmp_path: Path, dtype: torch.dtype, tied: bool, group_size: int | None
) -> None:
    source = make_model(tmp_path / "model", dtype=dtype, tie_word_embeddings=tied)
    data, heard = run(tmp_path / "out", source, group_size=group_size)
    with safe_open(data / "model.safetensors", "pt") as stored:
        types = {name: stored.get_slice(name).get_dtype() for name in stored.keys()}  # noqa: SIM118
    int8 = {
        name.removesuffix("._weight_qdata")
        for name, kind in types.items()
        if name.endswith("qdata") and kind == "I8"
    }
    assert len(int8) == 14 == heard.summary["quantized_modules"]
    assert not any("lm_head" in name or "embed" in name for name in int8)
    model = AutoModelForCausalLM.from_pretrained(data)
    for name in int8:
        assert type(model.get_submodule(name).weight).__name__ == "Int8Tensor"
        assert model.get_submodule(name).weight.qdata.dtype == torch.int8
    # Two layers, each with 32*32*4 + 32*64*3 weights and 288 rows. A row, or 16 inputs of one, has a scale of 4 bytes
    # and a zero point of 1.
    weights, scales = 2 * (32 * 32 * 4 + 32 * 64 * 3), 2 * (32 * 4 + 64 * 2 + 32)
    if group_size:
        scales = weights // 16
    saved = heard.summary["bytes_before"] - heard.summary["bytes_after"]
    assert saved == weights * (dtype.itemsize - 1) - scales * 5
    moved = float((logits(data) - logits(source)).abs().max())
    assert 0 < moved < 0.1 * float(logits(source).abs().max())
    assert 0 < heard.summary["max_abs_logit_difference"] < 0.1 * heard.summary["max_abs_logit"]
    assert AutoTokenizer.from_pretrained(data).chat_template is not None
    assert "transformers_version" not in json.loads((data / "config.json").read_text())


# What stands for the 20,480 weights of 14 modules with 576 rows, in bytes of weights and of scales.
BYTES = {
    "int8, int8 inputs": (20480, 576 * 5),
    "int4": (20480, 20480 // 32 * 5),
    "int4, int8 inputs": (20480, 20480 // 16 * 5),
    "fp8": (20480, 576 * 4),
    # Blocks of 128 rows and 4 columns; the 64 inputs of two modules have 4 scales, 32 have 2.
    "nvfp4": (10240, 14 * (128 * 4 + 4)),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "int8, int8 inputs": {"activation_dtype": "int8"},
    "int4": {"weight_dtype": "int4"},
    "int4, int8 inputs": {"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 16},
    "fp8": {"weight_dtype": "float8_e4m3fn"},
    "nvfp4": {"weight_dtype": "nvfp4"},
}
STORED = {
    "I8": "IntxUnpackedToInt8Tensor",
    "F8_E4M3": "Float8Tensor",
    "U8": "NVFP4Tensor",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_stock_transformers_loads_every_type(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    source = make_model(tmp_path / "model", dtype=dtype)
    data, heard = run(tmp_path / "out", source, **SETTINGS[name])
    with safe_open(data / "model.safetensors", "pt") as stored:
        types = {one: stored.get_slice(one).get_dtype() for one in stored.keys()}  # noqa: SIM118
    quantized = {one: kind for one, kind in types.items() if one.endswith("_weight_qdata")}
    assert len(quantized) == 14 == heard.summary["quantized_modules"]
    (kind,) = set(quantized.values())
    model = AutoModelForCausalLM.from_pretrained(data)
    assert type(model.model.layers[0].mlp.up_proj.weight).__name__ == STORED[kind]
    weights, scales = BYTES[name]
    # Scales of integers have the model's type, and a zero point of one byte.
    scales = scales // 5 * (dtype.itemsize + 1) if kind == "I8" else scales
    saved = heard.summary["bytes_before"] - heard.summary["bytes_after"]
    assert saved == 20480 * dtype.itemsize - weights - scales
    assert heard.summary["bits_per_weight"] == pytest.approx(8 * (weights + scales) / 20480)
    moved = float((logits(data) - logits(source)).abs().max())
    assert 0 < moved < 0.6 * float(logits(source).abs().max())


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is about machines without a GPU")
@pytest.mark.parametrize("name", ["fp8", "nvfp4"])
def test_activations_that_this_machine_has_no_products_of(tmp_path: Path, name: str) -> None:
    source = make_model(tmp_path / "model")
    with pytest.raises(SettingError, match=f"activation_dtype: {name} needs an NVIDIA GPU from "):
        run(tmp_path / "out", source, weight_dtype=name, activation_dtype=name)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 24}, "has 24 inputs, no multiple of 16"),
        ({"intermediate_size": 40}, "has 40 outputs, no multiple of 16"),
    ],
)
def test_sizes_that_nvfp4_has_no_blocks_for(tmp_path: Path, sizes: dict[str, int], message: str) -> None:
    source = make_model(tmp_path / "model", **sizes)
    with pytest.raises(SettingError, match=message):
        run(tmp_path / "out", source, weight_dtype="nvfp4")


def test_the_weights_are_those_of_the_model_rounded(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    data, _ = run(tmp_path / "out", source)
    before = AutoModelForCausalLM.from_pretrained(source).model.layers[0].mlp.up_proj.weight
    after = AutoModelForCausalLM.from_pretrained(data).model.layers[0].mlp.up_proj.weight.dequantize()
    # 127 steps from 0 to the largest weight of a row.
    step = before.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((before - after).abs() <= 0.51 * step).all())


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model", max_shard_size="60KB")
    first, _ = run(tmp_path / "first", source)
    torch.manual_seed(4)
    again, _ = run(tmp_path / "again", source)
    assert folder_bytes(first) == folder_bytes(again)
    for name, content in folder_bytes(first).items():
        assert str(tmp_path).encode() not in content, name


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 16}, {"weight_dtype": "fp8"}],
    ids=str,
)
def test_embeddings_and_the_head_that_is_tied_to_them(
    tmp_path: Path, settings: dict[str, Any], tied: bool
) -> None:
    source = make_model(tmp_path / "model", tie_word_embeddings=tied, max_shard_size="60KB")
    plain, _ = run(tmp_path / "plain", source, **settings)
    data, heard = run(tmp_path / "out", source, quantize_embedding=True, **settings)
    model = AutoModelForCausalLM.from_pretrained(data)
    assert hasattr(model.model.embed_tokens.weight, "qdata")
    assert hasattr(model.lm_head.weight, "qdata") is tied
    assert heard.summary["quantized_embeddings"] == 1
    # A table of 416 tokens, 32 numbers each: of 3 bytes less, and scales more.
    saved = sum(len(one) for one in folder_bytes(plain).values()) - sum(
        len(one) for one in folder_bytes(data).values()
    )
    assert 0.6 * 416 * 32 * 3 < saved < 1.05 * 416 * 32 * 3
    assert 0 < heard.summary["max_abs_logit_difference"] < 0.8 * heard.summary["max_abs_logit"]


def test_a_row_of_zeros_is_a_row_of_zeros_in_fp8(tmp_path: Path) -> None:
    """Torchao alone makes not-a-number of it: the row of the token that pads often is one."""
    source = make_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3] = 0
    model.save_pretrained(source)
    data, _ = run(tmp_path / "out", source, weight_dtype="fp8", quantize_embedding=True)
    stored = AutoModelForCausalLM.from_pretrained(data).model
    assert not stored.layers[0].mlp.up_proj.weight.dequantize()[3].any()
    assert not stored.embed_tokens.weight.dequantize()[0].any()


def test_mxfp4_is_stored_of_models_in_bfloat16(tmp_path: Path) -> None:
    settings = {"weight_dtype": "mxfp4", "activation_dtype": "mxfp4"}
    source = make_model(tmp_path / "model", dtype=torch.bfloat16)
    data, _ = run(tmp_path / "out", source, **settings)
    assert (
        type(AutoModelForCausalLM.from_pretrained(data).model.layers[0].mlp.up_proj.weight).__name__
        == "MXTensor"
    )
    with pytest.raises(
        SettingError, match=r"mxfp4 is stored of models in bfloat16, and this one is in float32"
    ):
        run(tmp_path / "float", make_model(tmp_path / "float32"), **settings)


def test_held_out_rows_are_what_is_compared(tmp_path: Path) -> None:
    source, rows = make_model(tmp_path / "model"), random_rows(9)
    out, heard = workspace(tmp_path / "out"), Heard()
    held_out = evaluation_data(tmp_path / "rows", rows)
    quantize(QuantizedConfig(), Model(source), out, heard.report, held_out)
    trained = sum(sum(label != -100 for label in labels[1:]) for _, labels in rows)
    assert heard.summary["compared_tokens"] == heard.summary["compared_tokens_held_out"] == trained
    one, other = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (out.data, source))
    kl, same = 0.0, 0
    for ids, labels in rows:
        with torch.no_grad():
            mine, its = (m(torch.tensor([ids])).logits[0, :-1].log_softmax(-1) for m in (one, other))
        chosen = torch.tensor(labels[1:]) != -100
        kl += float((its.exp() * (its - mine)).sum(-1)[chosen].sum())
        same += int((its.argmax(-1) == mine.argmax(-1))[chosen].sum())
    assert heard.summary["kl_to_unquantized"] == pytest.approx(kl / trained, rel=1e-3)
    assert heard.summary["top1_agreement"] == pytest.approx(same / trained)


def test_the_same_bytes_from_files_cut_otherwise(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", make_model(tmp_path / "model"))
    cut, _ = run(tmp_path / "cut", make_model(tmp_path / "shards", max_shard_size="60KB"))
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert folder_bytes(whole) == folder_bytes(cut)


def test_a_model_without_linear_modules_is_refused(tmp_path: Path) -> None:
    """GPT-2 has modules of another kind, which torchao passes by."""
    source = make_model(tmp_path / "model")
    (source / "model.safetensors").unlink()
    settings = GPT2Config(vocab_size=416, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    AutoModelForCausalLM.from_config(settings).save_pretrained(source)
    with pytest.raises(UserError, match="no linear module but its output head: nothing to quantize"):
        run(tmp_path / "out", source)


def test_embeddings_with_a_factor_that_a_reload_would_lose(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    (source / "model.safetensors").unlink()
    AutoModelForCausalLM.from_config(GemmaConfig(**SIZES, vocab_size=416, head_dim=8)).save_pretrained(source)
    with pytest.raises(SettingError, match=r"quantize_embedding: model.embed_tokens scales what it looks up"):
        run(tmp_path / "out", source, quantize_embedding=True)


def test_a_model_that_torchao_has_no_functions_for(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    (source / "model.safetensors").unlink()
    settings = MambaConfig(vocab_size=416, hidden_size=32, num_hidden_layers=1)
    AutoModelForCausalLM.from_config(settings).save_pretrained(source)
    with pytest.raises(
        UserError, match=r"a mamba computes with its weights by aten\.\w+, which torchao does not have"
    ):
        run(tmp_path / "out", source)


def test_a_group_that_divides_nothing_is_refused(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    with pytest.raises(
        SettingError, match=r"^quantization\.group_size: 48 does not divide the 32 inputs of model.layers.0"
    ):
        run(tmp_path / "out", source, group_size=48)


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    data, _ = run(tmp_path / "out", make_model(tmp_path / "model"))
    with pytest.raises(UserError, match="the model is quantized already"):
        run(tmp_path / "again", data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_dtype": "mxfp4"}, "stored only where activations are rounded to it too"),
        ({"weight_dtype": "int9"}, "Input should be 'int8', 'int4', 'fp8', 'nvfp4' or 'mxfp4'"),
        ({"activation_dtype": "fp8"}, "fp8 does not go with weights in int8. Use int8, or leave it out"),
        ({"weight_dtype": "float8", "group_size": 16}, "weights in fp8 have one scale per output row"),
        ({"weight_dtype": "nvfp4", "group_size": 32}, "in nvfp4 16 inputs share a scale"),
        ({"quantize_embedding": True, "weight_dtype": "nvfp4"}, "torchao looks up no embeddings in nvfp4"),
        ({"group_size": 0}, "greater than 0"),
    ],
)
def test_settings_are_refused_with_the_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        QuantizedConfig(quantization=QuantizationSettings(**settings))
