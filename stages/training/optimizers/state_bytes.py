"""How many bytes an optimizer keeps beside a parameter, by its name: arithmetic, nothing is built."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunemill.stages.training.optimizers.table import OPTIMIZERS, Optimizer

# Parameters with fewer weights are kept whole by optimizers with states of 8 or 4 bits.
FEWEST_QUANTIZED = 4096
BNB_BLOCK = 256
# Classes whose state is so many tensors like the parameter.
LIKE_PARAMETER = {
    "torch.optim:AdamW": 2,
    "torch.optim:Adagrad": 1,
    "torch.optim:Muon": 1,
    "schedulefree:AdamWScheduleFree": 2,
    "schedulefree:RAdamScheduleFree": 2,
    "schedulefree:SGDScheduleFree": 1,
    "pytorch_optimizer:ADOPT": 2,
    "pytorch_optimizer:AdamC": 2,
    "grokadamw:GrokAdamW": 3,
    "optimi:AdamW": 2,
    "optimi:StableAdamW": 2,
    "lomo_optim:Lomo": 0,
    "flashoptim:FlashAdamW": 2,
    "flashoptim:FlashAdam": 2,
    "flashoptim:FlashSGD": 1,
    "flashoptim:FlashSGDW": 1,
    "flashoptim:FlashLion": 1,
}
# Classes whose state is in main memory, wherever the parameter is.
IN_MAIN_MEMORY = frozenset({"grokadamw:GrokAdamW"})
BNB_STATES = {"AdamW": 2, "Lion": 1, "AdEMAMix": 3, "RMSprop": 1}
# Bits of a state's values, and the numbers in float32 of the table that they stand for.
TORCHAO_BITS = {"AdamW8bit": (8, 256), "AdamWFp8": (8, 0), "AdamW4bit": (4, 16)}


def state_bytes(
    name: str,
    arguments: Mapping[str, Any],
    shape: Sequence[int],
    itemsize: int,
    *,
    targeted: bool = False,
    embedding: bool = False,
) -> int:
    """Bytes of the optimizer's state of one parameter, whose weights have `itemsize` bytes each.

    `targeted`: it is one of those that optim_target_modules names. `embedding`: of an embedding or the head.
    """
    chosen = OPTIMIZERS[name]
    module, _, kind = chosen.made_by.partition(":")
    settings = {**chosen.fixed, **arguments}
    count = math.prod(shape)
    if module == "bitsandbytes.optim":
        return _bitsandbytes(BNB_STATES[kind], int(settings["optim_bits"]), count, embedding)
    if module == "torchao.optim":
        return _torchao(kind, settings, count, itemsize)
    if name == "muon" and (embedding or len(shape) != 2):
        return 2 * count * itemsize
    if chosen.targets and targeted and len(shape) == 2:
        return _projected(chosen, settings, shape, itemsize)
    if chosen.made_by in FACTORED:
        return FACTORED[chosen.made_by](shape)
    if chosen.made_by in OPTIONAL:
        return OPTIONAL[chosen.made_by](settings) * count * itemsize
    states = LIKE_PARAMETER.get(chosen.made_by, 2)
    if chosen.library == "flashoptim":
        # States of 8 bits with a scale for each 32, and what is missing of bfloat16 weights.
        return math.ceil(count * (states * (1 + 2 / 32) + (1 if itemsize == 2 else 0)))
    compensates = (
        chosen.library == "torch-optimi" and itemsize == 2 and settings.get("kahan_sum") is not False
    )
    return (states + compensates) * count * itemsize


def _bitsandbytes(states: int, bits: int, count: int, embedding: bool) -> int:
    if bits == 32 or count < FEWEST_QUANTIZED or embedding:
        return 4 * states * count
    return states * (count + 4 * math.ceil(count / BNB_BLOCK))


def _torchao(kind: str, settings: Mapping[str, Any], count: int, itemsize: int) -> int:
    bits, table = TORCHAO_BITS[kind]
    block = int(settings["block_size"])
    if count < FEWEST_QUANTIZED or count % block:
        return 2 * count * itemsize
    return 2 * (count * bits // 8 + 4 * (count // block) + 4 * table)


def _projected(chosen: Optimizer, settings: Mapping[str, Any], shape: Sequence[int], itemsize: int) -> int:
    """The state of a gradient that is projected onto `rank` directions of its smaller side, and the projection.

    The state are two tensors like the projected gradient, or its rows and columns in float32.
    """
    rank = min(int({**chosen.targets, **settings}["rank"]), *shape)
    if chosen.made_by in FACTORED:
        return _rows_and_columns((max(shape), rank)) + 4 * rank * min(shape)
    return itemsize * rank * (2 * max(shape) + min(shape))


def _rows_and_columns(shape: Sequence[int]) -> int:
    """One number for each row and each column, in float32; a vector is kept whole."""
    if len(shape) < 2:
        return 4 * math.prod(shape)
    return 4 * math.prod(shape[:-2]) * (shape[-2] + shape[-1])


FACTORED: dict[str, Callable[[Sequence[int]], int]] = {
    "transformers.optimization:Adafactor": _rows_and_columns,
    "galore_torch:GaLoreAdafactor": _rows_and_columns,
    "lomo_optim:AdaLomo": _rows_and_columns,
    "came_pytorch:CAME": lambda shape: 2 * _rows_and_columns(shape) + 4 * math.prod(shape),
}
OPTIONAL: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "torch.optim:SGD": lambda given: int(bool(given.get("momentum"))),
    "torch.optim:RMSprop": lambda given: 1 + bool(given.get("momentum")) + bool(given.get("centered")),
}
