"""Frozen layers that wait in main memory and are on the device only while they compute.

On a GPU the next layer is copied, out of pinned memory and on a stream of its own, while one computes. What the
backward pass needs of a frozen weight is noted, and copied again when it is asked for.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer

from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.memory_body import Offloading

# One that computes, one that is queued behind it, one that is being copied.
LAYERS_AT_ONCE = 3


@dataclass(frozen=True)
class Part:
    """A view of the frozen weight `number` of a layer: what a graph keeps in place of the weight."""

    layer: int
    number: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


def recomputed_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that transformers can recompute one by one, in their order; none inside another."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            found.append(module)
            inside.update(module.modules())
    return found


def frozen_of(model: nn.Module) -> list[list[nn.Parameter]]:
    """The frozen parameters of each layer that are in no module outside of the layers."""
    layers = recomputed_layers(model)
    inside = {
        id(one) for layer in layers for module in layer.modules() for one in module.parameters(recurse=False)
    }
    within = {module for layer in layers for module in layer.modules()}
    outside = {
        id(one)
        for module in model.modules()
        if module not in within
        for one in module.parameters(recurse=False)
    }
    return [
        [one for one in layer.parameters() if not one.requires_grad and id(one) in inside - outside]
        for layer in layers
    ]


def waiting_bytes(model: nn.Module) -> int:
    """Bytes of the frozen weights that are not on the device while a layer computes, of those that there are."""
    sizes: list[int] = [
        sum(one.numel() * one.element_size() for one in frozen) for frozen in frozen_of(model)
    ]
    return sum(sizes) - sum(sorted(sizes)[-LAYERS_AT_ONCE:])


class WaitingLayers:
    """The layers of a model, on `device` while they run and in main memory otherwise.

    A parameter that waits holds its numbers in main memory, so that whatever reads the model reads it whole.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._frozen = frozen_of(model)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._waiting: dict[int, Tensor] = {}
        self._copies: dict[int, list[Tensor]] = {}
        self._copied: dict[int, Any] = {}
        self._parts: dict[int, tuple[int, int]] = {}
        self._last: int | None = None
        self._towards = 1
        self._done: deque[Any] = deque()
        self.copies = 0
        """Layers that were copied to the device."""
        for parameter in (one for frozen in self._frozen for one in frozen):
            if id(parameter) not in self._waiting:
                there = torch.empty_like(parameter.data, device="cpu", pin_memory=self._stream is not None)
                self._waiting[id(parameter)] = there.copy_(parameter.data)
            parameter.data = self._waiting[id(parameter)]
        self._hooks = []
        for number, layer in enumerate(recomputed_layers(model)):
            self._hooks.append(layer.register_forward_pre_hook(partial(self._enter, number)))
            # Recomputation leaves a layer by an exception once it has what it needs.
            self._hooks.append(layer.register_forward_hook(partial(self._leave, number), always_call=True))

    @property
    def bytes(self) -> int:
        """Of what waits."""
        return sum(one.numel() * one.element_size() for one in self._waiting.values())

    def remove(self) -> None:
        """Put everything on the device, to stay."""
        for hook in self._hooks:
            hook.remove()
        for parameter in (one for frozen in self._frozen for one in frozen):
            parameter.data = parameter.data.to(self._device)
        self._copies, self._parts = {}, {}

    def part(self, tensor: Tensor) -> Part | None:
        """What a graph keeps in place of a tensor that is a view of a layer's copy; None of any other tensor."""
        found = self._parts.get(tensor.untyped_storage().data_ptr())
        if found is None or tensor.dtype != self._copies[found[0]][found[1]].dtype:
            return None
        return Part(*found, tuple(tensor.size()), tensor.stride(), tensor.storage_offset())

    def restored(self, part: Part) -> Tensor:
        """The view again, on the device."""
        return self._fetch(part.layer)[part.number].as_strided(part.size, part.stride, part.offset)

    def _enter(self, layer: int, _module: Any, _inputs: Any) -> None:
        for parameter, copy in zip(self._frozen[layer], self._fetch(layer), strict=True):
            parameter.data = copy

    def _leave(self, layer: int, _module: Any, _inputs: Any, _output: Any) -> None:
        for parameter in self._frozen[layer]:
            parameter.data = self._waiting[id(parameter)]

    def _fetch(self, layer: int) -> list[Tensor]:
        """The layer's copies, which the current stream may use; those of the next one are on their way."""
        if layer != self._last:
            if self._stream is not None:
                # All work on the last layer is queued by now.
                self._done.append(torch.cuda.current_stream(self._device).record_event())
            self._towards = 1 if self._last is None or layer > self._last else -1
            self._last = layer
        following = layer + self._towards
        for other in self._copies.keys() - {layer, following}:
            for copy in self._copies.pop(other):
                self._parts.pop(copy.untyped_storage().data_ptr(), None)
            self._copied.pop(other, None)
        self._start(layer)
        self._start(following)
        if (copied := self._copied.pop(layer, None)) is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(copied)
            for copy in self._copies[layer]:
                # It was allocated on the other stream, and must outlive what this one does with it.
                copy.record_stream(current)
        return self._copies[layer]

    def _start(self, layer: int) -> None:
        """Begin to copy a layer to the device, unless it is there, or there is none of this number."""
        if layer in self._copies or not 0 <= layer < len(self._frozen):
            return
        while len(self._done) > 1:
            # Without this the queue would run ahead of the device, and the copies of many layers would pile up.
            self._done.popleft().synchronize()
        with torch.cuda.stream(self._stream):
            made = []
            for parameter in self._frozen[layer]:
                waiting = self._waiting[id(parameter)]
                copy = torch.empty_like(waiting, device=self._device, pin_memory=False)
                made.append(copy.copy_(waiting, non_blocking=True))
            if self._stream is not None:
                self._copied[layer] = self._stream.record_event()
        self._copies[layer] = made
        # One without numbers has no address of its own.
        self._parts |= {
            copy.untyped_storage().data_ptr(): (layer, number)
            for number, copy in enumerate(made)
            if copy.numel()
        }
        self.copies += 1


