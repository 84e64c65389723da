"""What transformers knows of its models and the kernels do not: attention functions and rotation."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tunemill.kernels.in_models.applied import Applied
from tunemill.kernels.in_models.apply import KERNELS, apply_kernels

PROBE = "tunemill_probe"


class Transformers:
    """The `Surroundings` of a model of transformers."""

    def attention_of(self, module: Any) -> Callable[[], Callable[..., Any]]:
        """Looks up the attention function that the module's config names; for eager that of the model's file."""
        eager = _from_file_of(module, "eager_attention_forward")

        def look_up() -> Callable[..., Any]:
            chosen = module.config._attn_implementation
            function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(chosen, eager)
            return function

        return look_up

    def rotary_of(self, module: nn.Module) -> Callable[..., Any] | None:
        """`apply_rotary_pos_emb` of the model's file."""
        return _from_file_of(module, "apply_rotary_pos_emb")

    @contextmanager
    def attention_replaced(self, module: Any, function: Callable[..., Any]) -> Iterator[None]:
        """While open, `function` is registered as an attention and the module's config names it."""
        config = module.config
        chosen = config._attn_implementation
        ALL_ATTENTION_FUNCTIONS[PROBE] = function
        config._attn_implementation = PROBE
        try:
            yield
        finally:
            config._attn_implementation = chosen
            del ALL_ATTENTION_FUNCTIONS[PROBE]


def _from_file_of(module: nn.Module, name: str) -> Callable[..., Any] | None:
    """A function that stands beside the class of `module`."""
    found: Callable[..., Any] | None = vars(sys.modules[type(module).__module__]).get(name)
    return found


def use_kernels(
    model: nn.Module, names: Collection[str], *, autocast_dtype: torch.dtype | None = None
) -> Applied:
    """Put Tunemill's kernels of these names into a model, adapters included, that is on its device."""
    functions = {name: KERNELS[name] for name in names}
    return apply_kernels(model, functions, Transformers(), autocast_dtype=autocast_dtype)
