"""Folders whose tensors are not those of their config, and tensors that are stored twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.families import CONFIGS, make_family
from support.tiny_model import Heard, make_model, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model, Tokenizer
from tunemill.stages.errors import SourceError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.base_model.fit_body import check_fit
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.models.weights import tensors_of_model

Tensors = dict[str, torch.Tensor]


def change(folder: Path, edit: Callable[[Tensors], object]) -> Path:
    """The same folder with its single file of weights edited."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(
        {name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def set_config(folder: Path, **keys: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))
    return folder


def run(folder: Path, tmp_path: Path) -> tuple[Path, Heard]:
    out, heard = workspace(tmp_path / "out"), Heard()
    tokenizer = Tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    base_model(
        BaseModelConfig(base_model=str(folder)),
        tokenizer=tokenizer,
        upstream=None,
        out=out,
        report=heard.report,
    )
    return out.data, heard


def refusal(folder: Path, tmp_path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        run(folder, tmp_path)
    assert not list((tmp_path / "out" / "data").iterdir())
    return str(caught.value)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    folder = change(make_model(tmp_path / "model"), lambda t: t.pop("lm_head.weight"))
    assert "1 tensors are missing from the files, such as lm_head.weight." in refusal(folder, tmp_path)


def test_more_layers_than_are_stored(tmp_path: Path) -> None:
    folder = set_config(make_model(tmp_path / "model"), num_hidden_layers=3)
    said = refusal(folder, tmp_path)
    assert "9 tensors are missing from the files, such as model.layers.2.input_layernorm.weight, " in said


def test_more_stored_than_the_config_names_and_other_shapes(tmp_path: Path) -> None:
    folder = set_config(make_model(tmp_path / "model"), num_hidden_layers=1)
    change(folder, lambda t: t.update({"model.norm.weight": torch.ones(3)}))
    said = refusal(folder, tmp_path)
    assert "1 tensors are of another shape, such as model.norm.weight;" in said
    assert (
        "9 tensors are in the files but not in the model, such as model.layers.1.input_layernorm.weight, "
        in said
    )


def test_an_expert_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_family("mixtral").save_pretrained(folder)
    lost = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    change(folder, lambda t: t.pop(lost))
    assert f"1 tensors of experts are missing from the files, such as {lost}." in refusal(folder, tmp_path)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_what_transformers_writes_fits(tmp_path: Path, family: str) -> None:
    model = make_family(family)
    model.save_pretrained(tmp_path)
    check_fit(tmp_path, model.config)


def test_names_that_transformers_maps_or_ignores_fit(tmp_path: Path) -> None:
    model = make_family("gpt2")
    model.save_pretrained(tmp_path)
    plain = {
        name.removeprefix("transformer."): t for name, t in load_file(tmp_path / "model.safetensors").items()
    }
    masks = {"h.0.attn.bias": torch.zeros(1, 1, 64, 64), "h.0.attn.masked_bias": torch.zeros(())}
    save_file({**plain, **masks}, tmp_path / "model.safetensors", {"format": "pt"})
    check_fit(tmp_path, model.config)


def double_head(tensors: Tensors, factor: float) -> None:
    tensors["lm_head.weight"] = factor * tensors["model.embed_tokens.weight"]


def test_an_equal_head_beside_tied_embeddings_is_stored_once(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", tie_word_embeddings=True)
    single = sum(tensor.size for tensor in tensors_of_model(folder).values())
    change(folder, lambda t: double_head(t, 1.0))
    data, heard = run(folder, tmp_path)
    assert "lm_head.weight" not in tensors_of_model(data) and heard.summary["bytes"] == single
    assert json.loads((data / "config.json").read_text())["tie_word_embeddings"] is True


def test_another_head_beside_tied_embeddings_is_said_to_be_untied(tmp_path: Path) -> None:
    folder = change(make_model(tmp_path / "model", tie_word_embeddings=True), lambda t: double_head(t, 2.0))
    data, heard = run(folder, tmp_path)
    assert json.loads((data / "config.json").read_text())["tie_word_embeddings"] is False
    assert any("are not tied" in str(event) for event in heard.of("log"))
    head = AutoModelForCausalLM.from_pretrained(data).lm_head.weight
    assert torch.equal(head, load_file(folder / "model.safetensors")["lm_head.weight"])


def test_untied_heads_stay_so_where_the_embeddings_grow(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", tie_word_embeddings=True, vocab_size=390)
    change(folder, lambda t: double_head(t, 2.0))
    data, _ = run(folder, tmp_path)
    after = load_file(data / "model.safetensors")
    assert torch.equal(after["lm_head.weight"][:390], 2 * after["model.embed_tokens.weight"][:390])


def test_quantizing_counts_an_equal_head_once(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", tie_word_embeddings=True)
    change(folder, lambda t: double_head(t, 1.0))
    out, heard = workspace(tmp_path / "out"), Heard()
    quantize(QuantizedConfig(), Model(folder), out, heard.report)
    assert "lm_head.weight" not in tensors_of_model(out.data)


def test_check_tells_what_headers_show(tmp_path: Path) -> None:
    def said(folder: Path, **settings: Any) -> list[str]:
        return [fault.reason for fault in BaseModelConfig(base_model=str(folder), **settings).faults()]

    whole = make_model(tmp_path / "whole")
    assert not said(whole)
    headless = change(make_model(tmp_path / "headless"), lambda t: t.pop("lm_head.weight"))
    assert "lm_head.weight is not in the files" in said(headless)[0]
    assert not said(headless, overrides_of_model_config={"tie_word_embeddings": True})
    short = set_config(make_model(tmp_path / "short"), num_hidden_layers=3)
    assert "names 3 layers, and no tensor of model.layers.2 is in the files" in said(short)[0]
    assert not said(short, reinit_weights=True)
    assert not said(make_model(tmp_path / "tied", tie_word_embeddings=True))
