"""The two sides of the proof: base and adapter, and the merged model, each walked with the weights of one unit."""

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from tunemill.stages.errors import UserError
from tunemill.stages.models.adapter_body import load_adapter
from tunemill.stages.models.adapter_folder import stored_settings
from tunemill.stages.models.floats_body import Floats, stored_type
from tunemill.stages.models.heads_body import head_modules, head_of_adapter, head_of_folder
from tunemill.stages.models.joined_experts_body import JoinedExperts
from tunemill.stages.models.linearized import expert_module
from tunemill.stages.models.loading_body import config_with_head
from tunemill.stages.models.merged.expected_body import lora_weights, replicated
from tunemill.stages.models.named_weights_body import NamedWeights
from tunemill.stages.models.rounded_body import rounding_of, through_bits
from tunemill.stages.models.stored_tensor_body import same_bytes
from tunemill.stages.models.walk_body import Slots, Walk, units_of, weightless


class Reference:
    """A base without and with the adapter, by PEFT. Raises UserError where the adapter does not fit."""

    def __init__(self, folder: Path, adapter: Path, ids: Any) -> None:
        settings = stored_settings(adapter) or {}
        head = head_of_folder(folder) or head_of_adapter(adapter)
        model_config = config_with_head(folder, head)
        self.weights = NamedWeights(JoinedExperts(folder), weightless(model_config, head))
        self.layers = replicated(settings)
        self.bits = rounding_of(settings)
        # PEFT would take weights from layers that it repeats.
        at_once = self.layers is None
        self.whole = _with_adapter(weightless(model_config, head, adapter), adapter, at_once=at_once)
        self.plain = weightless(_deeper(config_with_head(folder, head), self.layers), head)
        self.units = units_of(self.plain)
        self.drawn = tuple(head_modules(self.plain)) if head_of_folder(folder) is None else ()
        self.beside = lora_weights(self.whole)
        self.slots = Slots(self.plain), Slots(self.whole)
        known = {name for names in self.units.values() for name in names}
        self.names = {unit: list(names) for unit, names in self.units.items()}
        self.split = [
            name
            for name in self.slots[1].places
            if name not in known and expert_module(name.removesuffix(".weight"))
        ]
        for name in self.split:
            self.names[max((one for one in self.units if name.startswith(f"{one}.")), key=len)].append(name)
        self.calls: dict[str, Any] = {}
        for unit in self.units:
            self.whole.get_submodule(unit).register_forward_hook(self._keep(unit), with_kwargs=True)
        self.walks = Walk(self.plain, self.units, ids), Walk(self.whole, self.units, ids)
        # Weights whose parts have names of their own beside an adapter on linear experts.
        self.parts = {
            name
            for name in known
            if any(name.startswith(f"{split.rpartition('.experts.')[0]}.experts.") for split in self.split)
        }
        self.tensors: dict[str, Any] = {}
        self.floats = Floats()

    def stored_name(self, name: str) -> str:
        """Of a weight of the model that is walked: that in the base, whose layers may stand in it more than once."""
        if self.layers is None:
            return name
        parts = name.split(".")
        place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if place is not None:
            parts[place] = str(self.layers[int(parts[place])])
        return ".".join(parts)

    def fill(self, unit: str, pool: Executor) -> None:
        """Read the weights of a unit, in float32."""
        names = {name: self.stored_name(name) for name in self.names[unit]}
        there = {name: stored for name, stored in names.items() if self._is_there(stored)}
        read, _ = self.floats.read(self.weights, there.values(), pool.map)
        self.tensors = {name: read[stored] for name, stored in there.items()}
        self.slots[0].fill(self.tensors)
        if self.bits is not None:
            rounded = {n: through_bits(t, self.bits) for n, t in self.tensors.items() if n in self.beside}
            self.tensors |= rounded
        self.slots[1].fill(self.tensors)
        new = [name for name in names if name.rpartition(".")[0] in self.drawn]
        empty = {name: torch.zeros(self.plain.get_parameter(name).shape) for name in new}
        for slots in self.slots:
            slots.fill(empty)

    def clear(self, unit: str) -> None:
        """Forget them, but those of a unit that others are in."""
        self.calls.pop(unit, None)
        self.tensors = {}
        if any(one.startswith(f"{unit}.") for one in self.units):
            self.floats = Floats()
        else:
            for slots in self.slots:
                slots.clear(self.names[unit])

    def _is_there(self, stored: str) -> bool:
        """Whether a tensor must be in the files: what a new head has is the adapter's, and buffers may be left away."""
        return stored.rpartition(".")[0] not in self.drawn and self.weights.wants(stored)

    def _keep(self, unit: str) -> Callable[..., None]:
        def keep(_module: Any, inputs: Any, settings: Any, outputs: Any) -> None:
            self.calls[unit] = inputs, settings, outputs

        return keep


