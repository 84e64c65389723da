"""Whole tiny models on a GPU, with kernels and without: the same loss and the same gradients."""

import copy
from typing import Any

import pytest
import torch
from support.families import (
    CONFIGS,
    assert_as_exact,
    assert_same_step,
    make_family,
    packed_batch,
    step,
    with_lora,
)
from support.gpu import DEVICE, needs_gpu

from tunemill.kernels.in_models.apply import KERNELS
from tunemill.stages.data.rows.isolation_body import rows_leak
from tunemill.stages.training.kernels.surroundings_body import use_kernels

pytestmark = needs_gpu

# Wide enough for heads of 64, and for whole blocks of the kernels beside parts of one.
SIZES = {"hidden_size": 256, "intermediate_size": 352}
WIDE_HEADS = {"head_dim": 64}
LENGTHS = (300, 1, 150, 61)


def model_of(family: str, **changes: Any) -> Any:
    heads = WIDE_HEADS if "head_dim" in CONFIGS[family][1] else {}
    longest = {"max_position_embeddings": 1024}
    return make_family(family, **{**SIZES, **heads, **longest, **changes})


def batch_on(device: str) -> dict[str, torch.Tensor]:
    return {name: values.to(device) for name, values in packed_batch(*LENGTHS).items()}


def places_of(applied: Any) -> dict[str, int]:
    return {name: len(places) for name, places in applied.places.items()}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", CONFIGS)
def test_the_same_step_in_float32(family: str, lora: bool) -> None:
    model = model_of(family)
    model = with_lora(model) if lora else model
    on_cpu = use_kernels(copy.deepcopy(model), KERNELS)
    model = model.to(DEVICE)
    batch = batch_on(DEVICE)
    plain = step(model, batch)
    applied = use_kernels(model, KERNELS)
    assert places_of(applied) == places_of(on_cpu), applied.refusals
    assert_same_step(step(model, batch), plain, 1e-4)
    if family in ("llama", "gemma2"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        assert_same_step(step(model, batch), plain, 1e-4)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_half_precision_is_as_close_to_float64_as_without(
    family: str, weights: torch.dtype, lora: bool
) -> None:
    autocast_dtype = torch.bfloat16 if weights == torch.float32 else None
    model = model_of(family, dtype=weights)
    model = (with_lora(model) if lora else model).to(DEVICE)
    batch = batch_on(DEVICE)
    exact = step(copy.deepcopy(model).double(), batch)
    with torch.autocast(DEVICE, autocast_dtype, enabled=autocast_dtype is not None):
        plain = step(model, batch)
        applied = use_kernels(model, KERNELS, autocast_dtype=autocast_dtype)
        assert not any(applied.refusals.values()), applied.refusals
        assert_as_exact(step(model, batch), plain, exact, 1.3)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_compiled_by_inductor(lora: bool) -> None:
    model = model_of("llama")
    model = (with_lora(model) if lora else model).to(DEVICE)
    batch = batch_on(DEVICE)
    plain = step(model, batch)
    use_kernels(model, KERNELS)
    loss = torch.compile(model)(**batch, use_cache=False).loss
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same_step((float(loss), gradients), plain, 1e-4)


def attentions() -> list[Any]:
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    missing = {
        "flash_attention_2": not is_flash_attn_2_available(),
        "flash_attention_3": not is_flash_attn_3_available(),
    }
    return [
        pytest.param(
            name, marks=pytest.mark.skipif(missing.get(name, False), reason=f"{name} is not installed")
        )
        for name in ("sdpa", "eager", "flex_attention", *missing)
    ]


@pytest.mark.parametrize("kernels", [False, True], ids=["plain", "kernels"])
@pytest.mark.parametrize("attention", attentions())
def test_packed_rows_are_computed_as_if_alone(attention: str, kernels: bool) -> None:
    is_flash = attention.startswith("flash")
    dtype = torch.bfloat16 if is_flash else torch.float32
    model = model_of("llama", dtype=dtype, attn_implementation=attention).to(DEVICE)
    assert model.config._attn_implementation == attention
    if kernels:
        assert use_kernels(model, KERNELS).places["rope"]
    model.eval()
    assert not rows_leak(model, torch.device(DEVICE))
    batch = {name: values for name, values in batch_on(DEVICE).items() if name != "labels"}
    # Each length is compiled anew by flex attention, half a minute each.
    lengths = LENGTHS[:1] if attention == "flex_attention" else LENGTHS
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits
        first = 0
        for length in lengths:
            alone = {name: values[:, first : first + length] for name, values in batch.items()}
            apart = model(**alone, use_cache=False).logits
            difference = (together[:, first : first + length] - apart).float().norm() / apart.float().norm()
            assert difference < (2e-2 if is_flash else 1e-5), (first, float(difference))
            first += length
