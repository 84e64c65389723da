"""Model files in which some weights are held by several tensors, such as codes, zero points and scales."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tunemill.stages.errors import SourceError
from tunemill.stages.models.weights import tensors_of_model


class PackedWeights:
    """The weights by the names that the model has for them, each unpacked when it is read.

    A module whose tensor ends with `sign` is packed; `ends` are the ends of all its tensors, of which those in
    `optional` may be missing. Tensors that end with one of `dropped` belong to no weight.
    """

    def __init__(
        self,
        folder: Path,
        unpack: Callable[[Mapping[str, Any]], Any],
        *,
        sign: str,
        ends: Sequence[str],
        optional: Sequence[str] = (),
        dropped: Sequence[str] = (),
    ) -> None:
        self._stored, self._unpack = tensors_of_model(folder), unpack
        modules = [name.removesuffix(sign) for name in self._stored if name.endswith(sign)]
        self._parts = {module: {end for end in ends if module + end in self._stored} for module in modules}
        held = {module + end for module, found in self._parts.items() for end in found}
        for module, found in self._parts.items():
            if missing := sorted(set(ends) - found - set(optional)):
                raise SourceError(
                    f"base_model: {folder}: {module}{missing[0]} is missing from the files, and {module}{sign} is "
                    f"there. Fetch the model again."
                )
        plain = [name for name in self._stored if name not in held and not name.endswith(tuple(dropped))]
        self.names = sorted({*plain, *(f"{module}.weight" for module in modules)})
        self.packed = len(modules)

    def read(self, name: str) -> Any:
        """The weight as numbers."""
        module = name.removesuffix(".weight")
        if module not in self._parts:
            return self._tensor(name)
        return self._unpack({end: self._tensor(module + end) for end in self._parts[module]})

    def _tensor(self, name: str) -> Any:
        with safe_open(self._stored[name].file, framework="pt") as reader:
            return reader.get_tensor(name)
