"""Modules that take the place of a model's own and call kernels.

Each is made of the module it replaces by `in_place_of`: a subclass of its class with another forward, over the same
attributes. So parameters, children and their names, hooks, mode and settings stay what they are, whoever looks for
layers by class finds them, and a saved model does not tell the difference. The functions to call are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tunemill.kernels.in_models.projections import projection
from tunemill.kernels.in_models.proof import UnfitError

Module = TypeVar("Module", bound=nn.Module)
Function = Callable[..., Any]


def in_place_of(kind: type[Module], module: nn.Module, **attributes: Any) -> Module:
    """A `kind` with the attributes of `module`, which is left as it is, and `attributes`."""
    made: Module = object.__new__(_subclass(kind, type(module)))  # type: ignore[arg-type]
    vars(made).update(vars(module))
    vars(made).update(attributes)
    return made


@cache
def _subclass(kind: type, own: type) -> Any:
    """A `kind` that is an `own` too, by name and by isinstance."""
    return type(own.__name__, (kind, own), {"__module__": own.__module__, "__qualname__": own.__qualname__})


class FusedNorm(nn.Module):  # type: ignore[misc]
    """RMSNorm by a kernel."""

    weight: Tensor
    rms_norm: Function
    norm_eps: float
    norm_offset: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The normalised (..., n)."""
        y: Tensor = self.rms_norm(hidden_states, self.weight, self.norm_eps, offset=self.norm_offset)
        return y


class FusedLayerNorm(nn.Module):  # type: ignore[misc]
    """LayerNorm by a kernel."""

    weight: Tensor
    bias: Tensor
    eps: float
    layer_norm: Function

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The normalised (..., n)."""
        y: Tensor = self.layer_norm(hidden_states, self.weight, self.bias, self.eps)
        return y


class FusedMlp(nn.Module):  # type: ignore[misc]
    """down(act(gate(x)) * up(x)), the whole of it by `lora_mlp` where there are adapters."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    gated: Function
    """act(gate) * up."""
    lora_mlp: Function | None
    activation: str

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., k) to (..., k)."""
        if self.lora_mlp is not None:
            projections = (self.gate_proj, self.up_proj, self.down_proj)
            y: Tensor | None = by_adapters(self.lora_mlp, hidden_states, projections, self.activation)
            if y is not None:
                return y
        gated = self.gated(self.gate_proj(hidden_states), self.up_proj(hidden_states))
        down: Tensor = self.down_proj(gated)
        return down


class FusedGateUpMlp(nn.Module):  # type: ignore[misc]
    """The same with gate and up in one projection, gate first."""

    gate_up_proj: nn.Module
    down_proj: nn.Module
    gated: Function

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., k) to (..., k)."""
        gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        down: Tensor = self.down_proj(self.gated(gate, up))
        return down


class FusedLayer(nn.Module):  # type: ignore[misc]
    """A decoder layer of the Llama kind whose second norm takes the residual addition in front of it along."""

    self_attn: nn.Module
    mlp: nn.Module
    input_layernorm: FusedNorm
    post_attention_layernorm: FusedNorm

    def forward(self, hidden_states: Tensor, *args: Any, **settings: Any) -> Tensor:
        """(b, s, k) to (b, s, k)."""
        attended = self.self_attn(self.input_layernorm(hidden_states), *args, **settings)[0]
        norm = self.post_attention_layernorm
        normal, summed = norm.rms_norm(
            hidden_states, norm.weight, norm.norm_eps, residual=attended, offset=norm.norm_offset
        )
        transformed = self.mlp(normal)
        if not isinstance(transformed, Tensor):
            raise UnfitError("its MLP returns more than a tensor")
        return summed + transformed


class FusedAttention(nn.Module):  # type: ignore[misc]
    """Attention of the Llama kind: q, k, v, norms of heads (if any), rotation, attention, output projection."""

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    o_proj: nn.Module
    head_dim: int
    scaling: float
    attention_dropout: float
    layer_idx: int
    rope: Function
    lora_qkv: Function | None
    lora_o: Function | None
    attention_of: Callable[[], Function]
    """Looks up the attention function that the model's config chooses now."""
    attention_settings: dict[str, Any]
    """What this layer passes to every call of it: a window, a soft cap."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Any = None,
        past_key_values: Any = None,
        **settings: Any,
    ) -> tuple[Tensor, Any]:
        """(b, s, k) to (b, s, k), and the attention weights where the attention function gives any."""
        lead = hidden_states.shape[:-1]
        query, key, value = (x.view(*lead, -1, self.head_dim) for x in self._project(hidden_states))
        if "q_norm" in self._modules:
            query, key = self._modules["q_norm"](query), self._modules["k_norm"](key)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        query, key = self.rope(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attended, weights = self.attention_of()(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **self.attention_settings,
            **settings,
        )
        return self._output(attended.reshape(*lead, -1).contiguous()), weights

    def _project(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.lora_qkv is not None:
            projections = (self.q_proj, self.k_proj, self.v_proj)
            qkv: tuple[Tensor, Tensor, Tensor] | None = by_adapters(self.lora_qkv, hidden_states, projections)
            if qkv is not None:
                return qkv
        return self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)

    def _output(self, attended: Tensor) -> Tensor:
        if self.lora_o is not None:
            y: Tensor | None = by_adapters(self.lora_o, attended, (self.o_proj,))
            if y is not None:
                return y
        output: Tensor = self.o_proj(attended)
        return output


@torch.compiler.disable  # type: ignore[untyped-decorator]
def by_adapters(
    function: Function, hidden_states: Tensor, modules: Sequence[nn.Module], *settings: Any
) -> Any:
    """`function` of the modules as projections; None where one of them has to be called."""
    parts = [projection(module) for module in modules]
    return None if any(part is None for part in parts) else function(hidden_states, *parts, *settings)


FUSED = (FusedNorm, FusedLayerNorm, FusedMlp, FusedGateUpMlp, FusedLayer, FusedAttention)