class LayerOffloading(TrainerCallback):  # type: ignore[misc]
    """Lets frozen layers wait from the first step to the last, and what `beside` moves away as well.

    `device`: where they compute; None: where the adapter is.
    """

    def __init__(
        self, report: Report, beside: Offloading | None = None, device: torch.device | None = None
    ) -> None:
        self._report = report
        self.beside = beside
        self._device = device
        self.layers: WaitingLayers | None = None

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, model: Any, **_kwargs: Any) -> None:
        """Called when the model is where it will be trained. Raises SettingError for a model without such layers."""
        device = self._device or next(one.device for one in model.parameters() if one.requires_grad)
        if self._device is None and device.type == "cpu":
            self._report.log(
                "layer_offloading: there is no device to offload from: all layers stay in main memory"
            )
            return
        if not any(frozen_of(model)):
            raise SettingError(
                f"layer_offloading: {type(model).__name__} has no frozen layers that transformers knows apart. Set "
                f"layer_offloading: false"
            )
        self.layers = WaitingLayers(model, device)
        self._report.log(
            f"layer_offloading: frozen weights of {len(recomputed_layers(model))} layers, "
            f"{self.layers.bytes / 1e9:.2f} GB, wait in main memory"
        )

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Called after the last step."""
        if self.layers is not None:
            self.layers.remove()
            self.layers = None

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """While open, a graph keeps no copy of a frozen weight, and what else it keeps goes where that belongs."""
        layers = self.layers
        if layers is None:
            with self.beside.of(model) if self.beside else nullcontext():
                yield
            return
        away, back = self.beside.hooks(model) if self.beside else (_same, _same)

        def pack(tensor: Tensor) -> Any:
            return layers.part(tensor) or away(tensor)

        def unpack(packed: Any) -> Any:
            return layers.restored(packed) if isinstance(packed, Part) else back(packed)

        with saved_tensors_hooks(pack, unpack):
            yield


def _same(kept: Any) -> Any:
    return kept


def layer_offloading_of(
    config: TrainingKeys, beside: Offloading | None, report: Report
) -> list[LayerOffloading]:
    """What lets frozen layers wait; nothing where they stay."""
    return [LayerOffloading(report, beside)] if config.layer_offloading else []
