"""The weights of a stored model as numbers, whether they are stored as they are or by bitsandbytes."""

from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant
from transformers.pytorch_utils import Conv1D

from tunemill.stages.models.skeleton_body import skeleton_of_folder
from tunemill.stages.models.stored_tensor_body import read_tensor
from tunemill.stages.models.weights import tensors_of_model

# What bitsandbytes stores beside a weight.
IN_4_BITS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4",
             ".quant_state.bitsandbytes__fp4")  # fmt: skip
IN_8_BITS = ("SCB", "weight_format")
STATE = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")


class StoredBase:
    """A model folder, read one tensor at a time. `quantized`: the names of the weights in 4 or 8 bits, and with
    `rounded_experts` of those that were rounded to 4 bits and stored as they are. `weights`: the names of the model's
    own tensors, without what is stored beside quantized ones."""

    def __init__(self, folder: Path, *, rounded_experts: bool = False) -> None:
        self.folder = folder
        self.tensors = tensors_of_model(folder)
        self.experts = frozenset(name for name in self.tensors if rounded_experts and ".experts." in name)
        self._in_4_bits = {
            name.removesuffix(end) for name in self.tensors for end in STATE if name.endswith(end)
        }
        self._in_8_bits = {
            f"{name.removesuffix('SCB')}weight" for name in self.tensors if name.endswith(".SCB")
        }
        self.quantized = frozenset(self._in_4_bits | self._in_8_bits | self.experts)
        beside = {f"{name}{end}" for name in self._in_4_bits for end in IN_4_BITS}
        beside |= {f"{name.removesuffix('weight')}{end}" for name in self._in_8_bits for end in IN_8_BITS}
        self.weights = [name for name in self.tensors if name not in beside]
        self._turned = _stored_turned(folder) if self.quantized else frozenset()

    def read(self, name: str) -> Any:
        """The tensor; a quantized one dequantized, in the layout and (in 4 bits) the type of the base that it is of."""
        if name in self._in_4_bits:
            found = dequantize_4bit(self._stored(name), self._state(name))
        elif name in self._in_8_bits:
            scales = self._stored(f"{name.removesuffix('weight')}SCB")
            found = int8_vectorwise_dequant(self._stored(name), scales)
        else:
            return self._stored(name)
        return found.T.contiguous() if name in self._turned else found

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of what `read` gives, of quantized weights too."""
        if name in self._in_4_bits:
            # Packed by twos, and the shape is one of the settings beside them.
            return tuple(self._state(name).shape[:: -1 if name in self._turned else 1])
        shape = self.tensors[name].shape
        return shape[::-1] if name in self._in_8_bits and name in self._turned else shape

    def _state(self, name: str) -> Any:
        ends = [end for end in IN_4_BITS if name + end in self.tensors]
        return QuantState.from_dict(
            {end.removeprefix("."): self._stored(name + end) for end in ends}, device=torch.device("cpu")
        )

    def _stored(self, name: str) -> Any:
        return read_tensor(self.tensors[name])


def _stored_turned(folder: Path) -> frozenset[str]:
    """Weights that the model has as (in, out), as GPT-2 does, and bitsandbytes stores as (out, in)."""
    model = skeleton_of_folder(folder)
    return frozenset(f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D))
