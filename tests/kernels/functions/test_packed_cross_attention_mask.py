"""Masks and borders of packed sequences, against a loop and by hand; nothing may wait for the device."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tunemill.kernels.functions.packed_cross_attention_mask import (
    cumulative_sequence_lengths,
    packed_cross_attention_mask,
    reference,
)

lengths_of_rows = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def positions(*rows):
    return torch.tensor([[place for length in row for place in range(length)] for row in rows])


def test_by_hand():
    mask = packed_cross_attention_mask(torch.tensor([[0, 1, 0, 1, 2]]))
    assert mask.shape == (1, 1, 5, 5)
    assert mask.dtype == torch.bool
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    both_ways = packed_cross_attention_mask(torch.tensor([[0, 1, 0]]), causal=False)
    assert both_ways[0, 0].int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


@given(lengths_of_rows, st.booleans())
def test_mask_is_the_reference(lengths, causal):
    ids = positions(lengths, lengths[::-1])
    for given_ids in (ids, ids.T.contiguous().T, ids.int()):
        found = packed_cross_attention_mask(given_ids, causal=causal)
        assert torch.equal(found, reference(given_ids, causal=causal))


@given(lengths_of_rows)
def test_borders_are_the_cumulative_lengths(lengths):
    ids = positions(lengths, lengths[::-1])
    expected = [0]
    for length in [*lengths, *lengths[::-1]]:
        expected.append(expected[-1] + length)
    exact = cumulative_sequence_lengths(ids, max_sequences=2 * len(lengths))
    assert exact.tolist() == expected
    assert exact.dtype == torch.int32
    padded = cumulative_sequence_lengths(ids, max_sequences=2 * len(lengths) + 3)
    assert padded.tolist() == expected + [ids.numel()] * 3
    unknown = cumulative_sequence_lengths(ids)
    assert unknown.shape == (ids.numel() + 1,)
    assert unknown.unique().tolist() == expected


def test_a_sequence_may_start_anywhere_and_never_crosses_rows():
    # A row cut out of a longer one; a second sequence that resumes; the next row goes on counting.
    ids = torch.tensor([[5, 6, 7, 3], [4, 5, 0, 0]])
    borders = cumulative_sequence_lengths(ids, max_sequences=5)
    assert borders.tolist() == [0, 3, 4, 6, 7, 8]
    assert torch.equal(packed_cross_attention_mask(ids), reference(ids))


def test_too_many_sequences_is_an_error():
    with pytest.raises(RuntimeError):
        cumulative_sequence_lengths(positions([1, 2, 3]), max_sequences=2)
    with pytest.raises(ValueError, match="at least 1"):
        cumulative_sequence_lengths(positions([1, 2, 3]), max_sequences=0)


@pytest.mark.parametrize(
    "ids", [torch.zeros(4, dtype=torch.int64), torch.zeros(1, 4), torch.zeros(1, 4).bool()]
)
def test_what_is_no_position_ids(ids):
    with pytest.raises(ValueError, match=r"integers of shape \(batch, length\)"):
        packed_cross_attention_mask(ids)


class NoHostSync(TorchDispatchMode):
    """Fails on the operations that bring a value, or a size that depends on one, to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket).removeprefix("aten.")
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "item"}
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device():
    ids = positions([2, 3], [4, 1])
    with NoHostSync():
        packed_cross_attention_mask(ids)
        cumulative_sequence_lengths(ids, max_sequences=4)
        cumulative_sequence_lengths(ids)
    with pytest.raises(AssertionError), NoHostSync():
        ids.nonzero()


def test_on_the_meta_device_where_there_are_no_values():
    ids = torch.zeros(2, 5, dtype=torch.int64, device="meta")
    assert packed_cross_attention_mask(ids).shape == (2, 1, 5, 5)
    assert cumulative_sequence_lengths(ids, max_sequences=4).shape == (5,)


def test_attention_with_the_mask_is_attention_per_sequence():
    torch.manual_seed(0)
    ids = positions([2, 3, 1])
    q, k, v = torch.randn(3, 1, 2, 6, 4).unbind()
    attend = torch.nn.functional.scaled_dot_product_attention
    packed = attend(q, k, v, attn_mask=packed_cross_attention_mask(ids))
    borders = cumulative_sequence_lengths(ids, max_sequences=3).tolist()
    for begin, end in pairwise(borders):
        alone = attend(*(x[:, :, begin:end] for x in (q, k, v)), is_causal=True)
        torch.testing.assert_close(packed[:, :, begin:end], alone)
