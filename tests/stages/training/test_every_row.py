"""What stands in the folder of a model must not decide which rows train, nor end a training at its last step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_model import Heard, make_model, training_data, workspace
from support.tiny_tokenizer import make_tokenizer
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model, Tokenizer
from tunemill.stages.errors import SourceError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

EOS = 2
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj"]}


def train(base: Path, folder: Path, **settings: Any) -> Path:
    rows = [([5, EOS, 7, EOS], [-100, EOS, 7, EOS])] * 4
    config = SftConfig(**{"learning_rate": 0.01, "max_steps": 2, "bf16": False, **settings})
    out = workspace(folder)
    sft(config, Model(base), training_data(folder / "rows", rows), None, out, Heard().report)
    return out.data


def padded_with_eos(folder: Path) -> Path:
    config = json.loads((make_model(folder) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": EOS}))
    return folder


def test_the_row_of_eos_trains_where_it_is_the_padding(tmp_path: Path) -> None:
    base = padded_with_eos(tmp_path / "base")
    data = train(base, tmp_path / "full")
    name = "model.embed_tokens.weight"
    moved = (
        (load_file(data / "model.safetensors")[name] - load_file(base / "model.safetensors")[name])
        .abs()
        .sum(-1)
    )
    # Adam moves every row that has a gradient by about the learning rate.
    assert float(moved[EOS]) > 0.5 * float(moved[5]) > 0
    assert json.loads((data / "config.json").read_text())["pad_token_id"] == EOS


def test_it_trains_in_embeddings_that_are_saved_whole(tmp_path: Path) -> None:
    base = padded_with_eos(tmp_path / "base")
    data = train(base, tmp_path / "lora", **LORA, lora_modules_to_save=["embed_tokens"])
    saved = load_file(data / "adapter_model.safetensors")["base_model.model.model.embed_tokens.weight"]
    moved = (saved - load_file(base / "model.safetensors")["model.embed_tokens.weight"]).abs().sum(-1)
    assert float(moved[EOS]) > 0.5 * float(moved[5]) > 0


def test_it_is_drawn_like_any_row(tmp_path: Path) -> None:
    source = padded_with_eos(tmp_path / "base")
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({**settings, "pad_token": settings["eos_token"]})
    )
    out = workspace(tmp_path / "out")
    config = BaseModelConfig(base_model=str(source), reinit_weights=True)
    base_model(config, tokenizer=Tokenizer(tokenizer), upstream=None, out=out, report=Heard().report)
    row = load_file(out.data / "model.safetensors")["model.embed_tokens.weight"][EOS]
    assert float(row.std()) > 0.1
    assert json.loads((out.data / "config.json").read_text())["pad_token_id"] == EOS


REFUSED_ON_SAVE = [
    {"temperature": 0.6, "top_p": 0.9, "do_sample": False},
    {"output_scores": True},
    {"use_cache": False, "cache_implementation": "static"},
    {"length_penalty": 0.5, "num_beams": 1},
]


@pytest.mark.slow
@pytest.mark.parametrize("generation", first_in_ci(*REFUSED_ON_SAVE))
def test_generation_settings_that_transformers_does_not_save_are_kept(
    tmp_path: Path, generation: dict[str, Any]
) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps(generation))
    with pytest.raises(ValueError, match="GenerationConfig is invalid"):
        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "plain")
    out = workspace(tmp_path / "base")
    tokenizer = Tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    config = BaseModelConfig(base_model=str(folder), overrides_of_model_config={"rms_norm_eps": 1e-5})
    base_model(config, tokenizer=tokenizer, upstream=None, out=out, report=Heard().report)
    trained = train(out.data, tmp_path / "trained", save_steps=1)
    quantized = workspace(tmp_path / "quantized")
    quantize(QuantizedConfig(), Model(trained), quantized, Heard().report)
    for data in (out.data, trained, quantized.data):
        kept = json.loads((data / "generation_config.json").read_text())
        assert kept == {**generation, "eos_token_id": EOS, "pad_token_id": 0}, data


@pytest.mark.parametrize(
    "generation", [{"early_stopping": 5}, {"max_new_tokens": 0}, {"num_return_sequences": 4}]
)
def test_generation_settings_that_transformers_does_not_load_are_refused_at_once(
    tmp_path: Path, generation: dict[str, Any]
) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = Tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    with pytest.raises(SourceError, match="transformers loads no model with it"):
        base_model(
            BaseModelConfig(base_model=str(folder)),
            tokenizer=tokenizer, upstream=None, out=workspace(tmp_path / "base"), report=Heard().report,
        )  # fmt: skip


def test_padding_of_its_own_changes_no_weight(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    data = train(base, tmp_path / "full", weight_decay=0.0)
    name = "model.embed_tokens.weight"
    before, after = (load_file(folder / "model.safetensors")[name] for folder in (base, data))
    assert torch.equal(before[0], after[0])
