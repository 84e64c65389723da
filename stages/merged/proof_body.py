"""Comparing the merged model with base and adapter on fixed tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tunemill.stages.base_model.weights import tensors_of_model

# Largest difference of a logit over the largest logit. Merging rounds each weight once to the type it is stored in, and
# the layers add that up: a few units in the last place of float32, bfloat16 (8 bits) or float16 (11 bits).
TOLERANCE = {"F32": 1e-4, "BF16": 0.1, "F16": 0.02}
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

    The models are loaded one after the other, and computed in float32 whatever they are stored in: what differs is
    the rounding of the merged weights, not that of the layers.
    """
    stored = {tensor.dtype for tensor in tensors_of_model(base).values()}
    tolerance = max(TOLERANCE.get(dtype, TOLERANCE["F32"]) for dtype in stored)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    ids = fixed_tokens(plain.config.get_text_config().vocab_size)
    before = _logits(plain, ids)
    both = PeftModel.from_pretrained(plain, adapter, low_cpu_mem_usage=True).float()
    expected = _logits(both.eval(), ids)
    del plain, both
    found = _logits(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval(), ids)
    return Proof(
        difference=float((found - expected).abs().max()),
        change=float((expected - before).abs().max()),
        tolerance=tolerance * float(expected.abs().max()),
    )


def _logits(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits.float()
