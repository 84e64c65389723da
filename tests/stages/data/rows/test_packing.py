"""Packing: every row once, never too much in a pack, hardly any room left, the same for the same seed."""

import time

import numpy as np
import pytest

from tunemill.stages.data.rows.packing import one_each, pack, pack_in_sequence


def log_normal(rows, capacity, seed=0):
    lengths = np.random.default_rng(seed).lognormal(5.6, 0.9, rows)
    return np.clip(lengths, 1, capacity).astype(np.int64)


def used(packs, lengths):
    return np.add.reduceat(lengths[packs.rows], packs.offsets[:-1])


@pytest.mark.parametrize(
    "limits", [{}, {"max_rows": 3}, {"group_size": 100}, {"max_rows": 2, "group_size": 7}]
)
@pytest.mark.parametrize("way", ["mixed", "in order", "in sequence"])
@pytest.mark.parametrize(
    ("lengths", "capacity"),
    [
        (log_normal(5000, 2048), 2048),
        (log_normal(3000, 300), 300),
        (np.full(1000, 7), 20),
        (np.full(10, 20), 20),
        (np.array([1]), 1),
        (np.arange(1, 100), 99),
        (np.array([5, 5, 5, 6, 6, 9, 1, 1, 1, 1]), 10),
    ],
)
def test_every_row_exactly_once_and_never_too_much(lengths, capacity, way, limits):
    if way == "in sequence":
        packs = pack_in_sequence(lengths, capacity, **limits)
    else:
        packs = pack(lengths, capacity, 1, in_order=way == "in order", **limits)
    assert np.array_equal(np.sort(packs.rows), np.arange(len(lengths)))
    assert packs.offsets[0] == 0 and packs.offsets[-1] == len(lengths)
    assert (np.diff(packs.offsets) > 0).all()
    assert used(packs, lengths).max() <= capacity
    assert np.diff(packs.offsets).max() <= limits.get("max_rows", len(lengths))
    group = packs.rows // limits.get("group_size", len(lengths))
    starts = packs.offsets[:-1]
    assert (np.minimum.reduceat(group, starts) == np.maximum.reduceat(group, starts)).all()


@pytest.mark.parametrize(
    ("lengths", "capacity", "packs"),
    [
        # 7 + 7 leave 6, too little for another 7: two in a pack.
        (np.full(1000, 7), 20, 500),
        # 60 + 40, 50 + 50, 30 + 30 + 30: first fit in the given order would need 4.
        (np.array([30, 50, 40, 30, 60, 50, 30]), 100, 3),
        # 9 + 1, 6 + 1 + 1 + 1, 6 alone, 5 + 5, 5: sum 50 leaves no choice but 5 packs.
        (np.array([5, 5, 5, 6, 6, 9, 1, 1, 1, 1]), 10, 5),
    ],
)
def test_number_of_packs(lengths, capacity, packs):
    assert len(pack(lengths, capacity, 3)) == packs


@pytest.mark.parametrize("capacity", [2048, 4096, 8192])
def test_efficiency_on_log_normal_lengths(capacity):
    lengths = log_normal(100_000, capacity)
    packs = pack(lengths, capacity, 42)
    assert lengths.sum() / (len(packs) * capacity) >= 0.999


@pytest.mark.parametrize("limits", [{"max_rows": 50}, {"group_size": 20_000}])
def test_efficiency_under_limits(limits):
    lengths = log_normal(100_000, 2048)
    packs = pack(lengths, 2048, 42, **limits)
    assert lengths.sum() / (len(packs) * 2048) >= 0.998


def test_a_full_pack_of_few_long_rows_leaves_room_for_no_other():
    """At most two rows in a pack: the five short ones cannot all go on top of the long ones."""
    packs = pack(np.array([90, 90, 1, 1, 1, 1, 1]), 100, 0, max_rows=2)
    assert sorted(np.diff(packs.offsets).tolist()) == [1, 2, 2, 2]


def test_in_sequence_a_row_opens_a_pack_when_it_does_not_fit():
    packs = pack_in_sequence(np.array([30, 50, 40, 30, 60, 50, 30]), 100)
    assert packs.rows.tolist() == list(range(7))
    assert packs.offsets.tolist() == [0, 2, 4, 5, 7]
    assert pack_in_sequence(np.zeros(0, np.int64), 100).offsets.tolist() == [0]


def test_a_million_rows_take_seconds():
    lengths = log_normal(1_000_000, 2048)
    started = time.perf_counter()
    packs = pack(lengths, 2048, 42)
    assert time.perf_counter() - started < 10
    assert used(packs, lengths).max() <= 2048


def test_the_seed_decides_everything():
    lengths = log_normal(2000, 2048)
    one, again, other = pack(lengths, 2048, 5), pack(lengths, 2048, 5), pack(lengths, 2048, 6)
    assert np.array_equal(one.rows, again.rows) and np.array_equal(one.offsets, again.offsets)
    assert not np.array_equal(one.rows, other.rows)


def test_packs_and_rows_in_them_are_shuffled():
    """Neither do full packs come first, nor long rows first in a pack, nor early rows in early packs."""
    lengths = log_normal(20_000, 2048)
    packs = pack(lengths, 2048, 5)
    number = np.repeat(np.arange(len(packs)), np.diff(packs.offsets))
    assert abs(np.corrcoef(packs.rows, number)[0, 1]) < 0.05
    first = lengths[packs.rows[packs.offsets[:-1]]]
    assert 0.8 < first.mean() / np.median(lengths) < 3
    sizes = np.diff(packs.offsets)
    assert abs(np.corrcoef(sizes, np.arange(len(sizes)))[0, 1]) < 0.05
    longest = np.repeat(np.maximum.reduceat(lengths[packs.rows], packs.offsets[:-1]), sizes)
    is_longest = lengths[packs.rows] == longest
    by_chance = (np.add.reduceat(is_longest, packs.offsets[:-1]) / sizes).mean()
    assert is_longest[packs.offsets[:-1]].mean() == pytest.approx(by_chance, abs=0.02)


def test_in_order():
    lengths = log_normal(2000, 2048)
    packs = pack(lengths, 2048, 5, in_order=True)
    groups = np.split(packs.rows, packs.offsets[1:-1])
    assert all((np.diff(group) > 0).all() for group in groups)
    assert (np.diff([group[0] for group in groups]) > 0).all()


def test_rows_that_do_not_fit_are_our_mistake():
    with pytest.raises(AssertionError, match="rows must fit"):
        pack(np.array([3, 11]), 10, 0)


def test_one_each():
    packs = one_each(3)
    assert packs.rows.tolist() == [0, 1, 2]
    assert packs.offsets.tolist() == [0, 1, 2, 3]
