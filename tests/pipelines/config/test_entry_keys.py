"""Keys of Axolotl in entries of datasets that no stage reads."""

import pytest
from support.configs import ORPO, PRETRAINING, SFT, entry, load, problems


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("train_on_split", "train", "removed", "write split: 'train'"),
        ("input_transform", "chat", "removed", "write type: chat_template"),
    ],
)
@pytest.mark.parametrize("group", ["datasets", "test_datasets"])
def test_keys_that_are_refused_say_what_to_write(tmp_path, group, key, value, kind, message):
    config = {**SFT, "test_datasets": [{"path": "rows.jsonl", "type": "chat_template"}]}
    (problem,) = problems(tmp_path, entry(config, group, **{key: value}))
    assert (problem.path, problem.kind) == (f"{group}[0].{key}", kind) and message in problem.message
    load(tmp_path, entry(config, group, **{key: None}))


@pytest.mark.parametrize(("key", "value"), [("input_format", "x"), ("streaming", True), ("strict", True)])
def test_keys_that_ask_for_nothing_are_noted(tmp_path, key, value):
    pipeline = load(tmp_path, entry(SFT, "datasets", **{key: value}))
    (note,) = (note for note in pipeline.notes if note.path == f"datasets[0].{key}")
    assert note.kind == "idle" and note.message.startswith("asks for nothing: ")
    assert not load(tmp_path, entry(SFT, "datasets", **{key: False})).notes


@pytest.mark.parametrize("config", [SFT, ORPO, PRETRAINING])
@pytest.mark.parametrize(
    ("key", "value"), [("num_dataset_shards_to_save", 3), ("dataset_keep_in_memory", True)]
)
def test_how_prepared_rows_are_stored_is_noted_in_every_graph(tmp_path, config, key, value):
    plain = load(tmp_path, config)
    pipeline = load(tmp_path, {**config, key: value})
    (note,) = (note for note in pipeline.notes if note.path == key)
    assert note.kind == "idle"
    assert [node.config for node in pipeline.nodes] == [node.config for node in plain.nodes]


@pytest.mark.parametrize("config", [SFT, ORPO, PRETRAINING])
@pytest.mark.parametrize("key", ["dataset_num_proc", "dataset_processes"])
def test_processes_change_no_graph(tmp_path, config, key):
    assert load(tmp_path, {**config, key: 2}).nodes
