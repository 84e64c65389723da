"""`nf4` under Triton's interpreter: reference and kernel equal bitsandbytes on CPU, bit for bit."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch

from tunemill.kernels.functions import nf4

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# bitsandbytes' CPU kernel starts a block at every row, so even row lengths are multiples of the blocksize here;
# odd ones take its generic code, which like CUDA does not.
CASES = [((6, 64), 32), ((6, 64), 64), ((3, 256), 128), ((2, 256), 256), ((2, 4096), 4096)]
CASES += [((7, 33), 64), ((1, 65), 64), ((5, 127), 32), ((1, 1), 64), ((9, 77), 256), ((300, 65), 64)]


@pytest.mark.parametrize("nested", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "blocksize"), CASES, ids=str)
def test_equal_bit_for_bit(shape: tuple[int, int], blocksize: int, dtype: torch.dtype, nested: bool) -> None:
    torch.manual_seed(shape[0])
    weight = (torch.randn(shape) * 0.03).to(dtype)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=blocksize, quant_type="nf4", compress_statistics=nested
    )
    expected = bnb.dequantize_4bit(packed, state)
    for function in (nf4.reference, nf4.launch, nf4.dequantize_nf4):
        actual = function(packed, state)
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
        assert torch.equal(actual, expected), f"{(actual != expected).sum()} of {expected.numel()} differ"


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32], ids=str)
def test_other_storage_dtypes(storage: torch.dtype) -> None:
    weight = torch.randn(4, 128) * 0.03
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", quant_storage=storage)
    assert packed.dtype == storage
    assert torch.equal(nf4.dequantize_nf4(packed, state), bnb.dequantize_4bit(packed, state))


def test_transposed_packing() -> None:
    weight = torch.randn(6, 64) * 0.03
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    expected = bnb.dequantize_4bit(packed.t(), state)
    assert expected.shape == (64, 6)
    assert torch.equal(nf4.launch(packed.t(), state), expected)
    assert torch.equal(nf4.reference(packed.t(), state), expected)


def test_state_is_not_changed() -> None:
    packed, state = bnb.quantize_4bit(torch.randn(4, 64), quant_type="nf4", compress_statistics=True)
    before = (packed.clone(), state.absmax.clone(), state.offset.clone(), state.state2.absmax.clone())
    nf4.launch(packed, state)
    after = (packed, state.absmax, state.offset, state.state2.absmax)
    assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))
