"""A stored Llama 4 whose experts are linear modules, read as transformers stores Llama 4; any other model as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.errors import SourceError
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.linearized import PARTS, expert_module

END = ".weight"
# The parameters -> their parts, side by side.
PARAMETERS = {"gate_up_proj": PARTS[:2], "down_proj": PARTS[2:]}


class JoinedExperts(StoredBase):
    """As StoredBase, with the experts of a layer in two parameters, (expert, in, out)."""

    def __init__(self, folder: Path, *, rounded_experts: bool = False) -> None:
        super().__init__(folder, rounded_experts=rounded_experts)
        stored = {
            found: name
            for name in self.weights
            if name.endswith(END)
            and (found := expert_module(name.removesuffix(END)))
            and found[0].endswith(".feed_forward.experts")
        }
        if not stored:
            self.joined: Mapping[str, list[list[str]]] = {}
            return
        self.joined = _joined(folder, stored)
        parts = set(stored.values())
        self.weights = [*(name for name in self.weights if name not in parts), *self.joined]
        in_bits = {
            name for name, lists in self.joined.items() if all(part in self.quantized for part in lists[0])
        }
        self.quantized = frozenset((self.quantized - parts) | in_bits)
        self.experts = frozenset()

    def read(self, name: str) -> Any:
        """As in the base class."""
        if name not in self.joined:
            return super().read(name)
        return torch.cat(
            [
                torch.stack([super(JoinedExperts, self).read(one).T for one in part])
                for part in self.joined[name]
            ],
            dim=-1,
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """As in the base class."""
        if name not in self.joined:
            return super().shape(name)
        lists = self.joined[name]
        rows, columns = super().shape(lists[0][0])
        return len(lists[0]), columns, rows * len(lists)


def _joined(folder: Path, stored: Mapping[tuple[str, str, int], str]) -> dict[str, list[list[str]]]:
    count = max(number for _, _, number in stored) + 1
    found = {}
    for experts in sorted({experts for experts, _, _ in stored}):
        for part in PARTS:
            for number in range(count):
                if (experts, part, number) not in stored:
                    raise SourceError(
                        f"base_model: {folder}: {part} of expert {number} in {experts} is missing from the files, and "
                        f"there are {count} experts. Fetch the model again."
                    )
        for parameter, parts in PARAMETERS.items():
            found[f"{experts}.{parameter}"] = [
                [stored[experts, part, number] for number in range(count)] for part in parts
            ]
    return found
