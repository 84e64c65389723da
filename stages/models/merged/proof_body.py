"""Comparing the merged model with base and adapter on fixed tokens."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.weights import tensors_of_model

# Largest difference of a logit over the largest logit. Merging rounds each weight once to the type it is stored in, and
# the layers add that up: a few units in the last place of float32, bfloat16 (8 bits) or float16 (11 bits).
TOLERANCE = {"F32": 1e-4, "BF16": 0.1, "F16": 0.02}


@dataclass(frozen=True)
class Proof:
    """Largest differences of a logit, over fixed token sequences. `tolerance` bounds `difference`."""

    difference: float
    change: float
    tolerance: float


def prove(base: Path, adapter: Path, merged: Path) -> Proof:
    """Logits of base and adapter (by PEFT) against the merged model; `change` is base against adapter.

    The models are loaded one after the other, and computed in float32 whatever they are stored in: what differs is
    the rounding of the merged weights, not that of the layers.
    """
    stored = {tensor.dtype for tensor in tensors_of_model(base).values()}
    tolerance = max(TOLERANCE.get(dtype, TOLERANCE["F32"]) for dtype in stored)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    ids = fixed_tokens(plain.config.get_text_config().vocab_size)
    before = logits_of(plain, ids)
    both = PeftModel.from_pretrained(plain, adapter, low_cpu_mem_usage=True).float()
    expected = logits_of(both.eval(), ids)
    del plain, both
    found = logits_of(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval(), ids)
    return Proof(
        difference=float((found - expected).abs().max()),
        change=float((expected - before).abs().max()),
        tolerance=tolerance * float(expected.abs().max()),
    )
