"""Comparing the merged model with base and adapter on fixed tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from tunemill.stages.models.loading_body import is_quantized, load_base_of, load_model
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.rounded_body import with_adapter
from tunemill.stages.models.weights import tensors_of_model

# Largest difference of a logit over the largest logit. Merging rounds each weight once to the type it is stored in, and
# the layers add that up: a few units in the last place of float32, bfloat16 (8 bits) or float16 (11 bits).
TOLERANCE = {"F32": 1e-4, "BF16": 0.1, "F16": 0.02}

CPU = {"": "cpu"}


@dataclass(frozen=True)
class Proof:
    """Largest differences of a logit, over fixed token sequences.

    `difference`: the merged model against base and adapter, where the base is the one that the adapter was folded
    into; `tolerance` bounds it. `change`: base against base and adapter. `from_trained`, `from_unquantized`: the merged
    model against the adapter on the quantized base, and on the base before it was quantized; None without the former.
    """

    difference: float
    change: float
    tolerance: float
    from_trained: float | None = None
    from_unquantized: float | None = None


def prove(base: Path, quantized: Path | None, adapter: Path, merged: Path, *, onto_quantized: bool) -> Proof:
    """Logits of base and adapter (by PEFT) against the merged model.

    The models are loaded one after the other, and computed in float32 whatever they are stored in: what differs is
    the rounding of the merged weights, not that of the layers. Of a quantized base the weights count, not how they
    are multiplied: 8-bit modules round their inputs too, which no merged model does.

    What was folded is what is proven: onto the quantized base the merged model must be what was trained, onto the
    other one it must be that one with the adapter, and how far that is from what was trained can only be told.
    """
    stored = {tensor.dtype for tensor in tensors_of_model(base).values()}
    tolerance = max(TOLERANCE.get(dtype, TOLERANCE["F32"]) for dtype in stored)
    found = logits_of(_plain(merged), _ids(base))
    on_plain = _with_adapter(base, adapter)
    on_quantized = None if quantized is None else _with_adapter(quantized, adapter)
    before, expected = on_plain if on_quantized is None or not onto_quantized else on_quantized
    return Proof(
        difference=_largest(found, expected),
        change=_largest(expected, before),
        tolerance=tolerance * float(expected.abs().max()),
        from_trained=None if on_quantized is None else _largest(found, on_quantized[1]),
        from_unquantized=None if on_quantized is None else _largest(found, on_plain[1]),
    )


def _ids(folder: Path) -> Any:
    return fixed_tokens(AutoConfig.from_pretrained(folder).get_text_config().vocab_size)


def _plain(folder: Path, adapter: Path | None = None) -> Any:
    settings = {"dtype": torch.float32, "device_map": CPU}
    model = load_model(folder, **settings) if adapter is None else load_base_of(adapter, folder, **settings)
    return (model.dequantize(dtype=torch.float32) if is_quantized(folder) else model).eval()


def _with_adapter(folder: Path, adapter: Path) -> tuple[Any, Any]:
    """Logits of a base without and with the adapter."""
    plain, ids = _plain(folder, adapter), _ids(folder)
    before = logits_of(plain, ids)
    both = with_adapter(plain, adapter).float()
    return before, logits_of(both.eval(), ids)


def _largest(one: Any, other: Any) -> float:
    return float((one - other).abs().max())
