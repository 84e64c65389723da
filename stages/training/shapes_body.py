"""A model, its adapter and its loss as a training has them, of tensors that need hold no numbers."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from tunemill.kernels.functions.chunked_cross_entropy import chunked_cross_entropy
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.heads_body import auto_class, check_head, head_modules, output_modules
from tunemill.stages.models.quantization_body import round_in_forward
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.training.adapters.add_body import add_adapter
from tunemill.stages.training.adapters.linearized_body import linearize_experts
from tunemill.stages.training.batch_shapes_body import BatchShape
from tunemill.stages.training.experts_body import set_experts
from tunemill.stages.training.frozen_body import freeze_all_but, layers_of
from tunemill.stages.training.keys.frozen import Unfrozen
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.machine_body import Precision

# Attention that makes no mask: with flash attention, or where no row is padded.
UNMASKED = "tunemill_unmasked"


@contextmanager
def from_shapes_alone(model_config: Any) -> Iterator[None]:
    """Raises SettingError where what a model computes depends on numbers."""
    try:
        yield
    except (
        DataDependentOutputException,
        DynamicOutputShapeException,
        UnsupportedFakeTensorException,
    ) as error:
        raise SettingError(
            f"{model_config.model_type}: what its layers compute depends on numbers in its tensors ({error}), so its "
            f"memory cannot be told from shapes alone."
        ) from error


def this_device() -> torch.device:
    """The device that computes on this machine."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def capacity_of(device: torch.device) -> tuple[str, int | None]:
    """What a device is called, and its bytes; None: not a GPU."""
    if device.type != "cuda":
        return "the CPU's main memory", None
    found = torch.cuda.get_device_properties(device)
    return found.name, found.total_memory


def build_model(
    config: TrainingKeys, model_config: Any, precision: Precision, shape: BatchShape, bits: int, double: bool
) -> Any:
    """The model with what is trained in it, from its config alone."""
    attention: str | None = config.attention
    if config.attention_needs_gpu or (attention in (None, "sdpa") and not shape.masked):
        attention = UNMASKED
        AttentionInterface.register(UNMASKED, unmasked_attention)
        AttentionMaskInterface.register(UNMASKED, no_mask)
    named = {"attn_implementation": attention} if attention else {}
    if config.head is not None:
        check_head(model_config, config.head)
        model_config.num_labels = config.head.labels
        # Which token fills a batch does not matter where tokens are no numbers.
        model_config.pad_token_id = model_config.pad_token_id or 0
    model = auto_class(config.head).from_config(model_config, dtype=precision.weights, **named)
    model.config.use_cache = False
    linearize_experts(config, model)
    if bits < 16:
        pack_linear(model, bits, double, precision.autocast or precision.weights)
    set_experts(config, model)
    if config.qat is not None:
        round_in_forward(model, config.qat)
    if config.adapter is not None:
        model = adapted(config, model)
    else:
        freeze(config, model)
    if config.checkpoints_reentrantly:
        model.enable_input_require_grads()
    if config.gradient_checkpointing:
        given = config.gradient_checkpointing_kwargs or {"use_reentrant": False}
        # The state of random numbers is no tensor of shapes alone.
        model.gradient_checkpointing_enable({**given, "preserve_rng_state": False})
    return model.train()


def adapted(config: TrainingKeys, model: Any) -> Any:
    """The model with its adapter, whose first values, which may be drawn from the weights, do not count."""
    if config.lora_model_dir is None:
        plain = {"peft_init_lora_weights": True, "peft": None}
        return add_adapter(config.model_copy(update=plain), model, config.seed)
    try:
        stored = PeftConfig.from_pretrained(config.lora_model_dir)
    except (OSError, ValueError) as error:
        raise UserError(f"lora_model_dir: {config.lora_model_dir}: {error}") from error
    assert isinstance(stored, LoraConfig), "the config refuses other adapters"
    stored.inference_mode, stored.init_lora_weights = False, True
    return get_peft_model(
        model, stored, autocast_adapter_dtype=config.peft_autocast_adapter_dtype is not False
    )


def freeze(config: TrainingKeys, model: Any) -> None:
    """Freeze what is not trained. Of rows of a tensor the whole tensor has a gradient and a state."""
    if config.lisa_n_layers is not None and config.lisa_step_interval is not None:
        for layer in layers_of(model, config.lisa_layers_attribute)[config.lisa_n_layers :]:
            layer.requires_grad_(False)
    elif config.unfrozen:
        heads = [Unfrozen(f"^{name}\\.") for name in head_modules(model)]
        freeze_all_but(model, [*(Unfrozen(one.pattern) for one in config.unfrozen), *heads])


