"""Running models that have no weights in memory: one unit after the other gets its own, computes, and loses them.

A unit is a decoder layer, or a module beside the layers that holds weights: embeddings, a norm, the output head. A walk
is the model's own forward pass in a thread of its own, which waits before each unit. So several models can be walked in
step, and at any time there are only the weights of one unit of each.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from tunemill.stages.models.heads import Head, head_of_config
from tunemill.stages.models.heads_body import auto_class, output_modules
from tunemill.stages.models.linear_experts_body import fit_experts

# What PEFT puts between the names of a module and of its weight.
WRAPPERS = {"base_layer", "original_module", "token_adapter"}


def weightless(model_config: Any, head: Head | None = None, adapter: Path | None = None) -> Any:
    """The model in float32 without its weights, with linear experts where `adapter` was trained on such.

    In the place of each parameter stands one NaN, seen as many: it has a shape and a device, as some models ask, and
    what is computed with it is NaN. Buffers, such as the frequencies of rotary embeddings, have their values.
    """
    found = head or head_of_config({"architectures": model_config.architectures})
    with init_empty_weights(include_buffers=False):
        model = auto_class(found).from_config(model_config, dtype=torch.float32)
    if adapter is not None:
        fit_experts(model, adapter)
    seen: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = seen.setdefault(id(parameter), _nothing(parameter))
    return model.eval()


def _nothing(like: Any) -> nn.Parameter:
    return nn.Parameter(torch.full((), torch.nan).expand(like.shape), requires_grad=False)


def is_nothing(tensor: Any) -> bool:
    """Whether a tensor stands in for one that is not there."""
    held = tensor.untyped_storage().nbytes()
    return bool(held == tensor.element_size() == 4 and tensor.reshape(-1)[:1].isnan().all())


def units_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Unit -> the names of its weights in the model (parameters, and buffers that are stored)."""
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    layers = {
        f"{name}.{part}" for name in outermost for part, _ in model.get_submodule(name).named_children()
    }
    units: dict[str, list[str]] = {}
    for name in model.state_dict(keep_vars=True):
        holder = name.rpartition(".")[0]
        layer = next((one for one in _prefixes(holder) if one in layers), holder)
        units.setdefault(layer, []).append(name)
    return {unit: tuple(names) for unit, names in units.items()}


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


class Slots:
    """Where a model holds its weights: also one that an adapter stands beside, by the names of the model alone."""

    def __init__(self, model: nn.Module) -> None:
        self.places: dict[str, list[tuple[nn.Module, str]]] = {}
        for prefix, module in model.named_modules():
            for part, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and (part in module._buffers or is_nothing(tensor)):
                    parts = [one for one in prefix.split(".") if one and one not in WRAPPERS]
                    self.places.setdefault(".".join((*parts, part)), []).append((module, part))

    def fill(self, tensors: Mapping[str, Any]) -> None:
        """Give the model these weights."""
        for name, tensor in tensors.items():
            for module, part in self.places.get(name, ()):
                if part in module._buffers:
                    module._buffers[part] = tensor
                else:
                    module._parameters[part] = nn.Parameter(tensor, requires_grad=False)

    def clear(self, names: Iterable[str]) -> None:
        """Take them away again; buffers stay."""
        for name in names:
            for module, part in self.places.get(name, ()):
                held = module._parameters.get(part)
                if held is not None:
                    module._parameters[part] = _nothing(held)


def advance(walks: Sequence["Walk"]) -> list[str | None]:
    """Where the walks stand when each has gone on to its next unit; they go at the same time."""
    for walk in walks:
        walk.go()
    return [walk.arrive() for walk in walks]


class StoppedError(Exception):
    """A walk that is given up."""


class Walk:
    """One forward pass over token ids [B, L], from unit to unit."""

    def __init__(self, model: Any, units: Mapping[str, tuple[str, ...]], ids: Any) -> None:
        self.model, self.ids = model, ids
        self._stands: SimpleQueue[str | None] = SimpleQueue()
        self._goes: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._logits: Future[Any] | None = None
        self._pool = ThreadPoolExecutor(1)
        for unit in units:
            model.get_submodule(unit).register_forward_pre_hook(lambda *_, unit=unit: self._wait(unit))

    def go(self) -> None:
        """Set out for the next unit."""
        if self._logits is None:
            self._logits = self._pool.submit(self._run)
            self._logits.add_done_callback(lambda _: self._stands.put(None))
        else:
            self._goes.put(True)

    def arrive(self) -> str | None:
        """Wait until it is there. Returns its name, None at the end. Raises what the model raises."""
        unit = self._stands.get()
        if unit is None:
            assert self._logits is not None
            self._logits.result()
        return unit

    def logits(self) -> Any:
        """What the model says, in float32, at the end; one that scores sequences says it of each beginning."""
        assert self._logits is not None
        return self._logits.result()

    def close(self) -> None:
        """Give up what is left of the walk."""
        self._goes.put(False)
        self._pool.shutdown()

    def _run(self) -> Any:
        self._thread = threading.current_thread()
        said: list[Any] = []
        head = output_modules(self.model)[-1]
        with torch.no_grad(), head.register_forward_hook(lambda *call: said.append(call[-1])):
            logits = self.model(input_ids=self.ids, use_cache=False).logits
        # A model that scores sequences scores every token, and gives the last one's.
        return (logits if logits.ndim == 3 else said[0]).float()

    def _wait(self, unit: str) -> None:
        if threading.current_thread() is not self._thread:
            return
        self._stands.put(unit)
        if not self._goes.get():
            raise StoppedError
