"""`nf4`: the reference against bitsandbytes, bit for bit; the Triton kernel in interpreted_nf4.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from support.interpreter import run_interpreted

from tunemill.kernels.functions import nf4


@dataclass
class State:
    """A hand-written quantization state."""

    absmax: torch.Tensor
    shape: tuple[int, ...]
    blocksize: int = 2
    dtype: torch.dtype = torch.float32
    quant_type: str = "nf4"
    offset: Any = None
    state2: Any = field(default=None)


@pytest.mark.slow
def test_under_the_interpreter() -> None:
    run_interpreted("nf4", at_least=40)


def test_hand_derived_values() -> None:
    # 0xF0: codes 15 and 0, so +1 and -1 times 2; 0x7F: codes 7 and 15, so 0 and +1 times 3; the fifth value
    # is the high half of 0x8_: code 8.
    packed = torch.tensor([0xF0, 0x7F, 0x80], dtype=torch.uint8)
    state = State(absmax=torch.tensor([2.0, 3.0, 10.0]), shape=(5,))
    expected = torch.tensor([2.0, -2.0, 0.0, 3.0, 0.7958029955625534])
    assert torch.equal(nf4.dequantize_nf4(packed, state), expected)


def test_a_row_of_any_length_shares_blocks_with_the_next() -> None:
    # Blocks run over the flattened weight (bitsandbytes' CUDA rule): with 3 columns and blocks of 2, values
    # 2 and 3 share a block though they stand in different rows.
    packed = torch.full((3,), 0xFF, dtype=torch.uint8)
    state = State(absmax=torch.tensor([1.0, 2.0, 3.0]), shape=(2, 3))
    assert nf4.dequantize_nf4(packed, state).tolist() == [[1.0, 1.0, 2.0], [2.0, 3.0, 3.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_type": "fp4"}, "quant_type must be 'nf4', got 'fp4'"),
        ({"dtype": torch.float64}, "dtype must be one of"),
        ({"blocksize": 3}, "power of two, got 3"),
        ({"shape": (9,)}, "needs 5 bytes, packed has 3"),
        ({"absmax": torch.ones(2)}, "needs 3 absmax values, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    packed = torch.zeros(3, dtype=torch.uint8)
    state = State(**({"absmax": torch.ones(3), "shape": (5,)} | change))
    with pytest.raises(ValueError, match=message):
        nf4.dequantize_nf4(packed, state)
