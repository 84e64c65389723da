"""Whole tiny models, with kernels and without: losses and gradients are the same. Run by test_apply.py."""

import copy
from typing import Any

import pytest
import torch
from support.families import (
    assert_as_exact,
    assert_same_step,
    autocast,
    make_family,
    packed_batch,
    step,
    with_lora,
)

from tunemill.kernels.functions.triton_runtime import interpreted
from tunemill.kernels.in_models.apply import RESIDUAL
from tunemill.kernels.in_models.loss import FusedHead
from tunemill.kernels.in_models.modules import FusedAttention, FusedMlp, FusedNorm
from tunemill.stages.training.kernels.surroundings_body import use_kernels

slow = pytest.mark.slow

NORMS = {"llama": 3, "mistral": 3, "qwen2": 3, "qwen3": 5, "gemma": 3, "gemma2": 9}
GATED = {"gemma": "geglu", "gemma2": "geglu"}
ALL = ("rms_norm", "rope", "swiglu", "geglu", "lora_mlp", "lora_qkv", "lora_o", "linear_cross_entropy")
BATCH = packed_batch(5, 4)


def test_the_interpreter_is_on() -> None:
    assert interpreted


def expected_places(family: str, *, lora: bool) -> dict[str, int]:
    layers = 2 if family == "gemma2" else 1
    per_layer = ("rope", "lora_mlp", "lora_qkv", "lora_o") if lora else ("rope", GATED.get(family, "swiglu"))
    places = {"rms_norm": NORMS[family], "linear_cross_entropy": 1} | dict.fromkeys(per_layer, layers)
    # Gemma 2 normalises between attention and the addition.
    return places if family == "gemma2" else places | {RESIDUAL: 1}


def counted(applied: Any) -> dict[str, int]:
    return {name: len(places) for name, places in applied.places.items()}


# Another family adds nothing but its own norm and activation, which kernels are tested with alone too.
FAMILIES = [family if family == "llama" else pytest.param(family, marks=slow) for family in NORMS]


@pytest.mark.parametrize("family", FAMILIES)
def test_lora(family: str) -> None:
    model = with_lora(make_family(family))
    plain = step(model, BATCH)
    names = list(model.state_dict())
    applied = use_kernels(model, ALL)
    assert counted(applied) == expected_places(family, lora=True)
    assert not any(applied.refusals.values())
    assert list(model.state_dict()) == names
    assert_same_step(step(model, BATCH), plain)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same_step(step(model, BATCH), plain)


@pytest.mark.parametrize("family", ["llama", pytest.param("gemma2", marks=slow)])
def test_full(family: str) -> None:
    model = make_family(family)
    plain = step(model, BATCH)
    applied = use_kernels(model, ALL)
    assert counted(applied) == expected_places(family, lora=False)
    assert_same_step(step(model, BATCH), plain)


def test_items_of_several_batches() -> None:
    model = make_family("llama")
    plain = step(model, BATCH, num_items_in_batch=torch.tensor(23))
    use_kernels(model, ("linear_cross_entropy",))
    assert_same_step(step(model, BATCH, num_items_in_batch=torch.tensor(23)), plain)


@pytest.mark.parametrize(
    ("family", "weights", "autocast_dtype"),
    [
        ("llama", torch.bfloat16, None),
        pytest.param("llama", torch.float16, None, marks=slow),
        pytest.param("qwen3", torch.bfloat16, torch.bfloat16, marks=slow),
        pytest.param("gemma", torch.float32, torch.bfloat16, marks=slow),
    ],
)
def test_half_precision(family: str, weights: torch.dtype, autocast_dtype: torch.dtype | None) -> None:
    model = with_lora(make_family(family, dtype=weights))
    exact = step(copy.deepcopy(model).float(), BATCH)
    with autocast(autocast_dtype):
        plain = step(model, BATCH)
    applied = use_kernels(model, ALL, autocast_dtype=autocast_dtype)
    assert counted(applied) == expected_places(family, lora=True)
    with autocast(autocast_dtype):
        # The interpreter cuts bfloat16 off where a GPU rounds to nearest, which doubles an error.
        factor = 1.3 if weights == torch.float16 else 3.0
        assert_as_exact(step(model, BATCH), plain, exact, factor)


def test_every_kernel_alone_changes_nothing() -> None:
    model = with_lora(make_family("llama"))
    plain = step(model, BATCH)
    own = {name: type(module) for name, module in model.named_modules()}
    for name in ALL:
        applied = use_kernels(model, (name,))
        assert bool(applied.places) == (name != "geglu"), name
        assert_same_step(step(model, BATCH), plain)
        applied.undo()
        assert {name: type(module) for name, module in model.named_modules()} == own
    assert step(model, BATCH)[0] == plain[0]


@pytest.mark.parametrize("adapted", [pytest.param(True, marks=slow), False])
def test_compiled(adapted: bool) -> None:
    model = make_family("llama")
    model = with_lora(model) if adapted else model
    plain = step(model, BATCH)
    use_kernels(model, ALL)
    compiled = torch.compile(model, backend="aot_eager")
    loss = compiled(**BATCH, use_cache=False).loss
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same_step((float(loss), gradients), plain)


def test_a_wrong_kernel_is_found_out() -> None:
    """Each of these differs from the model by less than a tenth in a value or in a gradient only."""
    from tunemill.kernels.in_models.apply import KERNELS, apply_kernels
    from tunemill.stages.training.kernels.surroundings_body import Transformers

    def backwards_wrong(y: torch.Tensor) -> torch.Tensor:
        return 1.1 * y - 0.1 * y.detach()

    def wrong(name: str) -> Any:
        def function(*args: Any, **settings: Any) -> Any:
            result = KERNELS[name](*args, **settings)
            if isinstance(result, tuple):
                return tuple(backwards_wrong(part) for part in result)
            return backwards_wrong(result)

        return function

    model = with_lora(make_family("llama"))
    for name in ALL:
        applied = apply_kernels(model, {name: wrong(name)}, Transformers())
        assert not applied.places, name
        if name != "geglu":
            assert "gradient of" in next(iter(applied.refusals[name].values())), name
    fused = (FusedAttention, FusedHead, FusedMlp, FusedNorm)
    assert not any(isinstance(module, fused) for module in model.modules())
