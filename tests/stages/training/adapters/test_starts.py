"""Starts of an adapter that change the base, or look at data: what is trained is what is stored, merged and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import load_file
from stages.training.adapters.adapted import LINEAR, llama, merged, train, train_and_merge
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Adapter, BaseModel
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.body import _load
from tunemill.stages.models.probe_body import fixed_tokens, logits_of

LOFTQ: dict[str, Any] = {"peft": {"loftq_config": {"loftq_bits": 4}}}
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
FACTOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def weights_of(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def in_4_bits(weight: torch.Tensor) -> torch.Tensor:
    return dequantize_4bit(*quantize_4bit(weight.float(), blocksize=64, quant_type="nf4"))


def factors_of(adapter: Adapter) -> tuple[torch.Tensor, torch.Tensor]:
    stored = weights_of(adapter.path, "adapter_model.safetensors")
    return stored[FACTOR.format("A")], stored[FACTOR.format("B")]


@pytest.mark.parametrize("variant", [{}, {"peft_use_dora": True}], ids=str)
def test_loftq_merges_into_the_rounded_base(tmp_path: Path, variant: dict[str, Any]) -> None:
    base = llama(tmp_path / "base")
    data, trained, heard = train_and_merge(tmp_path, base, **LINEAR, **LOFTQ, **variant)
    assert trained.summary["start_logit_difference"] < 1e-4
    assert (trained.summary["loftq_bits"], trained.summary["loftq_modules"]) == (4, 14)
    assert heard.summary["changed_tensors"] == 14
    if not variant:
        a, b = factors_of(Adapter(tmp_path / "trained" / "data"))
        expected = in_4_bits(weights_of(base.path)[Q_PROJ]) + 2 * b @ a
        torch.testing.assert_close(weights_of(data)[Q_PROJ], expected)


def test_loftq_begins_with_what_rounding_lost(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    adapter, heard = train(tmp_path / "one", base, steps=1, learning_rate=1e-12, **LINEAR, **LOFTQ)
    weight = weights_of(base.path)[Q_PROJ]
    lost = weight - in_4_bits(weight)
    a, b = factors_of(adapter)
    # The best product of rank 4, whatever it is multiplied by: here with 8 / 4.
    left, values, right = torch.linalg.svd(lost)
    torch.testing.assert_close(2 * b @ a, left[:, :4] * values[:4] @ right[:4], rtol=1e-3, atol=1e-5)
    assert 0.5 < heard.summary["loftq_error_left"] < 0.95
    _, finer = train(tmp_path / "8", base, steps=1, **LINEAR, peft={"loftq_config": {"loftq_bits": 8}})
    _, plain = train(tmp_path / "plain", base, steps=1, **LINEAR)
    first = [each.steps("loss")[1] for each in (heard, finer, plain)]
    assert abs(first[1] - first[2]) < abs(first[0] - first[2])


def test_loftq_is_loaded_beside_the_rounded_base(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    adapter, _ = train(tmp_path / "trained", base, **LINEAR, **LOFTQ)
    data, _ = merged(tmp_path / "merged", base, adapter)
    model, _ = _load(base, adapter)
    expected = AutoModelForCausalLM.from_pretrained(data)
    ids = fixed_tokens(expected.config.vocab_size)
    torch.testing.assert_close(logits_of(model, ids), logits_of(expected, ids), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("tied", "targets", "reason"),
    [
        (True, ["lm_head"], "are one tensor"),
        (False, ["embed_tokens"], "is for linear modules, and an embedding"),
    ],
)
def test_weights_that_loftq_cannot_round(tmp_path: Path, tied: bool, targets: list[str], reason: str) -> None:
    base: BaseModel = llama(tmp_path / "base", tie_word_embeddings=tied)
    with pytest.raises(SettingError, match=reason):
        train(tmp_path / "a", base, lora_target_modules=targets, **LOFTQ)
