"""Processes that split each sequence among them: what is proven of the exchange here, and what a model must be for it.

The splitting is PyTorch's (`context_parallel`), which accelerate and the Trainer call around a step: every process gets
two stretches of each sequence, one of its first half and one of its second, and queries meet the keys of the others.
accelerate takes masks from the layers that are called `self_attn`, so these must be all there are, and all must see
every token before.
"""

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.nn import functional

from tunemill.stages.errors import SettingError
from tunemill.stages.training.keys.split_sequences import KEY
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.sharding import Sharding

# Frequencies of these follow from the highest position of what one process has.
BY_LENGTH = ("dynamic", "longrope")
# Of a probe: heads, and their size.
HEADS, SIZE = 2, 64
FAR = {torch.float32: 1e-5}
FAR_ROUNDED = 2e-2


def prove_exchange(sharding: Sharding, precision: Precision) -> None:
    """Compute attention over a short sequence that is split, and compare; nothing where sequences are whole.

    Raises SettingError where PyTorch cannot split on these devices, or gets another result.
    """
    if sharding.context == 1:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = (sharding.processes // sharding.context, sharding.context)
    mesh = init_device_mesh(device, sizes, mesh_dim_names=("others", "split"))["split"]
    dtype = precision.autocast or precision.weights
    try:
        far = _off(mesh, sharding.context, device, dtype)
    except NotImplementedError:
        raise SettingError(
            f"{KEY}: PyTorch {torch.__version__} cannot split attention in {dtype} on {device} among processes. It "
            f"can on NVIDIA's GPUs, with bf16: true; else take the key out."
        ) from None
    if far > FAR.get(dtype, FAR_ROUNDED):
        raise SettingError(
            f"{KEY}: attention that is split among {sharding.context} processes is off by {far:.2g} here. Take it out."
        )


def _off(mesh: Any, context: int, device: str, dtype: torch.dtype) -> float:
    """How far outputs and gradients of split attention are from those of whole attention, at the most."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, HEADS, 16 * context, SIZE)
    whole = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4)]
    wanted = _attended(*[one.clone() for one in whole])
    buffers = [one.clone() for one in [*whole, *wanted]]
    splitting = context_parallel(
        mesh, buffers=buffers, buffer_seq_dims=[2] * len(buffers), no_restore_buffers=set(buffers)
    )
    with splitting:
        found = _attended(*buffers[:4])
    pairs = zip(found, buffers[4:], strict=True)
    return max(float((one.float() - other.float()).abs().max()) for one, other in pairs)


def _attended(query: Any, key: Any, value: Any, upstream: Any) -> list[Any]:
    """The output, and the gradients of query, key and value."""
    with torch.enable_grad():
        inputs = [one.requires_grad_() for one in (query, key, value)]
        output = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        gradients = torch.autograd.grad(output, inputs, upstream)
    return [output.detach(), *gradients]


def check_splits(sharding: Sharding, model: Any) -> None:
    """Raise SettingError for a model whose layers would compute another thing of a part of a sequence."""
    if sharding.context == 1:
        return
    fault = _fault_of(model)
    if fault is not None:
        raise SettingError(f"{KEY}: {type(model).__name__} {fault}. Take it out.")


def _fault_of(model: Any) -> str | None:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if not kinds and getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None):
        kinds = {"sliding_attention"}
    if kinds:
        return (
            f"has layers of {', '.join(sorted(kinds))}, and only such that see all tokens before can be split"
        )
    if model.config._attn_implementation != "sdpa":
        return f"computes attention by {model.config._attn_implementation}, and PyTorch splits that of sdpa"
    layers = sum(name.endswith("self_attn") for name, _ in model.named_modules())
    if layers != config.num_hidden_layers:
        return (
            f"has {config.num_hidden_layers} layers, of which accelerate finds {layers} to split (self_attn)"
        )
    if getattr(config, "attention_dropout", 0):
        return f"leaves out attention at random (attention_dropout: {config.attention_dropout})"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in BY_LENGTH:
        return f"has positions by the length of what it reads (rope_type: {rope['rope_type']}), which is a part here"
    return None


def check_splits_loss(sharding: Sharding, model: Any) -> None:
    """Raise SettingError for a model that adds to the loss what depends on whole sequences. It does add something."""
    if sharding.context > 1:
        raise SettingError(
            f"{KEY}: {type(model).__name__} adds the balance of its experts to the loss, and a process that has a part "
            f"of each sequence knows a part of that. Take it out, or set output_router_logits: false."
        )


def check_splits_mean(sharding: Sharding, model: Any) -> None:
    """Raise SettingError for a model that averages its loss over the tokens it is given. It does."""
    if sharding.context > 1:
        raise SettingError(
            f"{KEY}: {type(model).__name__} averages the loss over the tokens that a process has of a sequence, which "
            f"are more in one than in another. Take it out."
        )
