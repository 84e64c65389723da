"""Pairs of answers as tokens: masks, BOS and EOS, what is cut off, and the batch."""

from pathlib import Path
from typing import Any

import pytest
from support.formats import TOKENIZERS
from support.pairs import preference_data
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.data.rows.pairs_body import Pair, PairReader, collate_pairs
from tunemill.stages.errors import RowError
from tunemill.stages.report import Report
from tunemill.stages.training.pairs_body import PAIRS
from tunemill.stages.training.preferences_body import PreferenceExamples, check_held_out, read_rows


def pairs_of(folder: Path, rows: list[tuple[str, str, str]], tokenizer: str | None = None, longest: int = 64):
    place = TOKENIZERS / tokenizer if tokenizer else make_tokenizer(folder / "tokenizer")
    loaded = AutoTokenizer.from_pretrained(place)
    reader = PairReader(preference_data(folder / "pairs", rows).rows, loaded, longest)
    return loaded, reader, [reader.read(place) for place in range(len(reader.numbers))]


def shown(tokenizer, row) -> tuple[str, str]:
    """The whole text, and what of it is an answer."""
    ids, labels = row
    return tokenizer.decode(ids), tokenizer.decode([int(label) for label in labels if label != -100])


def test_prompts_are_masked_and_answers_end_with_eos(tmp_path: Path) -> None:
    tokenizer, _, (pair,) = pairs_of(tmp_path, [("question\n", "Paris", "Rome<|im_end|>")])
    assert shown(tokenizer, pair.chosen) == ("question\nParis<|im_end|>", "Paris<|im_end|>")
    assert shown(tokenizer, pair.rejected) == ("question\nRome<|im_end|>", "Rome<|im_end|>")


def test_a_bos_token_goes_first_once(tmp_path: Path) -> None:
    rows = [("hello ", "you", "me"), ("<|begin_of_text|>hello ", "you", "me")]
    tokenizer, _, (plain, with_bos) = pairs_of(tmp_path, rows, "llama3")
    assert tokenizer.convert_tokens_to_ids("<|begin_of_text|>") == tokenizer.bos_token_id
    assert plain.chosen[0].tolist() == with_bos.chosen[0].tolist()
    assert plain.chosen[0].tolist().count(tokenizer.bos_token_id) == 1


def test_a_token_that_reaches_into_the_answer_belongs_to_it(tmp_path: Path) -> None:
    tokenizer, _, (pair,) = pairs_of(tmp_path, [("Fr", "ance", "iend")])
    whole = tokenizer("France", add_special_tokens=False)["input_ids"]
    assert len(whole) < len(tokenizer("Fr", add_special_tokens=False)["input_ids"]) + 4
    text, answer = shown(tokenizer, pair.chosen)
    assert text == "France<|im_end|>" and answer.endswith("ance<|im_end|>")


def test_what_is_too_long_loses_its_end_and_pairs_without_an_answer_go(tmp_path: Path) -> None:
    rows = [("ab", "cdefgh", "i"), ("abcdefghij", "k", "l")]
    _, reader, pairs = pairs_of(tmp_path, rows, longest=6)
    assert reader.numbers.tolist() == [0] and len(pairs) == 1
    assert len(pairs[0].chosen[0]) == 6 and pairs[0].chosen[1].tolist()[:2] == [-100, -100]


def test_lengths_are_those_of_both_sequences(tmp_path: Path) -> None:
    _, reader, pairs = pairs_of(tmp_path, [("a", "b", "cde"), ("q", "rstu", "v")])
    assert reader.lengths.tolist() == [len(p.chosen[0]) + len(p.rejected[0]) for p in pairs]
    assert PreferenceExamples(reader, seed=1, keep_order=False).lengths.tolist() == reader.lengths.tolist()


def test_epochs_after_the_first_have_an_order_of_their_own_unless_it_is_kept(tmp_path: Path) -> None:
    _, reader, _ = pairs_of(tmp_path, [(str(i), "a", "b") for i in range(20)])
    shuffled = PreferenceExamples(reader, seed=1, keep_order=False)
    assert shuffled.order(0) == list(range(20)) and shuffled.order(1) not in (
        shuffled.order(0),
        shuffled.order(2),
    )
    assert PreferenceExamples(reader, seed=1, keep_order=True).order(1) == list(range(20))


def test_a_batch_has_the_chosen_sequences_first(tmp_path: Path) -> None:
    _, _, pairs = pairs_of(tmp_path, [("a", "b", "cdef"), ("q", "rs", "v")])
    batch = collate_pairs(pairs)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert len(batch["input_ids"]) == 4
    for place, row in enumerate((pairs[0].chosen, pairs[1].chosen, pairs[0].rejected, pairs[1].rejected)):
        length = len(row[0])
        assert batch["input_ids"][place, :length].tolist() == row[0].tolist()
        assert batch["attention_mask"][place].sum() == length
        assert batch["labels"][place, length:].eq(-100).all()


@pytest.mark.parametrize("count", [0, 1025])
def test_any_number_of_pairs(tmp_path: Path, count: int) -> None:
    _, reader, pairs = pairs_of(tmp_path, [("a", "b", "c")] * count)
    assert len(reader.lengths) == len(pairs) == count
    assert not pairs or isinstance(pairs[-1], Pair)


def test_pairs_that_are_the_same_once_they_are_cut_are_left_out(tmp_path: Path) -> None:
    rows = [("ab", "cdefghx", "cdefghy"), ("ab", "c", "d"), ("ab", "c", "c")]
    _, reader, pairs = pairs_of(tmp_path, rows, longest=6)
    assert reader.numbers.tolist() == [1] and len(pairs) == 1 and reader.left_out == 2


@pytest.mark.parametrize("tokenizer", ["chatml", "llama3", "sp", "gemma"])
@pytest.mark.parametrize("prompt", ["Assistant: ", "Assistant:\n", "un", "1 + 1 =  ", "🙂 na", "  "])
def test_no_token_of_the_prompt_alone_is_trained(tokenizer: str, prompt: str, tmp_path: Path) -> None:
    loaded, _, (pair,) = pairs_of(tmp_path, [(prompt, " four\n2", "able")], tokenizer)
    for (ids, labels), answer in ((pair.chosen, " four\n2"), (pair.rejected, "able")):
        trained = [int(label) for label in labels if label != -100]
        assert loaded.decode(ids, skip_special_tokens=True).strip() == (prompt + answer).strip()
        said = loaded.decode(trained, skip_special_tokens=True)
        assert said.strip().endswith(answer.strip())
        # Without its first token something of the answer is missing: no token before it is trained.
        assert len(loaded.decode(trained[1:], skip_special_tokens=True)) < len(answer)


@pytest.mark.parametrize("rejected", ["c", "d"])
def test_held_out_pairs_of_which_none_is_left_are_refused(tmp_path: Path, rejected: str) -> None:
    tokenizer, reader, _ = pairs_of(tmp_path, [("ab", "c", rejected)])
    said: list[dict[str, Any]] = []
    rows = read_rows(PAIRS, tokenizer, 64, Report(said.append), "held_out_pairs", reader.file, None)
    if rejected == "d":
        check_held_out(PAIRS, rows)
        assert said == []
        return
    with pytest.raises(RowError, match="none of the 1 held-out pairs is left to score"):
        check_held_out(PAIRS, rows)
    assert said[0]["metrics"] == {"left_out_held_out_pairs": 1}
    assert said[1]["message"].startswith("warning: 1 held out pairs are left out: ")
