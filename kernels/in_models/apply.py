"""Puts kernels into a model: looks for modules that a kernel can compute, proves each, and puts it in place.

The model keeps its class, its parameters and their names; nothing of its source is read or rewritten, and `undo` puts
its own modules back. A module is recognised by its structure (`structure`), gets a class that calls the functions
passed in (`modules`), and is replaced only if both give the same results and gradients (`proof`). What belongs to
the library that the model comes from is passed in too, as `Surroundings`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tunemill.kernels.functions import geglu, lora_mlp, lora_o, lora_qkv, rms_norm, rope, swiglu
from tunemill.kernels.functions.linear_cross_entropy import linear_cross_entropy
from tunemill.kernels.in_models import structure
from tunemill.kernels.in_models.applied import Applied, told
from tunemill.kernels.in_models.loss import replace_loss
from tunemill.kernels.in_models.modules import (
    FUSED,
    Function,
    FusedAttention,
    FusedGateUpMlp,
    FusedLayer,
    FusedLayerNorm,
    FusedMlp,
    FusedNorm,
    in_place_of,
)
from tunemill.kernels.in_models.proof import (
    TOKENS,
    Call,
    UnfitError,
    autocast,
    check_close,
    check_same,
    in_evaluation,
    probe_batch,
    random_adapters,
    recorded_calls,
    tolerance_of,
)

# A compiler graph ends before each of them: they are fused already, and some write over their inputs.
KERNELS: dict[str, Function] = {
    "rms_norm": torch.compiler.disable(rms_norm.rms_norm),
    "rope": torch.compiler.disable(partial(rope.rope, in_place=True)),
    "swiglu": torch.compiler.disable(swiglu.swiglu),
    "geglu": torch.compiler.disable(geglu.geglu),
    "lora_mlp": torch.compiler.disable(lora_mlp.lora_mlp),
    "lora_qkv": torch.compiler.disable(lora_qkv.lora_qkv),
    "lora_o": torch.compiler.disable(lora_o.lora_o),
    "linear_cross_entropy": torch.compiler.disable(linear_cross_entropy),
}
RESIDUAL = "rms_norm with the residual"


class Surroundings(Protocol):
    """What the library of the model knows and a kernel does not."""

    def attention_of(self, module: nn.Module) -> Callable[[], Function]:
        """Looks up the attention function that the config of an attention module chooses at that moment."""

    def rotary_of(self, module: nn.Module) -> Function | None:
        """The model's own rotation, (q, k, cos, sin) to (q, k)."""

    def attention_replaced(self, module: nn.Module, function: Function) -> AbstractContextManager[None]:
        """While open, this attention module calls `function` for attention."""


@dataclass(frozen=True)
class Site:
    """A module, its name, and what the model called it with."""

    name: str
    module: nn.Module
    call: Call | None


def apply_kernels(
    model: nn.Module,
    functions: Mapping[str, Function],
    surroundings: Surroundings,
    *,
    autocast_dtype: torch.dtype | None = None,
) -> Applied:
    """Put `functions` (by the names in `KERNELS`, besides layer_norm and cross_entropy) into a causal language model.

    Args:
        model: on the device and in the dtype that it will be trained in, adapters included.
        autocast_dtype: dtype of the autocast that it will be trained under.
    """
    assert not any(isinstance(module, FUSED) for module in model.modules()), "undo the kernels in it first"
    applied = Applied()
    device = next(model.parameters()).device
    batch = _batch(model, device)
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    candidates = {name: module for name, module in model.named_modules() if name}
    with ExitStack() as proving:
        proving.enter_context(in_evaluation(model))
        proving.enter_context(random_adapters(model))
        proving.enter_context(autocast(device, autocast_dtype))
        undoing = proving.enter_context(ExitStack())
        undoing.callback(applied.undo)
        calls = recorded_calls(list(candidates.values()), lambda: model(**inputs, use_cache=False))
        sites = [Site(name, module, calls.get(module)) for name, module in candidates.items()]
        for replace in REPLACEMENTS:
            for site in sites:
                replace(model, site, functions, surroundings, applied)
        replace_loss(model, functions, batch, applied)
        undoing.pop_all()
    for module, made in applied.pairs:
        made.training = module.training
    return applied


