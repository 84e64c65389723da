"""Faults really planted in copies of quantized models, each found by the proof, with words that say what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.moe import make_moe
from support.tiny_model import Heard, make_model, workspace
from transformers import AutoModelForCausalLM, TorchAoConfig

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.models.probe_body import fixed_tokens
from tunemill.stages.models.quantization import QuantizationSettings
from tunemill.stages.models.quantization_body import storing_settings
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.models.quantized.proof_body import Loaded, _prove_agreement, prove

SETTINGS = QuantizationSettings(group_size=16)
OTHER_TOKEN = {"unk_token": "x"}
QUERY = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model with a tied head, and the same quantized."""
    folder = tmp_path_factory.mktemp("stored")
    source = make_model(folder / "model", tie_word_embeddings=True)
    (source / "generation_config.json").write_text('{"eos_token_id": 2}')
    out = workspace(folder / "out")
    quantize(QuantizedConfig(quantization=SETTINGS), Model(source), out, Heard().report)
    return source, out.data


def of_tensors(
    change: Callable[[dict[str, torch.Tensor], dict[str, str]], None],
) -> Callable[[Path, Path], None]:
    """A fault in the tensors of a folder's only file, and what is written beside them."""

    def plant(_source: Path, result: Path) -> None:
        path = result / "model.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as reader:
            metadata = reader.metadata()
        change(tensors, metadata)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)

    return plant


def of_json(name: str, **values: Any) -> Callable[[Path, Path], None]:
    def plant(_source: Path, result: Path) -> None:
        stored = json.loads((result / name).read_text())
        (result / name).write_text(json.dumps({**stored, **values}))

    return plant


def nothing_quantized(source: Path, result: Path) -> None:
    shutil.rmtree(result)
    shutil.copytree(source, result)


def shift_scales(tensors: dict[str, torch.Tensor], _metadata: dict[str, str]) -> None:
    name = f"{QUERY}._weight_scale"
    tensors[name] = tensors[name].roll(1, dims=-1)


def swap_rows(tensors: dict[str, torch.Tensor], _metadata: dict[str, str]) -> None:
    name = f"{QUERY}._weight_qdata"
    tensors[name][[3, 4]] = tensors[name][[4, 3]]


def permute_embeddings(tensors: dict[str, torch.Tensor], _metadata: dict[str, str]) -> None:
    name = "model.embed_tokens.weight"
    tensors[name][[5, 6]] = tensors[name][[6, 5]]


def one_in_full_precision(source: Path, result: Path) -> None:
    def change(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        for name in [name for name in tensors if name.startswith(f"{QUERY}._weight")]:
            del tensors[name]
        tensors[f"{QUERY}.weight"] = load_file(source / "model.safetensors")[f"{QUERY}.weight"]
        metadata[f"{QUERY}.weight"] = json.dumps(
            {"_type": "Tensor", "_data": {}, "_tensor_data_names": ["0"]}
        )

    of_tensors(change)(source, result)


def head_of_its_own(source: Path, result: Path) -> None:
    def change(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0)
        metadata["lm_head.weight"] = metadata["model.embed_tokens.weight"]

    of_tensors(change)(source, result)


def no_template(_source: Path, result: Path) -> None:
    (result / "chat_template.jinja").unlink()


FAULTS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "no module": (nothing_quantized, "no tensor is quantized: the conversion matched no module"),
    "scales off by one group": (
        of_tensors(shift_scales),
        rf"{QUERY}\.weight: in row \d+ a stored number is \d.* times as far from the model's as rounding to int8",
    ),
    "rows swapped": (of_tensors(swap_rows), rf"{QUERY}\.weight: in row [34] a stored number is "),
    "one layer left": (one_in_full_precision, rf"{QUERY}\.weight is stored in full precision \(F32\)"),
    "embedding rows permuted": (
        of_tensors(permute_embeddings),
        "model.embed_tokens.weight is stored as it was, and 2 of its 416 rows are others, the first is 5",
    ),
    "chat template dropped": (no_template, "chat_template.jinja is not there any more"),
    "template changed": (
        lambda _, result: (result / "chat_template.jinja").write_text("{{ messages }}"),
        "chat_template.jinja differs from the model's",
    ),
    "tied head lost": (
        of_json("config.json", tie_word_embeddings=False),
        "config.json: tie_word_embeddings is False, and was True",
    ),
    "head of its own": (head_of_its_own, "lm_head.weight is in the files, and nothing in the model"),
    "special id": (of_json("config.json", eos_token_id=7), "config.json: eos_token_id is 7, and was 2"),
    "stop id": (of_json("generation_config.json", eos_token_id=7), "eos_token_id is 7, and was 2"),
    "special token": (of_json("tokenizer_config.json", **OTHER_TOKEN), "tokenizer_config.json differs .*: unk_token"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_found(tmp_path: Path, stored: tuple[Path, Path], fault: str) -> None:
    source, result = stored
    plant, message = FAULTS[fault]
    copy = tmp_path / "copy"
    shutil.copytree(result, copy)
    plant(source, copy)
    with pytest.raises(UserError, match=message):
        prove(source, copy, SETTINGS, trained=False)


def test_an_unchanged_copy_is_proven(stored: tuple[Path, Path]) -> None:
    source, result = stored
    figures = prove(source, result, SETTINGS, trained=False)
    assert 0 < figures["kl_to_unquantized"] < figures["kl_to_unquantized_bound"]
    assert 0 < figures["largest_error_in_bounds"] <= 1


def test_a_model_that_says_something_else_than_rounding_explains(stored: tuple[Path, Path]) -> None:
    """What the weights do not show: here a norm of the loaded model."""
    source, result = stored
    loaded = Loaded(*(AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (source, result)))
    with torch.no_grad():
        loaded.quantized.model.norm.weight.copy_(torch.linspace(0.5, 1.5, 32))
    with pytest.raises(UserError, match=r"KL from the unquantized model, in nats, .*: \d.*, and at most \d"):
        _prove_agreement(loaded, SETTINGS, None, fixed_tokens(416), trained=False)


def test_logits_that_are_not_those_before_saving(stored: tuple[Path, Path]) -> None:
    source, result = stored
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(result).eval()(fixed_tokens(416)).logits
    prove(source, result, SETTINGS, trained=False, measured=logits)
    with pytest.raises(UserError, match="stock transformers loads has other logits than what was saved"):
        prove(source, result, SETTINGS, trained=False, measured=logits + 0.01)


def test_a_training_with_qat_that_stored_something_else(stored: tuple[Path, Path]) -> None:
    """The rounding that was trained is that of 32 inputs; 16 share a scale in the files."""
    source, result = stored
    with pytest.raises(UserError, match=r"weight has 2048 numbers in 2688 bytes, and must have 2048 in 2368"):
        prove(source, result, QuantizationSettings(group_size=32), trained=True)


def test_experts_that_were_left_out_without_a_word(tmp_path: Path) -> None:
    """What torchao does by itself: only linear modules."""
    source = make_moe("mixtral", tmp_path / "model")
    asked = TorchAoConfig(storing_settings(QuantizationSettings(), trained=False))
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=asked)
    shutil.copytree(source, tmp_path / "out", ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(tmp_path / "out")
    with pytest.raises(UserError, match=r"89% of the weights of linear layers .* those of\s+experts"):
        prove(source, tmp_path / "out", QuantizationSettings(), trained=False)
