"""Rows to batches: packing changes neither losses nor gradients, and rows of a pack do not see each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_model import packs_of, random_rows, tiny_config, training_data
from transformers import AutoModelForCausalLM

from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.training.order_body import Sequences

ROWS = random_rows(11, seed=3)
ATTENTION = ["eager", "sdpa"]


def tiny_model(attention: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(use_cache=False), attn_implementation=attention)


def batch_of(folder: Path, packs: list[list[int]], collator: Collator) -> dict[str, Any]:
    data = training_data(folder, ROWS, packs)
    sequences = Sequences(data.rows, data.packs, seed=0)
    return collator([sequences[place] for place in range(len(sequences))])


def loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[float, list[Any]]:
    model.zero_grad()
    loss = model(**batch, num_items_in_batch=(batch["labels"] != -100).sum()).loss
    loss.backward()
    return float(loss.detach()), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(
    ("layout", "pad_to"), [("packed", None), ("packed", 64), ("flat", None), ("flat", 64)]
)
def test_packed_rows_give_the_loss_and_gradients_of_single_rows(
    tmp_path: Path, attention: str, layout: Any, pad_to: int | None
) -> None:
    model = tiny_model(attention)
    single = batch_of(tmp_path / "single", packs_of(len(ROWS), 1), Collator("padded", None))
    packed = batch_of(tmp_path / "packed", packs_of(len(ROWS), 4), Collator(layout, pad_to))
    assert packed["input_ids"].shape[0] == (1 if layout == "flat" else 3)
    loss, gradients = loss_and_gradients(model, single)
    packed_loss, packed_gradients = loss_and_gradients(model, packed)
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    for expected, found in zip(gradients, packed_gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_row_does_not_see_its_neighbours(attention: str) -> None:
    model = tiny_model(attention).eval()
    rows = [(np.asarray(ids, dtype=np.int32), np.asarray(labels, dtype=np.int32)) for ids, labels in ROWS[:3]]
    start, end = len(rows[0][0]), len(rows[0][0]) + len(rows[1][0])
    logits = []
    for first, last in ((0, 0), (7, 0), (0, 7), (7, 7)):
        pack = [(rows[0][0] + first, rows[0][1]), rows[1], (rows[2][0] - last, rows[2][1])]
        batch = Collator("packed", 64)([pack, [rows[1]]])
        logits.append(model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0])
    for other in logits[1:]:
        assert torch.equal(other[start:end], logits[0][start:end])
        assert not torch.equal(other, logits[0])


def test_the_collated_tensors_are_as_derived_by_hand(tmp_path: Path) -> None:
    rows = [([5, 6, 7], [-100, 6, 7]), ([8, 9], [8, 9]), ([4], [4])]
    data = training_data(tmp_path, rows, [[0, 1], [2]])
    sequences = Sequences(data.rows, data.packs, seed=0)
    batch = Collator("packed", 6)([sequences[0], sequences[1]])
    # The 8 would be predicted from row 0's 7, the lone 4 from nothing: both first labels are masked.
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0], [4, 0, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9, -100], [-100] * 6]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]]
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    padded = Collator("padded", None)([sequences[0][:1], sequences[1]])
    assert padded["input_ids"].tolist() == [[5, 6, 7], [4, 0, 0]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert padded["labels"].tolist() == [[-100, 6, 7], [-100, -100, -100]]
    flat = Collator("flat", None)([sequences[0], sequences[1]])
    assert flat["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4]]
    assert flat["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0]]
    assert Collator("flat", None, 4)([sequences[0], sequences[1]])["input_ids"].tolist() == [
        [5, 6, 7, 8, 9, 4, 0, 0]
    ]
    constant = Collator("flat", 6)([sequences[0], sequences[1]])
    assert constant["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0, 4, 0, 0, 0, 0, 0]]
    assert Collator("padded", None, 8)([sequences[0]])["input_ids"].shape == (1, 8)


def test_a_sequence_longer_than_the_padding_is_our_mistake() -> None:
    row = (np.arange(9, dtype=np.int32), np.arange(9, dtype=np.int32))
    with pytest.raises(AssertionError, match="9 tokens does not fit in sequence_len 8"):
        Collator("packed", 8)([[row]])


def test_a_label_of_its_own_token_stays_with_the_first_of_a_row_too(tmp_path: Path) -> None:
    rows = [([5, 6, 7], [-100, 1, 0]), ([8, 9], [1, 0])]
    data = training_data(tmp_path, rows, [[0, 1]])
    (sequence,) = Sequences(data.rows, data.packs, seed=0)
    assert Collator("packed", 6, own_labels=True)([sequence])["labels"].tolist() == [[-100, 1, 0, 1, 0, -100]]
    apart = Collator("apart", None, own_labels=True)([sequence])
    assert apart["labels"].tolist() == [[-100, 1, 0], [1, 0, -100]]
