"""What an adapter does to one tensor of the base. All is computed in float32 and rounded once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tunemill.stages.models.rounded_body import through_bits

# Numbers of a weight that are in float32 at a time.
BLOCK = 1 << 20


@dataclass(frozen=True)
class LowRank:
    """W + scaling * B @ A, transposed if `transposed`; with a `magnitude` (DoRA) each row of that is scaled to it.

    A: [r, in], B: [out, r], W: [out, in], or [in, out] if `transposed`; magnitude: [out]. W is rounded through `bits`
    first, where the adapter was trained beside it so.
    """

    names: tuple[str, ...]
    a: Any
    b: Any
    scaling: float
    transposed: bool = False
    magnitude: Any = None
    bits: int | None = None

    def apply(self, weight: Any, dtype: Any) -> Any:
        """The changed tensor, in `dtype`."""
        held = weight if self.bits is None else through_bits(weight, self.bits)
        if (change := self.of_rows(tuple(weight.shape))) is not None:
            return by_rows(held, dtype, change)
        left, right = self._factors()
        # Whose norm is over the rows.
        whole = torch.addmm(held.float(), left, right, alpha=self.scaling)
        return whole.mul_(self.magnitude.float() / torch.linalg.norm(whole, dim=0)).to(dtype)

    def of_rows(self, shape: tuple[int, ...]) -> Callable[[Any, slice], Any] | None:
        """What changes some rows, in float32 and in place, of a weight of this shape that is rounded through bits where
        it must be; None where they depend on other rows."""
        left, right = self._factors()
        assert shape == (left.shape[0], right.shape[1]), f"{self.names}: {left.shape}, {right.shape}, {shape}"
        if self.magnitude is None:
            return lambda block, rows: block.addmm_(left[rows], right, alpha=self.scaling)
        if not self.transposed:
            return lambda block, rows: self._to_magnitude(block, left[rows], right, rows)
        return None

    def _factors(self) -> tuple[Any, Any]:
        left, right = (self.a.T, self.b.T) if self.transposed else (self.b, self.a)
        return left.float().contiguous(), right.float().contiguous()

    def _to_magnitude(self, block: Any, left: Any, right: Any, rows: slice) -> Any:
        block.addmm_(left, right, alpha=self.scaling)
        return block.mul_((self.magnitude[rows].float() / torch.linalg.norm(block, dim=1))[:, None])


@dataclass(frozen=True)
class ExpertLowRank:
    """The same of a parameter that holds the weights of all experts, each with factors of its own.

    W: [E, out, in], or [E, in, out] if `transposed`; A: [E * r, in], B: [out, r * E], whose columns go from expert to
    expert, as PEFT stores them.
    """

    names: tuple[str, ...]
    a: Any
    b: Any
    scaling: float
    transposed: bool = False

    def apply(self, weight: Any, dtype: Any) -> Any:
        """The changed tensor, in `dtype`."""
        count = weight.shape[0]
        a = self.a.float().reshape(count, -1, self.a.shape[-1])
        b = self.b.float().reshape(self.b.shape[0], -1, count).permute(2, 0, 1)
        changed = torch.empty(weight.shape, dtype=dtype)
        for number in range(count):
            left, right = (a[number].T, b[number].T) if self.transposed else (b[number], a[number])
            changed[number] = torch.addmm(weight[number].float(), left, right, alpha=self.scaling)
        return changed


@dataclass(frozen=True)
class Replaced:
    """A tensor that was trained whole."""

    names: tuple[str, ...]
    replacement: Any

    def apply(self, weight: Any, dtype: Any) -> Any:
        """The new tensor, in `dtype`."""
        assert self.replacement.shape == weight.shape, f"{self.names}: {self.replacement.shape}"
        return self.replacement.to(dtype)


@dataclass(frozen=True)
class Rows:
    """Rows of the embeddings that were trained: `values` [n, D] in the places of `tokens` [n]."""

    names: tuple[str, ...]
    tokens: Any
    values: Any

    def apply(self, weight: Any, dtype: Any) -> Any:
        """The changed tensor, in `dtype`."""
        return weight.to(dtype).index_copy(0, self.tokens, self.values.to(dtype))


Change = LowRank | ExpertLowRank | Replaced | Rows


def by_rows(weight: Any, dtype: Any, change: Callable[[Any, slice], Any]) -> Any:
    """A matrix changed some rows at a time: what is in float32 stays small, and its memory is used again."""
    changed = torch.empty(weight.shape, dtype=dtype)
    for rows in blocks(tuple(weight.shape)):
        changed[rows] = change(weight[rows].to(torch.float32, copy=True), rows)
    return changed


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a matrix, some at a time."""
    step = max(1, BLOCK // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))
