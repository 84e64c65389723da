"""The loss of a model by a kernel: every argument that transformers passes, and losses that are not the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.families import SIZES, assert_same_step, make_family, packed_batch, shake, step
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BambaConfig

from tunemill.kernels.functions import linear_cross_entropy, swiglu
from tunemill.kernels.in_models.apply import apply_kernels
from tunemill.kernels.in_models.modules import FusedMlp
from tunemill.stages.training.kernels.surroundings_body import Transformers, use_kernels

BATCH = packed_batch(5, 4)
LOSSES = {
    "linear_cross_entropy": linear_cross_entropy.reference,
    "cross_entropy": nn.functional.cross_entropy,
}


@pytest.mark.parametrize("kernel", LOSSES)
@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{"num_items_in_batch": 23}, {"shift_labels": BATCH["labels"].flip(1)}, {"ignore_index": 7}],
    ids=lambda settings: next(iter(settings)),
)
def test_arguments_of_the_loss(kernel: str, trains: bool, settings: dict[str, Any]) -> None:
    ignored = settings.get("ignore_index", -100)
    batch = BATCH | {"labels": BATCH["labels"].masked_fill(BATCH["labels"] == -100, ignored)}
    model = make_family("llama").train(trains)
    plain = step(model, batch, **settings)
    assert apply_kernels(model, {kernel: LOSSES[kernel]}, Transformers()).places
    assert_same_step(step(model, batch, **settings), plain)


@pytest.mark.parametrize("kernel", LOSSES)
@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_what_the_model_adds_to_the_loss_stays(kernel: str, family: str) -> None:
    settings = {"output_router_logits": True, "num_local_experts": 4, "num_experts_per_tok": 2}
    model = make_family(family, **settings, router_aux_loss_coef=0.7)
    without = step(make_family(family, **settings, router_aux_loss_coef=0.0), BATCH, num_items_in_batch=23)
    plain = step(model, BATCH, num_items_in_batch=23)
    assert plain[0] > without[0] + 0.5
    assert apply_kernels(model, {kernel: LOSSES[kernel]}, Transformers()).places
    assert_same_step(step(model, BATCH, num_items_in_batch=23), plain)


def test_a_model_that_adds_something_of_the_logits_keeps_its_head() -> None:
    sizes = {"mamba_n_heads": 4, "mamba_d_head": 8, "attn_layer_indices": [0]}
    model = AutoModelForCausalLM.from_config(
        BambaConfig(**{**SIZES, **sizes}, z_loss_coefficient=1e-4)
    ).train()
    shake(model)
    plain = step(model, BATCH)
    applied = use_kernels(model, ("linear_cross_entropy",))
    assert "loss differs" in applied.refusals["linear_cross_entropy"]["the output head"]
    assert_same_step(step(model, BATCH), plain)


def of_ignored_tokens_too(hidden: Tensor, weight: Tensor, labels: Tensor, **settings: Any) -> Any:
    return linear_cross_entropy.reference(hidden, weight, labels.clamp(min=0), **settings)


def with_a_wrong_gradient(*args: Tensor, **settings: Any) -> Any:
    loss: Any = linear_cross_entropy.reference(*args, **settings)
    return 2.0 * loss - loss.detach()


def with_a_wrong_gradient_of_the_head(hidden: Tensor, weight: Tensor, *args: Tensor, **settings: Any) -> Any:
    return linear_cross_entropy.reference(hidden, 1.1 * weight - 0.1 * weight.detach(), *args, **settings)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (of_ignored_tokens_too, "loss differs"),
        (with_a_wrong_gradient, "gradient of the loss differs"),
        (with_a_wrong_gradient_of_the_head, "gradient of the output head differs"),
    ],
)
def test_a_wrong_loss_is_taken_out_and_nothing_else(wrong: Callable[..., Any], reason: str) -> None:
    model = make_family("llama")
    plain = step(model, BATCH)
    functions = {"swiglu": swiglu.swiglu, "linear_cross_entropy": wrong}
    applied = apply_kernels(model, functions, Transformers())
    assert applied.refusals["linear_cross_entropy"]["the output head"].startswith(reason)
    assert isinstance(model.model.layers[0].mlp, FusedMlp)
    assert_same_step(step(model, BATCH), plain)


def test_a_head_with_a_bias_stays() -> None:
    model = make_family("llama")
    bias = nn.Parameter(torch.zeros(model.lm_head.out_features))
    model.lm_head.bias = bias
    applied = use_kernels(model, ("linear_cross_entropy",))
    assert "without bias" in applied.refusals["linear_cross_entropy"]["the output head"]
