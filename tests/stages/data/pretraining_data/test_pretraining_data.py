"""Texts read lazily, tokenized and put into sequences, as far as max_steps needs them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from support.rows import files_of, read_arrow, run_stage, write_lines
from support.tekken import write_tekken
from support.tiny_tokenizer import make_tokenizer
from tokenizers import Tokenizer as Backend

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.pretraining_data.stage import PRETRAINING_DATA
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.errors import RowError, SettingError, SourceError
from tunemill.stages.training.order_body import Sequences

EOS = 2
# Some 4 to 200 tokens each, every text unlike the others.
TEXTS = [f"{i} " + "The capital of France is Paris. " * (1 + i * 7 % 23) for i in range(300)]


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(make_tokenizer(tmp_path / "tokenizer"))


@pytest.fixture
def prepare(tmp_path, tokenizer):
    calls = 0

    def run(rows, **settings):
        nonlocal calls
        calls += 1
        if not isinstance(rows, str):
            lines = [row if isinstance(row, dict) else {"text": row} for row in rows]
            rows = str(write_lines(tmp_path / f"texts{calls}.jsonl", lines))
        config = PretrainingDataConfig(path=rows, **{"sequence_len": 256, "max_steps": 4, **settings})
        return run_stage(PRETRAINING_DATA, config, tmp_path / f"out{calls}", tokenizer=tokenizer)

    return run


@pytest.fixture
def tokens(tokenizer):
    backend = Backend.from_file(str(tokenizer.path / "tokenizer.json"))
    return lambda text: [*backend.encode(text).ids, EOS]


def sequences(data):
    rows = [row["input_ids"] for row in read_arrow(data.rows)]
    assert [row["labels"] for row in read_arrow(data.rows)] == rows
    return [[rows[i] for i in pack["rows"]] for pack in read_arrow(data.packs)]


def flat(found):
    return [row for sequence in found for row in sequence]


def joined(rows):
    return [token for row in rows for token in row]


def test_packed_texts_are_whole_and_end_with_eos(prepare, tokens):
    data, events = prepare(TEXTS, sample_packing=True, max_steps=10, micro_batch_size=2)
    found = sequences(data)
    assert len(found) == 20 and events.summary["sequences"] == 20
    known = {tuple(tokens(text)) for text in TEXTS}
    assert all(tuple(row) in known for row in flat(found))
    assert len({tuple(row) for row in flat(found)}) == len(flat(found)), "no text twice"
    assert all(sum(map(len, sequence)) <= 256 for sequence in found)
    assert events.summary["packing_efficiency"] > 0.97
    assert events.summary["tokens"] == sum(map(len, flat(found)))


def test_with_a_tekken_file_what_looks_like_a_special_token_is_text(tmp_path):
    settings = TokenizerConfig(
        base_model=str(write_tekken(tmp_path / "base")), tokenizer_use_mistral_common=True
    )
    tokenizer, _ = run_stage(TOKENIZER, settings, tmp_path / "words", upstream=None)
    texts = write_lines(tmp_path / "texts.jsonl", [{"text": "hello </s> world"}])
    config = PretrainingDataConfig(path=str(texts), sequence_len=256, max_steps=1, sample_packing=True)
    data, _ = run_stage(PRETRAINING_DATA, config, tmp_path / "out", tokenizer=tokenizer)
    found = flat(sequences(data))[0]
    assert found.count(EOS) == 1 and found[-1] == EOS and len(found) > 6


def test_no_more_of_the_source_is_read_than_needed(prepare, tmp_path):
    """Beyond the needed texts the file is not even JSON."""
    path = write_lines(tmp_path / "endless.jsonl", [{"text": text} for text in TEXTS])
    with path.open("a") as file:
        file.writelines(["not JSON\n"] * 2000)
    data, events = prepare(str(path), sample_packing=True, max_steps=4)
    assert len(sequences(data)) == 4
    assert 4 < events.summary["texts"] <= 128
    with pytest.raises(RowError, match=r"endless.jsonl:301, 302, 303 and 1997 more: invalid JSON"):
        prepare(str(path), sample_packing=True, max_steps=400)


def test_texts_longer_than_a_sequence_are_cut_without_overlap(prepare, tokens):
    text = "Paris " * 1000
    data, _ = prepare([text], sample_packing=True, max_steps=100, curriculum_sampling=True)
    assert joined(flat(sequences(data))) == tokens(text)
    assert sum(row.count(EOS) for row in flat(sequences(data))) == 1


def test_concatenated_texts_are_cut_at_exactly_sequence_len(prepare, tokens):
    settings = {"pretraining_sample_concatenation": True, "shuffle_merged_datasets": False}
    stream = [token for text in TEXTS for token in tokens(text)]
    data, _ = prepare(TEXTS, max_steps=7, micro_batch_size=3, gradient_accumulation_steps=2, **settings)
    found = sequences(data)
    assert [len(sequence) for sequence in found] == [1] * 42
    assert [len(row) for row in flat(found)] == [256] * 42
    assert joined(flat(found)) == stream[: 42 * 256]
    small, _ = prepare(TEXTS, max_steps=42, streaming_multipack_buffer_size=3, **settings)
    assert sequences(small) == found, "nothing is lost between buffers"
    whole, events = prepare(TEXTS, max_steps=10_000, **settings)
    assert joined(flat(sequences(whole))) == stream
    assert "the source ended after 300 texts" in events.logs
    assert events.summary["sequences"] == -(-len(stream) // 256) < events.summary["sequences_needed"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"min_sample_len": 0},
        {"min_sample_len": 5},
        {"min_sample_len": 8},
        {"sample_packing": True},
        {"sample_packing": True, "sample_packing_sequentially": True},
        {"sample_packing": True, "pretrain_multipack_attn": False},
        {"pretraining_sample_concatenation": True},
        {"pretraining_sample_concatenation": True, "min_sample_len": 8},
        {"pretraining_sample_concatenation": True, "streaming_multipack_buffer_size": 1},
    ],
)
@pytest.mark.parametrize("lengths", [[16], [15], [17], [7, 30], [8], [9], range(8, 40), [8, 8, 8, 7, 16]])
def test_the_eos_of_every_text_is_trained_whatever_its_length(prepare, tokens, settings, lengths):
    texts = ["~" * (n - 1) for n in lengths]
    assert [len(tokens(text)) for text in texts] == list(lengths)
    shortest = settings.get("min_sample_len", 2)
    data, events = prepare(texts, sequence_len=8, max_steps=1000, **settings)
    rows = flat(sequences(data))
    apart = "pretraining_sample_concatenation" not in settings
    kept = (
        [n for n in lengths if n >= shortest] if apart else [n for n in lengths if sum(lengths) >= shortest]
    )
    assert sum(row[1:].count(EOS) for row in rows) == len(kept)
    assert all(len(row) >= min(shortest, 8) for row in rows)
    assert events.summary["dropped_too_short"] == len(lengths) - len(kept)
    if shortest < 5:
        # A token or two more where an EOS would be the first of a sequence.
        assert 0 <= sum(map(len, rows)) - sum(lengths) <= (0 if apart else len(lengths))


def test_texts_of_a_pack_see_each_other_when_asked(prepare):
    settings = {"sample_packing": True, "max_steps": 9, "seed": 3}
    apart = sequences(prepare(TEXTS, **settings)[0])
    together = sequences(prepare(TEXTS, **settings, pretrain_multipack_attn=False)[0])
    assert [len(sequence) for sequence in together] == [1] * 9
    assert [joined(sequence) for sequence in apart] == flat(together)


def test_texts_by_themselves(prepare, tokens):
    texts = [*TEXTS[:5], "Paris " * 1000]
    data, _ = prepare(texts, max_steps=100, shuffle_merged_datasets=False)
    expected = [tokens(text)[i : i + 256] for text in texts for i in range(0, len(tokens(text)), 256)]
    assert flat(sequences(data)) == expected and len(expected) > 6
    few, _ = prepare(TEXTS, max_steps=3, shuffle_merged_datasets=False)
    assert [tokens(text) for text in TEXTS[:3]] == flat(sequences(few))
    mixed, _ = prepare(TEXTS, max_steps=3)
    assert sorted(flat(sequences(mixed))) == sorted(flat(sequences(few))), (
        "three texts are read for three sequences"
    )


def test_the_order_is_drawn_from_the_seed(prepare):
    settings = {"sample_packing": True, "max_steps": 30}
    assert files_of(prepare(TEXTS, **settings)[0]) == files_of(prepare(TEXTS, **settings)[0])
    assert files_of(prepare(TEXTS, **settings)[0]) != files_of(prepare(TEXTS, **settings, seed=1)[0])


def test_curriculum_keeps_the_order_of_the_source(prepare, tokens):
    settings = {"sample_packing": True, "sample_packing_sequentially": True, "curriculum_sampling": True}
    data, _ = prepare(TEXTS, max_steps=20, **settings)
    found = flat(sequences(data))
    assert found == [tokens(text) for text in TEXTS[: len(found)]]


def test_buffers_bound_what_is_shuffled(prepare, tokens):
    data, _ = prepare(TEXTS, max_steps=1000, streaming_multipack_buffer_size=50)
    found = [tuple(row) for row in flat(sequences(data))]
    whole = [tuple(tokens(text)[:256]) for text in TEXTS]
    numbers = [whole.index(row) for row in found if row[-1] == EOS]
    assert {n // 50 for n in numbers[:40]} == {0}
    assert numbers != sorted(numbers)


def test_skip_column_and_split(prepare, tokens):
    rows = [{"body": text} for text in TEXTS[:6]]
    data, _ = prepare(rows, text_column="body", skip=2, split="train[:5]", shuffle_merged_datasets=False)
    assert flat(sequences(data)) == [tokens(text) for text in TEXTS[2:5]]


def test_a_url_is_streamed(prepare, tokens, tmp_path):
    path = write_lines(tmp_path / "far.jsonl", [{"text": text} for text in TEXTS])
    data, _ = prepare(f"file://{path}", max_steps=3, shuffle_merged_datasets=False)
    assert flat(sequences(data)) == [tokens(text) for text in TEXTS[:3]]
    with pytest.raises(SettingError, match=r"neither the length nor the middle is known"):
        prepare(f"file://{path}", split="train[50%:]")
    with pytest.raises(SourceError, match=r"nowhere.jsonl: cannot be streamed"):
        prepare(f"file://{tmp_path}/nowhere.jsonl")


def test_a_stream_with_a_date_that_python_does_not_have(prepare, tmp_path):
    """The library cannot go on behind such a row, which it is read by."""
    when = pa.array([0, 10**18], pa.int64()).view(pa.timestamp("us"))
    pq.write_table(pa.table({"text": TEXTS[:2], "when": when}), tmp_path / "far.parquet")
    with pytest.raises(SourceError, match=r"far\.parquet: cannot be (streamed|read on behind row \d+): "):
        prepare(f"file://{tmp_path}/far.parquet")


def test_a_local_file_with_an_odd_name_beside_a_stream(prepare, tokens, tmp_path):
    write_lines(tmp_path / "far.jsonl", [{"text": TEXTS[0]}])
    (tmp_path / "runs [v2]").mkdir()
    near = write_lines(tmp_path / "runs [v2]" / "near.jsonl", [{"text": TEXTS[1]}])
    files = [f"file://{tmp_path}/far.jsonl", str(near)]
    data, _ = prepare("json", data_files=files, shuffle_merged_datasets=False)
    assert flat(sequences(data)) == [tokens(text) for text in TEXTS[:2]]


def test_bad_rows_stop_or_are_set_aside(prepare, tokens):
    rows = [TEXTS[0], {"body": "x"}, TEXTS[1], {"text": ["a"]}, ""]
    with pytest.raises(
        RowError, match=r"(?s)2 rows of texts1.jsonl.*texts1.jsonl:2: no field 'text'.*jsonl:4: field"
    ):
        prepare(rows)
    with pytest.raises(RowError, match="jsonl:2: no field 'text'; it is null"):
        prepare([TEXTS[0], {"text": None}])
    data, events = prepare(rows, bad_rows="skip", shuffle_merged_datasets=False)
    assert flat(sequences(data)) == [tokens(TEXTS[0]), tokens(TEXTS[1])]
    assert (events.summary["rejected"], events.summary["empty_texts"]) == (2, 1)
    assert len((data.path / "rejected.jsonl").read_text().splitlines()) == 2


def test_nothing_to_train_on(prepare):
    with pytest.raises(
        RowError, match="there is nothing to train on: of 2 texts after the first 0 rows 2 are empty"
    ):
        prepare(["", ""])


def test_what_training_reads(prepare):
    data, _ = prepare(TEXTS, sample_packing=True, max_steps=5)
    read = Sequences(data.rows, data.packs, seed=0)
    assert len(read) == 5
    assert read.lengths.max() <= 256
    ids = np.concatenate([row for row, _ in read[0]]).tolist()
    assert ids == joined(sequences(data)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": None}, "max_steps"),
        ({"val_set_size": 0.1}, "val_set_size cannot hold rows out of a stream"),
        ({"dataset_exact_deduplication": True}, "cannot find duplicates"),
        ({"excess_length_strategy": "raise"}, "they are cut into sequences"),
        ({"shards": 2}, "cannot cut a stream into shards"),
        ({"text_column": "a", "field": "b"}, "text_column: a and field: b mean the same"),
        (
            {"streaming_multipack_buffer_size": 5, "pretrain_multipack_buffer_size": 6},
            "mean the same; keep one",
        ),
        ({"sample_packing": True, "pretraining_sample_concatenation": True}, "choose one"),
        ({"curriculum_sampling": True, "shuffle_merged_datasets": True}, "keep one"),
        ({"min_sample_len": 1000}, "more than sequence_len"),
        ({"type": "alpaca"}, "pretrain"),
    ],
)
def test_settings_that_are_refused(settings, message):
    given = {"path": "/nowhere/a.jsonl", "max_steps": 3, **settings}
    with pytest.raises(ValidationError, match=message):
        PretrainingDataConfig(**{key: value for key, value in given.items() if value is not None})


def test_the_older_name_of_the_buffer():
    config = PretrainingDataConfig(path="/a.jsonl", max_steps=3, pretrain_multipack_buffer_size=7)
    assert config.buffer_rows == 7
    assert PretrainingDataConfig(path="/a.jsonl", max_steps=3).buffer_rows == 10_000


def test_what_the_key_holds():
    given = {"path": "/a.jsonl", "max_steps": 3}
    plain = PretrainingDataConfig(**given).semantic()
    assert plain["max_steps"] == 3 and "path" not in plain and "seed" not in plain
    assert PretrainingDataConfig(**given, seed=7).semantic() == {**plain, "seed": 7}
    assert PretrainingDataConfig(**given, streaming=False).semantic() == plain


@pytest.mark.parametrize(
    ("row", "settings", "line"),
    [
        ({"body": "a"}, {}, "these rows look like texts in `text_column: body`"),
        (
            {"text": "a"},
            {"field": "body"},
            "these rows look like texts in `text_column: text`, without `field`",
        ),
        (
            {"instruction": "a", "output": "b"},
            {},
            (
                "these rows are rows for fine-tuning: under `datasets:` in place of `pretraining_dataset:`, "
                "`type: alpaca` trains on them"
            ),
        ),
    ],
)
def test_rows_whose_texts_are_elsewhere(prepare, row, settings, line):
    with pytest.raises(RowError) as caught:
        prepare([row] * 3, **settings)
    assert str(caught.value).splitlines()[2:] == [line]