class Merged:
    """The merged model, as transformers has it."""

    def __init__(self, folder: Path, ids: Any) -> None:
        self.model = weightless(AutoConfig.from_pretrained(folder))
        self.weights = NamedWeights(JoinedExperts(folder), self.model)
        self.units, self.slots = units_of(self.model), Slots(self.model)
        self.walk = Walk(self.model, self.units, ids)
        self.floats = Floats()
        self.forget()

    def forget(self) -> None:
        """`shared`: names of the unit whose tensors are the base's; `tensors`: the others, in float32; `read`: of these
        those that are made of what is stored, in its type; `types`: all others' types."""
        self.shared: set[str] = set()
        self.tensors: dict[str, Any] = {}
        self.read: dict[str, Any] = {}
        self.types: dict[str, Any] = {}

    def fill(self, unit: str, reference: Reference, pool: Executor) -> None:
        """Read the weights of a unit, in float32; what has the bytes of the base is not read twice."""
        names = [name for name in self.units[unit] if self.weights.wants(name)]
        of_base = pool.map(lambda name: self.is_of(name, reference), names)
        self.shared = {name for name, same in zip(names, of_base, strict=True) if same}
        own = [name for name in names if name not in self.shared]
        self.tensors, self.read = self.floats.read(self.weights, own, pool.map)
        self.types = {
            name: self.read[name].dtype if name in self.read else stored_type(self.weights, name)
            for name in own
        }
        self.slots.fill({name: reference.tensors[name] for name in self.shared})
        self.slots.fill(self.tensors)

    def stored(self, name: str) -> tuple[Any, Any]:
        """A tensor of the unit by its name in the reference, exactly as it is stored or in float32, and the type
        that it is stored in."""
        if name in self.tensors and name not in self.read:
            return self.tensors[name], self.types[name]
        if name not in self.read:
            self.read |= self.weights.read([name])
        return self.read[name], self.read[name].dtype

    def is_of(self, name: str, reference: Reference) -> bool:
        """Whether a tensor has the very bytes of the base."""
        if name not in reference.tensors or (reference.bits is not None and name in reference.beside):
            return False
        own, other = self.weights.group(name), reference.weights.group(reference.stored_name(name))
        if own is None or other is None or len(own.parts) != len(other.parts):
            return False
        sources = self.weights.source, reference.weights.source
        pairs = [(one, two) for (one, _), (two, _) in zip(own.parts, other.parts, strict=True)]
        return all(
            one in sources[0].tensors
            and two in sources[1].tensors
            and two not in sources[1].quantized
            and same_bytes(sources[0].tensors[one], sources[1].tensors[two])
            for one, two in pairs
        )

    def clear(self, unit: str) -> None:
        """Forget them."""
        self.forget()
        if any(one.startswith(f"{unit}.") for one in self.units):
            self.floats = Floats()
        else:
            self.slots.clear(self.units[unit])


def _deeper(model_config: Any, layers: list[int] | None) -> Any:
    """The config of the model whose layers are these of it."""
    text = model_config.get_text_config()
    if layers is not None:
        text.num_hidden_layers = len(layers)
        if getattr(text, "layer_types", None):
            text.layer_types = [text.layer_types[layer] for layer in layers]
    return model_config


def _with_adapter(model: Any, adapter: Path, *, at_once: bool) -> Any:
    """The model with the adapter's weights and without its own; `at_once`: none are drawn for it before."""
    try:
        adapted = load_adapter(model, adapter, low_cpu_mem_usage=at_once, round_base=False)[0]
    except UserError as error:
        raise UserError(f"adapter: {error}.") from error
    return adapted.float().eval().get_base_model()
