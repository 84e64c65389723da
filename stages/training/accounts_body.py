"""Which tensors are alive, by what they are for: every storage is counted from its first use until it is dropped."""

import weakref
from collections import defaultdict
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, GRADIENTS, ACTIVATIONS, LOGITS = "weights", "gradients", "activations", "logits"


class Accounts(TorchDispatchMode):  # type: ignore[misc]
    """While open, counts the bytes of the storages that operations return.

    What has `vocabulary` columns and at most `tokens` rows are logits; all else that was not entered before are
    activations. `most` holds the most that each kind ever took, `peak` the most that all took at one moment.
    """

    def __init__(self, vocabulary: int, tokens: int) -> None:
        super().__init__()
        self._vocabulary, self._tokens = vocabulary, tokens
        self._held: dict[int, tuple[weakref.ref[Any], str, int]] = {}
        self._now: dict[str, int] = defaultdict(int)
        self._total = 0
        self.most: dict[str, int] = defaultdict(int)
        self.peak = 0

    def enter(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor's storage as of this kind, whatever it was before."""
        storage = tensor.untyped_storage()
        key, count = storage._cdata, storage.nbytes()
        if key in self._held:
            self._forget(key)
        self._held[key] = (weakref.ref(storage, lambda _: self._forget(key)), kind, count)
        self._now[kind] += count
        self._total += count
        self.most[kind] = max(self.most[kind], self._now[kind])
        self.peak = max(self.peak, self._total)

    def _forget(self, key: int) -> None:
        _, kind, count = self._held.pop(key)
        self._now[kind] -= count
        self._total -= count

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, whose results are counted."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._held:
                self.enter(tensor, LOGITS if self._is_logits(tensor) else ACTIVATIONS)
        return result

    def _is_logits(self, tensor: torch.Tensor) -> bool:
        if tensor.ndim < 2 or tensor.shape[-1] != self._vocabulary:
            return False
        rows: int = tensor.numel() // self._vocabulary
        return rows <= self._tokens
