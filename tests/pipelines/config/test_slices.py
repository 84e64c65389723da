"""How names in the YAML become names of sources."""

import pytest

from tunemill.pipelines.config.slices import text_of, whole_name


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("{}\n")
    (tmp_path / "squad").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "name", ["data/rows.jsonl", "data", "squad", "./data/gone.jsonl", "gone.csv", "data/gone"]
)
def test_local_names_become_absolute(folder, name):
    assert whole_name(name, folder, remote=True) == str(folder / name.removeprefix("./"))


@pytest.mark.parametrize("name", ["owner/set", "imdb", "some-owner/set.v2"])
def test_what_is_not_there_may_be_on_the_hub(folder, name):
    assert whole_name(name, folder, remote=True) == f"hf://datasets/{name}"


@pytest.mark.parametrize(
    "name", ["s3://bucket/rows.jsonl", "https://example.org/rows.csv", "json", "parquet"]
)
def test_urls_and_loaders_stay(folder, name):
    assert whole_name(name, folder, remote=True) == name


def test_only_remote_fields_know_the_hub(folder):
    assert whole_name("owner/model", folder, remote=False) == str(folder / "owner" / "model")


def test_names_within_a_local_folder_are_seen_from_there(folder):
    assert whole_name(["rows.jsonl"], folder, True, "data") == [str(folder / "data" / "rows.jsonl")]
    assert whole_name(["data/rows.jsonl"], folder, True, "json") == [str(folder / "data" / "rows.jsonl")]


def test_names_within_a_local_folder_may_also_be_seen_from_the_yaml(folder):
    assert whole_name("data/rows.jsonl", folder, True, "data") == str(folder / "data" / "rows.jsonl")
    assert whole_name("gone.jsonl", folder, True, "data") == str(folder / "data" / "gone.jsonl")


def test_names_within_a_remote_place_stay(folder):
    assert whole_name("part/one.jsonl", folder, True, "owner/set") == "part/one.jsonl"
    assert whole_name("s3://bucket/x", folder, True, "json") == "s3://bucket/x"


def test_a_text_or_the_file_that_holds_it(folder):
    (folder / "template.jinja").write_text("{{ messages }}\n")
    assert text_of("template.jinja", folder) == "{{ messages }}\n"
    assert text_of("{{ messages }}", folder) == "{{ messages }}"
    assert text_of("gone.jinja", folder) == "gone.jinja"
    assert text_of(3, folder) == 3


def test_a_mark_and_ends_of_lines_are_no_part_of_a_file_s_text(folder):
    (folder / "template.jinja").write_bytes(b"\xef\xbb\xbf{{ a }}\r\n{{ b }}")
    assert text_of("template.jinja", folder) == "{{ a }}\n{{ b }}"


def test_a_file_in_another_encoding_is_refused_by_name_and_line(folder):
    (folder / "template.jinja").write_bytes(b"{{ a }}\n\xe9")
    with pytest.raises(
        ValueError, match=r"template\.jinja, line 2: the byte 0xe9 is no UTF-8; save the file"
    ):
        text_of("template.jinja", folder)
