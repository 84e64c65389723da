"""Copies of held-out rows are found wherever they stand, and what rows share by their template is not taken for one."""

import json
import random
import time
from itertools import chain

import numpy as np
import pytest
from support.examples import ROOT
from tokenizers import Tokenizer

from tunemill.stages.data.leakage.search import MANY, Search
from tunemill.stages.data.leakage.words import Block, blocks_of_tokens, known_words, numbered, split
from tunemill.stages.data.rows.token_rows import SCHEMA, list_array, open_writer, pa, read_token_rows

QUICKSTART = ROOT / "examples" / "quickstart"


def found(held, trained):
    """Held-out row -> the row that it stands in, of blocks of rows."""
    words, vocabulary = known_words(held)
    search = Search(words, vocabulary.sizes)
    for block in trained:
        search.add(numbered(block, vocabulary), block.marks)
    return {leak.held_out: leak for leak in search.leaks()}


def texts(*rows, at_a_time=1000):
    """Rows of one text each, as blocks."""
    for first in range(0, len(rows), at_a_time):
        some = rows[first : first + at_a_time]
        yield Block([[row.split()] for row in some], [row.encode() for row in some])


def in_texts(held, trained):
    return {row: leak.trained for row, leak in found(texts(*held), texts(*trained, at_a_time=7)).items()}


def sentence(draw, words):
    return " ".join(f"w{draw.randrange(3000)}" for _ in range(words))


@pytest.fixture
def draw():
    return random.Random(5)


def conversations(*names):
    lines = [line for name in names for line in (QUICKSTART / "data" / f"{name}.jsonl").open()]
    return [tuple(message["content"] for message in json.loads(line)["messages"]) for line in lines]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(QUICKSTART / "model" / "tokenizer.json"))