def place(model: nn.Module) -> None:
    """Put in place of every tensor one of the default device, which has no numbers either; ties stay ties.

    A model is built on the meta device, whose tensors `Module.to` can change the type of, as PEFT asks.
    """
    made: dict[int, Any] = {}

    def moved(tensor: Any) -> Any:
        if id(tensor) not in made:
            plain = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            # Beside the new one the old one stays, so that no other gets its id.
            made[id(tensor)] = (nn.Parameter(plain, tensor.requires_grad) if is_parameter else plain, tensor)
        return made[id(tensor)][0]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers, module.__dict__):
            for name, tensor in list(tensors.items()):
                if isinstance(tensor, torch.Tensor):
                    tensors[name] = moved(tensor)


def kept_elsewhere(config: TrainingKeys, model: Any) -> AbstractContextManager[Any]:
    """While open, what the backward pass needs goes where activation_offloading says, if that is another memory."""
    on_gpu = next(model.parameters()).device.type == "cuda"
    if not config.activation_offloading or not (on_gpu or config.activation_offloading == "disk"):
        return nullcontext()
    stays = {one.untyped_storage()._cdata for one in model.parameters()}

    def pack(tensor: Any) -> Any:
        return (
            tensor
            if tensor.untyped_storage()._cdata in stays
            else (tensor.shape, tensor.dtype, tensor.device)
        )

    def unpack(packed: Any) -> Any:
        if isinstance(packed, torch.Tensor):
            return packed
        shape, dtype, device = packed
        return torch.empty(shape, dtype=dtype, device=device)

    hooks: AbstractContextManager[Any] = saved_tensors_hooks(pack, unpack)
    return hooks


def losses_of(config: TrainingKeys, model: Any, shape: BatchShape) -> tuple[Any, Any]:
    """The loss of a micro batch, and the logits where there are all of them."""
    size = (shape.rows, shape.length)
    ids = torch.zeros(size, dtype=torch.long)
    batch: dict[str, Any] = {"input_ids": ids, "labels": torch.zeros(size, dtype=torch.long)}
    if shape.packed:
        batch["position_ids"] = torch.zeros(size, dtype=torch.long)
    if shape.padded:
        batch["attention_mask"] = torch.ones(size, dtype=torch.long)
    if config.head is not None:
        scores = model(input_ids=ids, attention_mask=batch.get("attention_mask"), use_cache=False).logits
        return scores.float().sum(), None
    choice = config.kernel_choice
    source = choice.sources.get("linear_cross_entropy")
    if source == "chunked" or (source is not None and torch.cuda.is_available()):
        labels = batch.pop("labels")
        plain = plain_model(model)
        hidden = plain.base_model(**batch).last_hidden_state
        head = plain.get_output_embeddings().weight
        return chunked_cross_entropy(hidden, head, labels, num_chunks=choice.chunks), None
    outputs = model(**batch, num_items_in_batch=torch.ones((), dtype=torch.long))
    return outputs.loss, outputs.logits


def unmasked_attention(
    module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **settings: Any
) -> tuple[Any, None]:
    """Causal attention that keeps queries, keys, values and its output. [B, H, L, D] -> [B, L, H, D]."""
    del module, attention_mask
    output = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=True,
        scale=settings.get("scaling"),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2).contiguous(), None


def no_mask(*_positional: Any, **_settings: Any) -> None:
    """Nothing, in place of a mask."""


def pack_linear(model: Any, bits: int, double: bool, compute_type: torch.dtype) -> None:
    """Put weights of so many bits into every linear layer but the head, as bitsandbytes holds them."""
    heads = {id(module) for module in output_modules(model)}
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Linear and id(child) not in heads:
                setattr(module, name, PackedLinear(child, bits, double, compute_type))


class PackedLinear(nn.Linear):  # type: ignore[misc]
    """A linear layer whose weight [out, in] is unpacked for each product and dropped behind it."""

    def __init__(self, linear: nn.Linear, bits: int, double: bool, compute_type: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        count = self.in_features * self.out_features
        # A scale in float32 for each 64 weights, or in 8 bits with one in float32 for each 256 scales.
        scales = count / 64 * (1 + 4 / 256 if double else 4) if bits == 4 else 4 * self.out_features
        packed = torch.empty(math.ceil(count * bits / 8 + scales), dtype=torch.uint8)
        self.weight, self.bias = nn.Parameter(packed, requires_grad=False), linear.bias
        self._compute_type = compute_type

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """[..., in] -> [..., out]."""
        size = (self.out_features, self.in_features)
        result = _Unpacked.apply(input.to(self._compute_type), self.weight, size)
        output: torch.Tensor = result if self.bias is None else result + self.bias
        return output.to(input.dtype)


class _Unpacked(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, packed: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        ctx.size, ctx.dtype = size, inputs.dtype
        ctx.save_for_backward(packed)
        return functional.linear(inputs, inputs.new_empty(size))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = gradients
        return gradient.to(ctx.dtype) @ gradient.new_empty(ctx.size, dtype=ctx.dtype), None, None
