"""Folders of files, folders of save_to_disk, and lists of files."""

import json
import struct

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.rows import files_of, read_arrow, run_stage, write_lines

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.errors import RowError, SettingError, SourceError


def rows(*numbers):
    return [{"n": n} for n in numbers]


def write(path, *numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_lines(path, rows(*numbers))


def load(folder, out, **config):
    dataset, events = run_stage(DATASET, DatasetConfig(path=str(folder), **config), out)
    return dataset, events


def numbers(dataset):
    return [json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)]


def places(dataset):
    return [(row["file"], row["line"]) for row in read_arrow(dataset.rows)]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    folder = tmp_path / "data"
    write(folder / "b.jsonl", 3, 4)
    write(folder / "a.jsonl", 1, 2)
    write(folder / "deep" / "c.jsonl", 5)
    write(folder / ".hidden.jsonl", 9)
    (folder / "README.md").write_text("# rows")
    dataset, events = load(folder, tmp_path / "out")
    assert numbers(dataset) == [1, 2, 3, 4, 5]
    assert places(dataset) == [
        ("a.jsonl", 1),
        ("a.jsonl", 2),
        ("b.jsonl", 1),
        ("b.jsonl", 2),
        ("deep/c.jsonl", 1),
    ]
    (table,) = events.of_type("table")
    assert table["rows"] == [["a.jsonl", 2], ["b.jsonl", 2], ["deep/c.jsonl", 1]]
    assert events.summary == {"rows": 5, "source": "folder"}


def test_the_name_of_the_folder_does_not_matter(tmp_path):
    results = []
    for name in ("one", "other"):
        write(tmp_path / name / "a.jsonl", 1)
        write(tmp_path / name / "b.jsonl", 2)
        results.append(files_of(load(tmp_path / name, tmp_path / f"{name}_out")[0]))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "names",
    [
        {"train": ["train.jsonl"], "test": ["test.jsonl"]},
        {"train": ["train/a.jsonl", "train/b.jsonl"], "test": ["test/a.jsonl"]},
        {"train": ["my-train-1.jsonl"], "validation": ["dev.jsonl"]},
        {"train": ["data/train-00000-of-00001.jsonl"], "extra": ["data/extra-00000-of-00001.jsonl"]},
        {"train": ["trainer.jsonl", "contest.jsonl"]},
    ],
)
def test_splits_of_a_folder_are_those_of_the_library(tmp_path, names):
    folder, count = tmp_path / "data", 0
    for files in names.values():
        for name in files:
            write(folder / name, count, count + 1)
            count += 2
    theirs = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(theirs) == set(names)
    for split in names:
        dataset, _ = load(folder, tmp_path / split, split=split)
        assert numbers(dataset) == list(theirs[split]["n"])
    dataset, _ = load(folder, tmp_path / "unset")
    assert numbers(dataset) == list(theirs["train"]["n"])


def test_a_sum_of_splits_names_the_files(tmp_path):
    folder = tmp_path / "data"
    write(folder / "train.jsonl", 1, 2, 3)
    write(folder / "test.jsonl", 4, 5)
    dataset, _ = load(folder, tmp_path / "out", split="train[:1]+test[-1:]")
    assert places(dataset) == [("train.jsonl", 1), ("test.jsonl", 2)]
    with pytest.raises(SettingError, match=r"has no split 'validation', only train, test"):
        load(folder, tmp_path / "none", split="validation")


def test_held_out_rows_are_those_of_the_test_split(tmp_path):
    folder = tmp_path / "data"
    write(folder / "train.jsonl", 1, 2, 3)
    write(folder / "test.jsonl", 4, 5)
    assert numbers(load(folder, tmp_path / "train")[0]) == [1, 2, 3]
    assert numbers(load(folder, tmp_path / "test", held_out=True)[0]) == [4, 5]
    assert numbers(load(folder, tmp_path / "named", held_out=True, split="train[:1]")[0]) == [1]


def test_splits_without_train_must_be_named(tmp_path):
    folder = tmp_path / "data"
    write(folder / "test.jsonl", 1)
    write(folder / "validation.jsonl", 2)
    with pytest.raises(SettingError, match=r"has the splits validation, test; set split to one of them"):
        load(folder, tmp_path / "out")


def test_a_folder_of_several_kinds(tmp_path):
    folder = tmp_path / "data"
    write(folder / "a.jsonl", 1)
    pq.write_table(pa.table({"n": [2]}), folder / "b.parquet")
    with pytest.raises(SourceError, match=r"different kinds \(json, parquet\); set ds_type to choose one"):
        load(folder, tmp_path / "none")
    assert numbers(load(folder, tmp_path / "out", ds_type="parquet")[0]) == [2]