def _batch(model: Any, device: torch.device) -> dict[str, Tensor]:
    """A probe batch of what the model takes."""
    config = model.config.get_text_config()
    batch = probe_batch(_vocabulary(model), getattr(config, "max_position_embeddings", TOKENS), device)
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(plain.forward).parameters:
        del batch["position_ids"]
    return batch


def _vocabulary(model: Any) -> int:
    """How many tokens can be both read and predicted: an embedding may have rows that the head has not."""
    read: int = model.get_input_embeddings().weight.shape[0]
    head = model.get_output_embeddings()
    return read if head is None else min(read, vars(head).get("out_features", read))


def _replace_norm(
    model: nn.Module, site: Site, functions: Mapping[str, Function], _: Surroundings, applied: Applied
) -> None:
    norm = structure.norm_of(site.module) if "rms_norm" in functions else None
    if norm is not None:
        made = in_place_of(
            FusedNorm,
            site.module,
            rms_norm=functions["rms_norm"],
            norm_eps=norm.eps,
            norm_offset=norm.offset,
        )
        _put(model, site, made, ("rms_norm",), applied)


def _replace_layer_norm(
    model: nn.Module, site: Site, functions: Mapping[str, Function], _: Surroundings, applied: Applied
) -> None:
    if "layer_norm" in functions and structure.is_layer_norm(site.module):
        made = in_place_of(FusedLayerNorm, site.module, layer_norm=functions["layer_norm"])
        _put(model, site, made, ("layer_norm",), applied)


def _replace_mlp(
    model: nn.Module, site: Site, functions: Mapping[str, Function], _: Surroundings, applied: Applied
) -> None:
    wanted = tuple(name for name in ("lora_mlp", "swiglu", "geglu") if name in functions)
    if not wanted:
        return
    try:
        activation = structure.activation_of(site.module)
    except UnfitError as error:
        applied.refuse(wanted, site.name, str(error))
        return
    if activation is None:
        return
    gated = "swiglu" if activation == "silu" else "geglu"
    function = functions.get(gated, KERNELS[gated])
    if gated == "geglu":
        function = partial(function, approximate="tanh" if activation == "gelu_tanh" else "none")
    if structure.mlp_projections(site.module) == structure.GATE_UP_CHILDREN:
        if gated in functions:
            _put(model, site, in_place_of(FusedGateUpMlp, site.module, gated=function), (gated,), applied)
        return
    adapted = structure.has_adapter(site.module, *sorted(structure.MLP_CHILDREN))
    lora_mlp = functions.get("lora_mlp") if adapted else None
    if lora_mlp is not None or gated in functions:
        made = in_place_of(FusedMlp, site.module, gated=function, lora_mlp=lora_mlp, activation=activation)
        _put(model, site, made, (gated,) if lora_mlp is None else ("lora_mlp",), applied)


def _replace_layer(
    model: nn.Module, site: Site, functions: Mapping[str, Function], _: Surroundings, applied: Applied
) -> None:
    """Only our kernel adds the residual; a layer that does more than add and normalise is left without a word."""
    if functions.get("rms_norm") is not KERNELS["rms_norm"] or not structure.is_layer(site.module):
        return
    _put(model, site, in_place_of(FusedLayer, site.module), (RESIDUAL,), applied)
    applied.refusals.pop(RESIDUAL, None)


def _replace_attention(
    model: nn.Module,
    site: Site,
    functions: Mapping[str, Function],
    surroundings: Surroundings,
    applied: Applied,
) -> None:
    wanted = tuple(name for name in ("rope", "lora_qkv", "lora_o") if name in functions)
    try:
        if not wanted or not structure.is_attention(site.module):
            return
    except UnfitError as error:
        applied.refuse(wanted, site.name, str(error))
        return
    adapted = {
        "rope": True,
        "lora_qkv": structure.has_adapter(site.module, "q_proj", "k_proj", "v_proj"),
        "lora_o": structure.has_adapter(site.module, "o_proj"),
    }
    wanted = tuple(name for name in wanted if adapted[name])
    # Where heads are rotated in another way, the projections may still fit.
    for kernels in (wanted, tuple(name for name in wanted if name != "rope")):
        if not kernels or site.name in applied.places.get(kernels[0], []):
            continue
        try:
            with told(f"{', '.join(kernels)} in {site.name}"):
                made = _attention(site, {name: functions[name] for name in kernels}, surroundings)
        except UnfitError as error:
            applied.refuse(kernels, site.name, str(error))
        else:
            _put(model, site, made, kernels, applied)


