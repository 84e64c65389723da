"""Comparing the merged model with base and adapter on fixed tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

# Largest difference of a logit over the largest logit. Merging rounds each weight once to the model's type, and the
# layers add that up: a few units in the last place of float32, bfloat16 (8 bits) or float16 (11 bits).
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
SEQUENCES, TOKENS = 4, 24


@dataclass(frozen=True)
class Proof:
    """Largest differences of a logit, over fixed token sequences. `tolerance` bounds `difference`."""

    difference: float
    change: float
    tolerance: float


def fixed_tokens(vocabulary: int) -> Any:
    """[4, 24] token ids, the same for every model with this vocabulary."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (SEQUENCES, TOKENS), generator=random)


def prove(base: Path, adapter: Path, merged: Path) -> Proof:
    """Logits of base and adapter (by PEFT) against the merged model; `change` is base against adapter.

    The models are loaded one after the other, in the type they are stored in.
    """
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="auto").eval()
    ids = fixed_tokens(plain.config.get_text_config().vocab_size)
    before = _logits(plain, ids)
    dtype = plain.dtype
    expected = _logits(PeftModel.from_pretrained(plain, adapter, low_cpu_mem_usage=True).eval(), ids)
    del plain
    found = _logits(AutoModelForCausalLM.from_pretrained(merged, dtype="auto").eval(), ids)
    return Proof(
        difference=float((found - expected).abs().max()),
        change=float((expected - before).abs().max()),
        tolerance=TOLERANCE[dtype] * float(expected.abs().max()),
    )


def _logits(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits.float()
