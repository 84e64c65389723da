"""The order of sequences in each epoch: drawn from the seed and the epoch alone."""

from pathlib import Path

import numpy as np
import torch
from support.tiny_model import packs_of, random_rows, training_data

from tunemill.stages.training.order_body import Sequences

ROWS = random_rows(11, seed=3)


def test_the_first_epoch_is_the_stored_order_and_later_ones_are_shuffled(tmp_path: Path) -> None:
    data = training_data(tmp_path, ROWS, packs_of(len(ROWS), 2))
    sequences = Sequences(data.rows, data.packs, seed=1)
    assert sequences.order(0) == list(range(6))
    assert sequences.order(1) != sequences.order(0) and sorted(sequences.order(1)) == list(range(6))
    assert sequences.order(1) != sequences.order(2)
    torch.manual_seed(99)
    assert sequences.order(1) == Sequences(data.rows, data.packs, seed=1).order(1)
    assert sequences.order(1) != Sequences(data.rows, data.packs, seed=2).order(1)
    sequences.set_epoch(1)
    first = sequences.order(1)[0]
    assert [ids.tolist() for ids, _ in sequences[0]] == [
        ROWS[row][0] for row in (2 * first, 2 * first + 1)[: len(sequences[0])]
    ]
    assert sequences.lengths.tolist() == [
        sum(len(ROWS[row][0]) for row in pack) for pack in packs_of(len(ROWS), 2)
    ]


def test_grouping_by_length_keeps_like_lengths_together(tmp_path: Path) -> None:
    data = training_data(tmp_path, random_rows(200, longest=40))
    sequences = Sequences(data.rows, data.packs, seed=1, group=4)
    for epoch in range(2):
        lengths = sequences.lengths[sequences.order(epoch)]
        assert lengths[0] == lengths.max(), "the longest comes first: memory runs out at once or never"
        # In chance order four lengths between 4 and 40 span about 22.
        assert np.mean([np.ptp(step) for step in lengths.reshape(50, 4)]) < 6
    assert sequences.order(0) != sequences.order(1)


def test_a_curriculum_keeps_the_stored_order_in_every_epoch(tmp_path: Path) -> None:
    data = training_data(tmp_path, ROWS, packs_of(len(ROWS), 1))
    sequences = Sequences(data.rows, data.packs, seed=5, keep_order=True)
    assert [sequences.order(epoch) for epoch in range(3)] == [list(range(len(ROWS)))] * 3
