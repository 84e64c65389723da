"""Models whose answers change with padding, or with the rest of a batch, are found out and answered otherwise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluated import run
from support.families import CONFIGS, make_family, shake
from support.tiny_model import VOCABULARY, evaluation_data, random_rows
from support.tiny_tokenizer import make_tokenizer
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    MambaConfig,
    RecurrentGemmaConfig,
    RwkvConfig,
    XLNetConfig,
)

from tunemill.stages.evaluation.batching_body import batching_of

SIZES = {"vocab_size": VOCABULARY, "eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2}
LIMITED: dict[str, tuple[Any, str]] = {
    "rwkv": (RwkvConfig(**SIZES, **SMALL, attention_hidden_size=16, context_length=64), "alone"),
    "recurrent_gemma": (
        RecurrentGemmaConfig(
            **{**SIZES, **SMALL, "num_hidden_layers": 3}, intermediate_size=48, num_attention_heads=2,
            lru_width=16, attention_window_size=8, head_dim=8,
        ),
        "one length",
    ),
    "xlnet": (XLNetConfig(**SIZES, d_model=16, n_layer=2, n_head=2, d_inner=32), "one length"),
    "mamba": (MambaConfig(**SIZES, **SMALL, state_size=4), "padded"),
}  # fmt: skip


def made(config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    shake(model)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        name
        if name == "llama"
        else pytest.param(
            name, marks=pytest.mark.slow if name in ("gemma2", "gpt_oss") else pytest.mark.exhaustive
        )
        for name in CONFIGS
    ],
)
def test_attention_may_be_padded(name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = make_family(name, dtype=dtype).eval()
        model.generation_config = GenerationConfig()
        assert batching_of(model) == "padded"


@pytest.mark.parametrize(
    "name",
    [name if name == "recurrent_gemma" else pytest.param(name, marks=pytest.mark.slow) for name in LIMITED],
)
def test_answers_are_the_same_in_batches_of_any_size(name: str, tmp_path: Path) -> None:
    config, expected = LIMITED[name]
    model = made(config)
    assert batching_of(model) == expected
    model.save_pretrained(tmp_path / "model")
    make_tokenizer(tmp_path / "model")
    # Prompts of three and of four tokens: some batches are full, some are not.
    rows = evaluation_data(tmp_path / "rows", random_rows(8, shortest=9, longest=12))
    _, alone, _ = run(tmp_path / "a", tmp_path / "model", rows, eval_batch_size=1)
    _, together, heard = run(tmp_path / "b", tmp_path / "model", rows, eval_batch_size=4)
    assert [p["prediction"] for p in alone] == [p["prediction"] for p in together]
    assert len({p["prediction"] for p in alone}) > 2
    said = [event["message"] for event in heard.of("log")]
    assert bool(said) == (expected != "padded")
    if said:
        assert ("one by one" if expected == "alone" else "of one length") in said[0]
        assert type(model).__name__ in said[0]
