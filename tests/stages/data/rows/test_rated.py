"""Judged answers as tokens: each row's own answer and that of the row before it, what is left out, and the batch."""

from pathlib import Path

import numpy as np
import pytest
from support.formats import TOKENIZERS
from support.rated import Judged, rated_data
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.data.rows.log_p_columns import write_log_p
from tunemill.stages.data.rows.rated_body import ANSWERS, RatedReader, collate_rated, others_of

ROWS: list[Judged] = [("one=", "1", True), ("two=", "22", False), ("three=", "3", True)]


def reader_of(folder: Path, rows: list[Judged], longest: int = 64, tokenizer: str | None = None):
    place = TOKENIZERS / tokenizer if tokenizer else make_tokenizer(folder / "tokenizer")
    loaded = AutoTokenizer.from_pretrained(place)
    return loaded, RatedReader(rated_data(folder / "rows", rows).rows, loaded, longest)


def shown(tokenizer, row) -> tuple[str, str]:
    """The whole text, and what of it is an answer."""
    ids, labels = row
    return tokenizer.decode(ids), tokenizer.decode([int(label) for label in labels if label != -100])


def test_each_row_has_its_own_answer_and_that_of_the_row_before_it(tmp_path: Path) -> None:
    tokenizer, reader = reader_of(tmp_path, ROWS)
    rows = [reader.read(place) for place in range(3)]
    assert [shown(tokenizer, row.own) for row in rows] == [
        ("one=1<|im_end|>", "1<|im_end|>"),
        ("two=22<|im_end|>", "22<|im_end|>"),
        ("three=3<|im_end|>", "3<|im_end|>"),
    ]
    assert [shown(tokenizer, row.other)[0] for row in rows] == [
        "one=3<|im_end|>", "two=1<|im_end|>", "three=22<|im_end|>",
    ]  # fmt: skip
    assert [row.is_desirable for row in rows] == [True, False, True]
    assert reader.lengths.tolist() == [len(row.own[0]) + len(row.other[0]) for row in rows]
    assert reader.longest_row == max(len(ids) for row in rows for ids, _ in (row.own, row.other))


def test_rows_of_whose_answer_nothing_is_left_lend_theirs_to_no_other(tmp_path: Path) -> None:
    tokenizer, reader = reader_of(
        tmp_path, [ROWS[0], ("a much longer question=", "no", True), ROWS[1]], longest=8
    )
    assert reader.numbers.tolist() == [0, 2] and reader.left_out == 1 and reader.rows == 3
    assert shown(tokenizer, reader.read(1).other)[0] == "two=1<|im_end|>"
    assert reader.read(1).is_desirable is False


def test_a_bos_token_goes_first(tmp_path: Path) -> None:
    tokenizer, reader = reader_of(tmp_path, ROWS, tokenizer="llama3")
    row = reader.read(0)
    assert row.own[0][0] == row.other[0][0] == tokenizer.bos_token_id


def test_a_batch_pads_both_answers_by_themselves(tmp_path: Path) -> None:
    _, reader = reader_of(tmp_path, ROWS)
    rows = [reader.read(place) for place in range(2)]
    batch = collate_rated(rows)
    assert "reference_b" not in batch and batch["is_desirable"].tolist() == [True, False]
    for part, sequences in (
        (batch, [row.own for row in rows]),
        (others_of(batch), [row.other for row in rows]),
    ):
        assert part["input_ids"].shape == (2, max(len(ids) for ids, _ in sequences))
        for place, (ids, labels) in enumerate(sequences):
            assert part["input_ids"][place, : len(ids)].tolist() == ids.tolist()
            assert part["labels"][place, : len(ids)].tolist() == labels.tolist()
            assert part["attention_mask"][place].sum() == len(ids)


def test_stored_log_probabilities_stand_beside_both(tmp_path: Path) -> None:
    tokenizer, reader = reader_of(tmp_path, ROWS)
    file = tmp_path / "log_p.arrow"
    write_log_p(file, ANSWERS, 3, reader.numbers, np.asarray([[-1, -2], [-3, -4], [-5, -6]], np.float32))
    stored = RatedReader(reader.file, tokenizer, 64, file)
    batch = collate_rated([stored.read(2), stored.read(0)])
    assert batch["reference_b"].tolist() == [-5, -1]
    assert others_of(batch)["reference_b"].tolist() == [-6, -2]


@pytest.mark.parametrize("count", [0, 1, 1025])
def test_any_number_of_rows(tmp_path: Path, count: int) -> None:
    _, reader = reader_of(tmp_path, [("a", "b", True)] * count)
    assert len(reader.lengths) == len(reader.numbers) == count
    if count:
        assert reader.read(0).other[0].tolist() == reader.read(count - 1).own[0].tolist()