def test_files_without_extension_need_ds_type(tmp_path):
    folder = tmp_path / "data"
    write(folder / "part-0", 1)
    write(folder / "part-1", 2)
    with pytest.raises(SourceError, match=r"data holds no data files, such as \.jsonl"):
        load(folder, tmp_path / "none")
    assert numbers(load(folder, tmp_path / "out", ds_type="json")[0]) == [1, 2]


def test_an_empty_folder(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(SourceError, match="data holds no data files"):
        load(tmp_path / "data", tmp_path / "out")


def test_lines_and_arrays_in_one_folder_count_rows(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"n":1}\n\n{"n":2}\n')
    (folder / "b.json").write_text('[{"n":3}]')
    dataset, _ = load(folder, tmp_path / "out")
    assert places(dataset) == [("a.jsonl", 1), ("a.jsonl", 2), ("b.json", 1)]
    assert pa.ipc.open_file(pa.memory_map(str(dataset.rows))).schema.metadata == {b"unit": b"row"}
    (folder / "a.jsonl").write_text('{"n":1}\n\noops\n')
    with pytest.raises(RowError, match=r"(?s)1 row of data .*a\.jsonl, row 2: invalid JSON"):
        load(folder, tmp_path / "bad")


def test_bad_rows_of_several_files_name_them(tmp_path):
    folder = tmp_path / "data"
    write(folder / "a.jsonl", 1)
    (folder / "b.jsonl").write_text('{"n":2}\noops\n')
    with pytest.raises(RowError, match=r"(?s)1 row of data cannot be used:\n  b\.jsonl:2: invalid JSON"):
        load(folder, tmp_path / "none")
    dataset, _ = load(folder, tmp_path / "out", bad_rows="skip")
    rejected = json.loads((dataset.path / "rejected.jsonl").read_text())
    assert (rejected["file"], rejected["line"], rejected["row"]) == ("b.jsonl", 2, "oops")


def test_a_saved_dataset(tmp_path):
    table = datasets.Dataset.from_list(rows(*range(10))).select([9, 3, 4, 1])
    table.save_to_disk(str(tmp_path / "saved"))
    dataset, events = load(tmp_path / "saved", tmp_path / "out", split="train[1:]")
    assert numbers(dataset) == [3, 4, 1]
    assert places(dataset) == [("", 2), ("", 3), ("", 4)]
    assert events.summary == {"rows": 3, "source": "saved dataset"}


def test_a_saved_dictionary_of_splits(tmp_path):
    tables = {"train": rows(1, 2, 3), "test": rows(4, 5)}
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(items) for name, items in tables.items()})
    saved.save_to_disk(str(tmp_path / "saved"))
    assert numbers(load(tmp_path / "saved", tmp_path / "1")[0]) == [1, 2, 3]
    assert numbers(load(tmp_path / "saved", tmp_path / "2", split="test")[0]) == [4, 5]
    dataset, _ = load(tmp_path / "saved", tmp_path / "3", split="train[-1:]+test[:1]")
    assert places(dataset) == [("train", 3), ("test", 1)]
    with pytest.raises(SettingError, match="no split 'validation', only train, test"):
        load(tmp_path / "saved", tmp_path / "4", split="validation")
    with pytest.raises(SettingError, match="was written by save_to_disk; remove it"):
        load(tmp_path / "saved", tmp_path / "5", name="main")


def test_a_damaged_saved_dataset(tmp_path):
    datasets.Dataset.from_list(rows(1, 2)).save_to_disk(str(tmp_path / "saved"))
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"no arrow")
    with pytest.raises(SourceError, match="written by save_to_disk, and is damaged"):
        load(tmp_path / "saved", tmp_path / "out")


def test_offsets_of_a_saved_dataset_that_lead_nowhere_do_not_end_the_process(tmp_path):
    datasets.Dataset.from_dict({"t": ["abc", "def", "ghi"]}).save_to_disk(str(tmp_path / "saved"))
    table = next((tmp_path / "saved").glob("*.arrow"))
    good, bad = (struct.pack("<4i", 0, 3, *ends) for ends in ((6, 9), (1 << 30, (1 << 30) + 5)))
    content = table.read_bytes()
    assert content.count(good) == 1
    table.write_bytes(content.replace(good, bad))
    with pytest.raises(SourceError, match="saved: holds a damaged table: Offset invariant failure"):
        load(tmp_path / "saved", tmp_path / "out")