def _attention(site: Site, functions: Mapping[str, Function], surroundings: Surroundings) -> FusedAttention:
    """A replacement that passes the same to the attention function as the original does, in this very call."""
    if site.call is None:
        raise UnfitError("the model did not call it")
    own_rotation = surroundings.rotary_of(site.module)
    rotate = functions.get("rope", own_rotation)
    if rotate is None:
        raise UnfitError("its rotation of q and k is not found")
    expected = _attention_call(site.module, site.call, surroundings)
    settings = {
        name: value
        for name, value in expected.kwargs.items()
        if name not in {"dropout", "scaling", *site.call.kwargs}
    }
    own = {id(parameter) for parameter in site.module.parameters(recurse=False)}
    unknown = [
        name
        for name, value in settings.items()
        if not isinstance(value, int | float | None) and id(value) not in own
    ]
    if unknown:
        raise UnfitError(f"it passes {', '.join(unknown)} to attention")
    parts: dict[str, Any] = {
        "rope": rope.reference if "rope" in functions else rotate,
        "lora_qkv": None,
        "lora_o": None,
        "attention_of": surroundings.attention_of(site.module),
        "attention_settings": settings,
    }
    plain = in_place_of(FusedAttention, site.module, **parts)
    try:
        _attention_call(plain, site.call, surroundings)
    except (RuntimeError, TypeError, ValueError) as error:  # no kernel runs yet: the model's own parts clash
        raise UnfitError(f"it is not put together as in Llama: {error}") from error
    kernels = {"rope": rotate, "lora_qkv": functions.get("lora_qkv"), "lora_o": functions.get("lora_o")}
    made = in_place_of(FusedAttention, site.module, **(parts | kernels))
    actual = _attention_call(made, site.call, surroundings)
    tolerance = tolerance_of(site.module, site.call.hidden_states.dtype)
    for place, name in enumerate(("q", "k", "v")):
        left, right = actual.args[place], expected.args[place]
        check_close(f"{name} as attention gets it", left.to(right.dtype), right, tolerance)
    if actual.kwargs.keys() != expected.kwargs.keys() or actual.args[3] is not expected.args[3]:
        raise UnfitError("it passes other arguments to attention")
    for name, value in expected.kwargs.items():
        if not isinstance(value, Tensor) and actual.kwargs[name] != value:
            raise UnfitError(f"it passes {name}={value} to attention, not {actual.kwargs[name]}")
    return made


def _attention_call(module: nn.Module, call: Call, surroundings: Surroundings) -> Call:
    """What `module` passes to its attention function: (query, key, value, mask) and settings."""
    calls: list[Call] = []

    def attend(_: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **settings: Any) -> Any:
        calls.append(Call((query, key, value, mask), settings))
        return query.transpose(1, 2).contiguous(), None

    with torch.no_grad(), surroundings.attention_replaced(module, attend):
        module(*call.args, **call.kwargs)
    if len(calls) != 1:
        raise UnfitError("it does not call attention once")
    return calls[0]


def _put(model: nn.Module, site: Site, made: nn.Module, kernels: tuple[str, ...], applied: Applied) -> None:
    """Prove `made` and put it in the place of the site's module, or note why not."""
    try:
        if "forward" in vars(site.module):
            raise UnfitError("something else has replaced its forward")
        if site.call is None:
            raise UnfitError("the model did not call it")
        with told(f"{', '.join(kernels)} in {site.name}"):
            check_same(site.module, made, site.call)
    except UnfitError as error:
        applied.refuse(kernels, site.name, str(error))
        return
    applied.put_child(model, site.name, site.module, made)
    applied.note(kernels, site.name)


REPLACEMENTS = (_replace_norm, _replace_layer_norm, _replace_attention, _replace_mlp, _replace_layer)
