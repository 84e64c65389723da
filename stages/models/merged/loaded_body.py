"""Merging by PEFT in the loaded model: what is more than a product of two factors beside one stored tensor."""

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tunemill.stages.errors import UserError
from tunemill.stages.models.adapter_body import load_adapter
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.files import forget_versions, weight_files
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.joined_experts_body import JoinedExperts
from tunemill.stages.models.linear_experts_body import join_experts
from tunemill.stages.models.loading_body import is_quantized, load_base_of, load_model
from tunemill.stages.models.weights import sort_header, tensors_of_model


def merge_loaded(base: Path, frozen: StoredBase | None, adapter: Path, target: Path) -> tuple[int, int]:
    """Write the merged model; the whole of it is in memory, in float32, and rounded once to the types of the base.

    Returns how many of the base's tensors came out different, and how many the adapter has. Raises UserError where
    one of these has no place in the model.
    """
    model = load_base_of(adapter, base, dtype="auto", device_map={"": "cpu"})
    types = {name: tensor.dtype for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    rest = model.dtype
    if is_quantized(base):
        # Not in its own type, which would round before the adapter is added.
        model = model.dequantize(dtype=torch.float32)
    model.float()
    if frozen is not None:
        _take_quantized(model, frozen)
    try:
        adapted, used = load_adapter(model, adapter)
    except UserError as error:
        raise UserError(f"adapter: {error}.") from error
    _give_layers_their_own(adapted.get_base_model())
    with warnings.catch_warnings():
        # PEFT tells of tied weights, which are taken apart below.
        warnings.simplefilter("ignore")
        merged = adapted.merge_and_unload()
    for name, tensor in (*merged.named_parameters(), *merged.named_buffers()):
        tensor.data = tensor.data.to(types.get(name, rest))
    join_experts(merged)
    _take_apart(merged)
    set_generation_aside(merged)
    # The names of a base that came quantized are those of bitsandbytes, and go with it.
    merged.save_pretrained(target, save_original_format=not is_quantized(base))
    forget_versions(target)
    for path in weight_files(target):
        sort_header(path)
    keep_generation(base, target)
    return _count_changed(base, frozen, target), used


def _give_layers_their_own(model: Any) -> None:
    """Layers that were replicated share their weights, and each is merged with an adapter of its own."""
    head, seen = model.get_output_embeddings(), set()
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or module is head:
                continue
            if id(parameter) in seen:
                module._parameters[name] = torch.nn.Parameter(parameter.data.clone(), requires_grad=False)
            seen.add(id(parameter))


def _take_quantized(model: Any, frozen: StoredBase) -> None:
    """The weights as they were quantized, in place of those before."""
    weights = model.state_dict()
    if frozen.experts:
        # In the files each expert is a tensor of its own, in the model they are one.
        stored = load_model(frozen.folder, dtype=torch.float32, device_map={"": "cpu"}).state_dict()
        for name, tensor in weights.items():
            if tensor.ndim == 3 and name in stored:
                tensor.copy_(stored[name])
    for name in sorted(frozen.quantized - frozen.experts):
        assert name in weights, f"{name}: quantized, and not in the base"
        weights[name].copy_(frozen.read(name))


def _take_apart(model: Any) -> None:
    """Where head and embeddings were tied and have parted, the config says so."""
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    if head is None or not config.tie_word_embeddings:
        return
    if not torch.equal(head.weight, model.get_input_embeddings().weight):
        config.tie_word_embeddings = model.config.tie_word_embeddings = False


def _count_changed(base: Path, frozen: StoredBase | None, target: Path) -> int:
    before = JoinedExperts(base)
    changed = 0
    for name, place in tensors_of_model(target).items():
        with safe_open(place.file, framework="pt") as reader:
            new = reader.get_tensor(name)
        source = before if frozen is None or name not in frozen.quantized else frozen
        changed += name not in source.weights or not torch.equal(source.read(name).to(new.dtype), new)
    return changed