def test_bad_rows_of_a_saved_dataset_are_rows(tmp_path):
    table = datasets.Dataset.from_dict({"n": [1.0, float("nan")]})
    table.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(RowError, match="saved, row 2: column 'n' cannot be written as JSON"):
        load(tmp_path / "saved", tmp_path / "out")


def test_json_values_of_a_saved_dataset(tmp_path):
    table = datasets.Dataset.from_dict({"n": [{"x": [1]}, "text", None]}, on_mixed_types="use_json")
    table.save_to_disk(str(tmp_path / "saved"))
    assert numbers(load(tmp_path / "saved", tmp_path / "out")[0]) == [{"x": [1]}, "text", None]


def test_a_dataset_card_says_which_files_make_up_a_configuration(tmp_path):
    folder = tmp_path / "data"
    write(folder / "x.jsonl", 1, 2)
    write(folder / "y.jsonl", 3)
    configs = "configs:\n- config_name: first\n  data_files: x.jsonl\n- config_name: second\n  data_files: y.jsonl\n"
    (folder / "README.md").write_text(f"---\n{configs}---\n# rows\n")
    dataset, events = load(folder, tmp_path / "out", name="second")
    assert numbers(dataset) == [3]
    assert events.summary["source"] == "folder with a dataset card"
    with pytest.raises(SourceError, match=r"data: cannot be loaded: Config name is missing"):
        load(folder, tmp_path / "none")


def test_files_in_a_folder(tmp_path):
    folder = tmp_path / "data"
    for number in (1, 2, 3):
        write(folder / f"part{number}.jsonl", number)
    listed = [str(folder / "part3.jsonl"), str(folder / "part1.jsonl")]
    dataset, events = load(folder, tmp_path / "out", data_files=listed)
    assert numbers(dataset) == [3, 1]
    assert places(dataset) == [("part3.jsonl", 1), ("part1.jsonl", 1)]
    assert events.summary == {"rows": 2, "source": "files"}


def test_one_file_of_a_folder_is_the_same_as_the_file(tmp_path):
    file = write(tmp_path / "data" / "part1.jsonl", 1)
    config = DatasetConfig(path=str(tmp_path / "data"), data_files=str(file))
    assert config.semantic() == DatasetConfig(path=str(file)).semantic()
    dataset, _ = load(tmp_path / "data", tmp_path / "out", data_files=str(file))
    assert files_of(dataset) == files_of(load(file, tmp_path / "file")[0])


def test_patterns_of_files(tmp_path):
    for name in ("b", "a", "c.x"):
        write(tmp_path / "data" / f"{name}.jsonl", len(name))
    config = DatasetConfig(path="json", data_files=str(tmp_path / "data" / "[ab].jsonl"))
    assert config.data_files == [str(tmp_path / "data" / f"{name}.jsonl") for name in "ab"]
    dataset, _ = run_stage(DATASET, config, tmp_path / "out")
    assert places(dataset) == [("a.jsonl", 1), ("b.jsonl", 1)]


def test_names_that_stand_in_the_result_stand_in_the_key(tmp_path):
    def semantic(*names):
        return DatasetConfig(path="json", data_files=[str(tmp_path / name) for name in names]).semantic()

    assert semantic("a.jsonl", "b.jsonl") != semantic("a.jsonl", "c.jsonl")
    assert semantic("a.jsonl") == semantic("b.jsonl")
    assert semantic("x/a.jsonl", "y/a.jsonl")["file_names"] == ["x/a.jsonl", "y/a.jsonl"]
    assert semantic("x/a.jsonl", "y/b.jsonl")["file_names"] == ["a.jsonl", "b.jsonl"]


def test_a_missing_file_among_data_files(tmp_path):
    file = write(tmp_path / "data" / "part1.jsonl", 1)
    with pytest.raises(SourceError, match=r"part2\.jsonl does not exist; did you mean .*part1\.jsonl"):
        load(
            tmp_path / "data",
            tmp_path / "out",
            data_files=[str(file), str(tmp_path / "data" / "part2.jsonl")],
        )


def test_slices_across_files(tmp_path):
    folder = tmp_path / "data"
    for name, content in {"a": (0, 1), "b": (2,), "c": (), "d": (3, 4, 5)}.items():
        write(folder / f"{name}.jsonl", *content)
    for start in range(6):
        for stop in range(start + 1, 7):
            dataset, _ = load(folder, tmp_path / f"{start}-{stop}", split=f"train[{start}:{stop}]")
            assert numbers(dataset) == list(range(6))[start:stop], (start, stop)
