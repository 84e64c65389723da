"""What is wrong with a merged tensor, and what that says of the merge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunemill.stages.models.merged.expected_body import Expected

# What float32 adds to each sum of products, relative to the largest that is added.
FLOAT32 = torch.finfo(torch.float32).eps / 2
# The share of the adapter's change that is left unexplained where it was added a wrong number of times.
UNEXPLAINED = 0.1
SHOWN = 3


@dataclass(frozen=True)
class Fault:
    """A tensor that is not what it must be: `wrong` of its numbers, by up to `difference`.

    `times`: of one that the adapter changes, how often its change was added, where that is all that is wrong; 0.0 for
    never. `order`: of one that it leaves alone, a row of it and the row of the base that it is, if permuted.
    """

    name: str
    wrong: int
    of: int
    difference: float
    adapted: bool
    times: float | None = None
    order: tuple[int, int] | None = None


def fault_of_left(name: str, weight: Any, found: Any) -> Fault | None:
    """`found`: the merged tensor as it is stored; `weight`: that of the base, which the adapter leaves alone.

    There is no tolerance: it must be the base's, rounded to its type where the base was quantized.
    """
    expected = weight.to(found.dtype)
    if expected.shape == found.shape and torch.equal(expected, found):
        return None
    if expected.shape != found.shape:
        return Fault(name, found.numel(), found.numel(), float("inf"), adapted=False)
    apart = (found.float() - expected.float()).abs()
    wrong = int((found != expected).sum())
    return Fault(name, wrong, found.numel(), float(apart.max()), adapted=False, order=_order(expected, found))


def _order(expected: Any, found: Any) -> tuple[int, int] | None:
    if expected.ndim != 2:
        return None
    row = int((expected != found).any(dim=1).nonzero()[0])
    source = (expected == found[row]).all(dim=1).nonzero()
    return (row, int(source[0])) if len(source) else None


def tolerance_of(sizes: Any, largest: float, products: int, dtype: Any) -> Any:
    """How far elements of these sizes may be from what they must be, [...] like them.

    One rounding to the type that they are stored in, at most half a unit in the last place: 2^-8 of the number in
    bfloat16, 2^-11 in float16, 2^-24 in float32. Beside it what float32 loses on either side in a sum of `products` and
    the weight, each at most as large as `largest`, the largest weight and the largest change together.
    """
    of_type = torch.finfo(dtype)
    lost = of_type.tiny * of_type.eps + 2 * (products + 3) * FLOAT32 * largest
    return sizes.mul(of_type.eps / 2).add_(lost)


def fault_of_changed(change: Expected, weight: Any, found: Any, dtype: Any) -> Fault | None:
    """`found`: the merged tensor, as it is stored or in float32; `dtype`: the type that it is stored in; `weight`: that
    of the base, None where it has none."""
    wrong, largest = 0, 0.0
    for rows, expected in change.blocks():
        merged = found[rows]
        if merged.shape != expected.shape:
            return Fault(change.name, found.numel(), found.numel(), float("inf"), adapted=True)
        sizes = expected.abs()
        most = 2 * float(sizes.max()) + (0.0 if weight is None else _largest(weight[rows]))
        apart = (merged.float() - expected).abs_()
        tolerance = tolerance_of(sizes, most, change.products, dtype)
        # One pass where all are right; counting takes several.
        if float((tolerance - apart).min()) >= 0:
            continue
        right = int((apart <= tolerance).sum())
        if right != expected.numel():
            wrong += expected.numel() - right
            largest = max(largest, float(apart.nan_to_num(float("inf")).max()))
    if not wrong:
        return None
    times = None if weight is None else _times(change, weight, found, dtype)
    return Fault(change.name, wrong, found.numel(), largest, adapted=True, times=times)


def _largest(weight: Any) -> float:
    """The largest absolute value; NaN where there is one."""
    least, most = torch.aminmax(weight)
    return float(torch.maximum(-least, most))


def _times(change: Expected, weight: Any, found: Any, dtype: Any) -> float | None:
    """How often the change was added: the least squares fit, where it leaves little but rounding."""
    size = both = done = merged = 0.0
    for rows, expected in change.blocks():
        added, moved = (tensor.sub(weight[rows]).double() for tensor in (expected, found[rows].float()))
        size += float(added.square().sum())
        both += float((added * moved).sum())
        done += float(moved.square().sum())
        merged += float(found[rows].double().square().sum())
    if size == 0:
        return None
    times = both / size
    left = max(0.0, done - times * both) ** 0.5
    rounding = torch.finfo(dtype).eps * merged**0.5
    return times if left <= UNEXPLAINED * size**0.5 + rounding else None


def message(faults: Sequence[Fault], adapted: int, head: str) -> str:
    """What to tell of a merged model with these faults, of whose tensors the adapter changes so many."""
    left = [fault for fault in faults if not fault.adapted]
    changed = [fault for fault in faults if fault.adapted]
    if [fault.name for fault in faults] == [head]:
        return (
            f"merged: the output head {head} is not that of base and adapter: {_size(faults[0])}. A head that was tied "
            f"to the embeddings has been lost, or was stored as another one."
        )
    if any(fault.order for fault in left):
        fault = next(fault for fault in left if fault.order)
        assert fault.order is not None
        return (
            f"merged: {fault.name}: its rows are in another order than in the base: row {fault.order[0]} is row "
            f"{fault.order[1]} of the base. Token ids would mean other tokens."
        )
    if left:
        return (
            f"merged: {_names(left)}: not the base's, and the adapter does not change {_it(left)} ({_size(left[0])}). "
            f"The adapter was merged into another base, or another revision of it."
        )
    return f"merged: {_of_changed(changed, adapted)}"


def _of_changed(faults: Sequence[Fault], adapted: int) -> str:
    never = [fault for fault in faults if _is(fault, 0.0)]
    if len(never) == adapted:
        return (
            f"the adapter is not in it: all {adapted} tensors that it changes are those of the base, first "
            f"{never[0].name}."
        )
    if never:
        return f"{_names(never)}: the adapter's change is missing there. The other {adapted - len(never)} have theirs."
    twice = [fault for fault in faults if _is(fault, 2.0)]
    if twice:
        return f"{_names(twice)}: the adapter was added twice there."
    scaled = [fault for fault in faults if fault.times is not None and not _is(fault, 1.0)]
    if scaled and scaled[0].times is not None:
        return (
            f"{_names(scaled)}: the adapter's change was added {scaled[0].times:.3g} times there. Its lora_alpha, or "
            f"its rank, was taken for another one."
        )
    return (
        f"{_names(faults)}: not what base and adapter give ({_size(faults[0])}). Another base, another revision of it, "
        f"or another adapter was merged."
    )


def _is(fault: Fault, times: float) -> bool:
    return fault.times is not None and abs(fault.times - times) < 0.05


def _names(faults: Sequence[Fault]) -> str:
    names = ", ".join(fault.name for fault in faults[:SHOWN])
    return f"{names} and {len(faults) - SHOWN} more" if len(faults) > SHOWN else names


def _it(faults: Sequence[Fault]) -> str:
    return "it" if len(faults) == 1 else "them"


def _size(fault: Fault) -> str:
    return f"{fault.wrong} of {fault.of} numbers differ, by up to {fault.difference:.3g}"
