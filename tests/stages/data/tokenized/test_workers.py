"""Many rows are tokenized by several processes: what they write is what one writes."""

import pytest
from support.rows import files_of, run_stage, write_lines

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.rows import workers
from tunemill.stages.data.tokenized import batches
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.stage import TOKENIZED


def test_several_processes_write_what_one_writes(tmp_path, tokenizer, monkeypatch):
    rows = [
        {"text": 3 if number == 1500 else f"Row {number} é 🎉" * (number % 7)}
        if number != 700
        else {"other": "x"}
        for number in range(4000)
    ]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "d")
    artifacts, said = [], []
    for name, processes in (("one", 1), ("several", 3)):
        monkeypatch.setattr(workers, "BATCHES_FOR_ONE", 1)
        config = TokenizedConfig(type="completion", bad_rows="skip", dataset_num_proc=processes)
        made, events = run_stage(TOKENIZED, config, tmp_path / name, dataset=dataset, tokenizer=tokenizer)
        artifacts.append(files_of(made))
        said.append([event for event in events.sent if event["type"] != "progress"])
    assert artifacts[0] == artifacts[1] and "rejected.jsonl" in artifacts[0]
    assert said[0] == said[1]


@pytest.mark.parametrize("bad", [range(3), range(batches.FIRST_ROWS + 1), range(60, 1500), range(0)])
def test_the_first_rows_are_made_soon_and_written_as_ever(tmp_path, tokenizer, monkeypatch, bad):
    rows = [{"other": "x"} if n in bad else {"text": f"Row {n} é" * (1 + n % 7)} for n in range(2000)]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "d")
    config = TokenizedConfig(type="completion", bad_rows="skip", dataset_num_proc=1)
    artifacts, told = [], []
    for name, first in (("parts", batches.FIRST_ROWS), ("whole", 1 << 20)):
        monkeypatch.setattr(batches, "FIRST_ROWS", first)
        made, events = run_stage(TOKENIZED, config, tmp_path / name, dataset=dataset, tokenizer=tokenizer)
        artifacts.append(files_of(made))
        told.append([event["done"] for event in events.sent if event["type"] == "progress"])
    assert artifacts[0] == artifacts[1]
    good = [n for n in range(2000) if n not in bad]
    # The first part is told when it is made, before an engine is proven, and once more when it is written.
    assert told[0] == [sum(n < end for n in good) for end in (64, 64, 1024, 2000)]
    assert told[1] == [sum(n < end for n in good) for end in (1024, 1024, 2000)]