def chats(rows, tokenizer, path):
    """Conversations in ChatML, as blocks of decoded tokens."""
    written = [f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n" for q, a in rows]
    encoded = [one.ids for one in tokenizer.encode_batch_fast(written, add_special_tokens=False)]
    with open_writer(path, SCHEMA) as writer:
        for first in range(0, len(encoded), 1024):
            batch = list_array(encoded[first : first + 1024])
            writer.write_batch(pa.record_batch([batch, batch], schema=SCHEMA))
    return blocks_of_tokens(read_token_rows(path), tokenizer)


@pytest.fixture(scope="module")
def quickstart(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    held, trained = conversations("heldout"), conversations("dates_words", "dates_numeric")

    def call(copies):
        rows = [*trained, *copies]
        random.Random(1).shuffle(rows)
        return found(chats(held, tokenizer, folder / "held"), chats(rows, tokenizer, folder / "trained"))

    return held, [word for row in trained for part in row for word in part.split()], call


def embedded(row, filling, draw):
    text = f"{row[0]}\n{row[1]}"
    around = [" ".join(draw.choices(filling, k=5 * len(text.split()))) for _ in range(2)]
    return f"{around[0]} {text} {around[1]}", "ok"


COPIES = {
    "verbatim": lambda row, *_: row,
    "re-wrapped": lambda row, *_: ("\n  ".join(row[0].split()), f" {row[1]}\n"),
    "embedded": embedded,
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_the_quickstarts_held_out_rows_are_found(quickstart, draw, kind):
    held, filling, call = quickstart
    leaks = call([COPIES[kind](row, filling, draw) for row in held])
    assert len(leaks) >= 0.95 * len(held)


def test_nothing_is_found_in_the_quickstart_itself(quickstart):
    held, _, call = quickstart
    assert len(call([])) < 0.001 * len(held)


def test_of_a_row_that_is_trained_on_little_is_kept(tokenizer, tmp_path):
    rows = [("a question " * count, "an answer") for count in (1, 50, 1, 500)]
    marks = [mark for block in chats(rows, tokenizer, tmp_path / "rows") for mark in block.marks]
    assert {len(mark) for mark in marks} == {16} and marks[0] == marks[2] and len(set(marks)) == 3


def test_a_copy_is_found_in_the_row_that_has_it(draw):
    held = [sentence(draw, length) for length in (3, 7, 8, 9, 40, 200)]
    trained = [sentence(draw, 60) for _ in range(30)]
    places = {3: 0, 9: 2, 14: 3, 21: 4, 28: 5}
    for place, row in places.items():
        trained[place] = f"{trained[place]} {held[row]} {trained[place]}"
    trained[17] = held[1].replace(" ", "\n\t")
    assert in_texts(held, trained) == {2: 9, 3: 14, 4: 21, 5: 28, 1: 17}
    # Three words of two characters stand anywhere, but not where they are the row.
    assert in_texts(held, [*trained, held[0]])[0] == 30


def test_a_row_of_which_a_part_is_shared_is_no_copy(draw):
    held = sentence(draw, 60)
    words = held.split()
    assert in_texts([held], [" ".join(words[:35] + ["other"] * 30)]) == {}
    changed = [*words[:20], "changed", *words[21:]]
    assert in_texts([held], [" ".join(changed)]) == {0: 0}
    # Scattered over several rows it stands in none of them.
    assert in_texts([held], [" ".join(words[:30]), " ".join(words[25:])]) == {}


@pytest.mark.parametrize(("held_rows", "trained_rows"), [(40, 400), (1, 400), (40, 3)])
def test_a_system_prompt_is_no_leakage_and_does_not_hide_one(draw, held_rows, trained_rows):
    prompt = sentence(draw, 100)
    held = [f"{prompt} {sentence(draw, 12)}" for _ in range(held_rows)]
    trained = [f"{prompt} {sentence(draw, 12)}" for _ in range(trained_rows)]
    assert in_texts(held, trained) == {}
    trained[2] = f"{prompt} {held[0].removeprefix(prompt)} {sentence(draw, 50)}"
    assert in_texts(held, trained) == {0: 2}


def test_a_row_that_is_trained_on_many_times_is_no_template(draw):
    held = [sentence(draw, 30) for _ in range(20)]
    trained = [*(sentence(draw, 30) for _ in range(50)), *[held[4]] * (3 * MANY)]
    assert in_texts(held, trained) == {4: 50}
    # Nor where it stands inside of a longer one.
    trained[50:] = [f"{sentence(draw, 40)} {held[4]}"] * (3 * MANY)
    assert in_texts(held, trained) == {4: 50}


def test_scripts_without_spaces_are_read_by_the_character():
    held = "昨日の会議で決まったことを全員に知らせてください"
    trained = f"以下の文を読んでください。\n{held}\nそして要約を書いてください。"

    def rows(*given):
        return [Block([[split(text)] for text in given], [text.encode() for text in given])]

    assert set(found(rows(held), rows("別の文", trained))) == {0}
    assert not found(rows(held), rows("昨日の会議は楽しかった", "全員に知らせる"))


def test_no_rows_and_empty_ones_have_no_leaks():
    assert in_texts(["", "a b c"], ["", "d"]) == {}
    assert in_texts([], ["a b"]) == {}


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_seconds(tokenizer, tmp_path):
    words = sorted({word for row in conversations("dates_words") for part in row for word in part.split()})
    pieces = [
        one.ids for one in tokenizer.encode_batch([f" {word}" for word in words], add_special_tokens=False)
    ]
    opening, middle, closing = (
        tokenizer.encode(text, add_special_tokens=False).ids
        for text in ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n")
    )
    with open_writer(tmp_path / "rows", SCHEMA) as writer:
        for picked in np.random.default_rng(0).integers(len(words), size=(100, 1000, 80)).tolist():
            parts = (
                [
                    opening,
                    *(pieces[word] for word in row[:60]),
                    middle,
                    *(pieces[word] for word in row[60:]),
                    closing,
                ]
                for row in picked
            )
            batch = list_array([list(chain.from_iterable(row)) for row in parts])
            writer.write_batch(pa.record_batch([batch, batch], schema=SCHEMA))
    rows = read_token_rows(tmp_path / "rows")
    held = rows.take(np.arange(0, len(rows), 50))
    started = time.process_time()
    leaks = found(blocks_of_tokens(held, tokenizer), blocks_of_tokens(rows, tokenizer))
    seconds = time.process_time() - started
    print(f"{len(rows)} rows, {int(rows.length.sum())} tokens, 8,000,000 words: {seconds:.1f} s of CPU")
    assert len(leaks) == len(held) and seconds < 60
