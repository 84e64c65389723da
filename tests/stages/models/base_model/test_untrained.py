"""Rows of embeddings that nobody has trained get the mean of the others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_model import Heard, make_model, workspace
from transformers import AutoTokenizer

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.errors import SettingError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UNTRAINED = [7, 300]


def run(folder: Path, source: Path, **settings: Any) -> tuple[dict[str, torch.Tensor], Heard]:
    out, heard = workspace(folder), Heard()
    config = BaseModelConfig(base_model=str(source), **settings)
    base_model(config, tokenizer=Tokenizer(source), upstream=None, out=out, report=heard.report)
    return load_file(out.data / "model.safetensors"), heard


def untrained_model(folder: Path, **changes: Any) -> Path:
    """A model with two rows that are as good as zero, and a head that gives these tokens one and the same."""
    source = make_model(folder, **changes)
    weights = load_file(source / "model.safetensors")
    weights[EMBEDDING][UNTRAINED] = torch.tensor([[1e-20], [-1e-18]])
    if HEAD in weights:
        weights[HEAD][UNTRAINED] = 0.25
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    return source


@pytest.mark.parametrize("tied", [False, True])
def test_untrained_rows_are_found_and_get_the_mean_of_the_others(tmp_path: Path, tied: bool) -> None:
    source = untrained_model(tmp_path / "source", tie_word_embeddings=tied)
    before = load_file(source / "model.safetensors")
    after, heard = run(tmp_path / "out", source, fix_untrained_tokens=True)
    tokens = len(AutoTokenizer.from_pretrained(source))
    # The row of the padding, 0, is drawn as zeros and stays so; those behind the tokens belong to none.
    others = [number for number in range(1, tokens) if number not in UNTRAINED]
    of_head = [0, *others]
    for name in (EMBEDDING,) if tied else (EMBEDDING, HEAD):
        expected = before[name].clone()
        expected[UNTRAINED] = before[name][of_head if name == HEAD else others].mean(dim=0)
        torch.testing.assert_close(after[name], expected, atol=1e-7, rtol=1e-6)
        kept = [number for number in range(before[name].shape[0]) if number not in UNTRAINED]
        assert torch.equal(after[name][kept], before[name][kept])
    assert (HEAD in after) is not tied
    assert heard.summary["filled_embedding_rows"] == 2
    assert heard.summary["filled_head_rows"] == (0 if tied else 2)
    (table,) = [one for one in heard.of("table") if one["title"] == "filled rows"]
    assert [row[0] for row in table["rows"]] == UNTRAINED
    again, _ = run(tmp_path / "again", source, fix_untrained_tokens=True)
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_tokens_that_are_named_and_no_others(tmp_path: Path) -> None:
    source = untrained_model(tmp_path / "source")
    before, tokens = load_file(source / "model.safetensors"), len(AutoTokenizer.from_pretrained(source))
    after, _ = run(tmp_path / "out", source, fix_untrained_tokens=[20, 21])
    others = [number for number in range(tokens) if number not in (20, 21, *UNTRAINED)]
    places = {EMBEDDING: [number for number in others if number], HEAD: others}
    for name in (EMBEDDING, HEAD):
        expected = before[name].clone()
        expected[[20, 21]] = before[name][places[name]].mean(dim=0)
        torch.testing.assert_close(after[name], expected, atol=1e-7, rtol=1e-6)
    one, _ = run(tmp_path / "one", source, fix_untrained_tokens=20)
    assert torch.equal(one[EMBEDDING][21], before[EMBEDDING][21])
    assert not torch.equal(one[EMBEDDING][20], before[EMBEDDING][20])
    with pytest.raises(SettingError, match=f"{tokens}: the tokenizer's tokens are 0 to {tokens - 1}"):
        run(tmp_path / "beyond", source, fix_untrained_tokens=tokens)
    with pytest.raises(SettingError, match="none has a trained row"):
        run(tmp_path / "all", source, fix_untrained_tokens=list(range(tokens)))


def test_a_model_without_untrained_rows_stays(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    after, heard = run(tmp_path / "out", source, fix_untrained_tokens=True)
    assert heard.summary["filled_embedding_rows"] == 0
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    assert BaseModelConfig(base_model="/m", fix_untrained_tokens=False) == BaseModelConfig(base_model="/m")


def test_weights_in_bits_are_refused(tmp_path: Path) -> None:
    source = make_model(tmp_path / "source")
    path = source / "config.json"
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))
    config = BaseModelConfig(base_model=str(source), adapter="qlora", fix_untrained_tokens=[3])
    assert ["fix_untrained_tokens cannot change them" in fault.reason for fault in config.faults()] == [True]
    with pytest.raises(SettingError, match=r"nor other ones \(fix_untrained_tokens\)"):
        run(tmp_path / "out", source, adapter="qlora", fix_untrained_tokens=[3])
