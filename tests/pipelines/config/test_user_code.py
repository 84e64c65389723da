"""Which files are behind a dotted name."""

import pytest

from tunemill.pipelines.config.user_code import code_files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shaping").mkdir()
    (tmp_path / "shaping" / "__init__.py").write_text("")
    (tmp_path / "shaping" / "rows.py").write_text(
        "import os\nfrom . import words\nfrom helpers import clean\n"
    )
    (tmp_path / "shaping" / "words.py").write_text("import json\n")
    (tmp_path / "helpers.py").write_text("def clean(text):\n    import unused_here\n")
    (tmp_path / "unrelated.py").write_text("")
    return tmp_path


def names(files, folder):
    return None if files is None else [file.removeprefix(f"{folder}/") for file in files]


@pytest.mark.parametrize("name", ["shaping.rows", "shaping.rows.transform"])
def test_a_module_and_the_local_modules_that_it_imports(folder, name):
    found = names(code_files(name, folder), folder)
    assert found == ["shaping/rows.py", "helpers.py", "shaping/__init__.py", "shaping/words.py"]


def test_a_package_is_its_init(folder):
    assert names(code_files("shaping.build", folder), folder) == ["shaping/__init__.py"]


@pytest.mark.parametrize("name", ["json.loads", "alpaca", "alpaca_w_system.load", "a b", "", None, 3, "..x"])
def test_other_names_have_no_local_code(folder, name):
    assert code_files(name, folder) is None


def test_a_file_that_does_not_parse_is_code_all_the_same(tmp_path):
    (tmp_path / "broken.py").write_text("def (")
    assert names(code_files("broken.transform", tmp_path), tmp_path) == ["broken.py"]


def test_modules_that_import_each_other(tmp_path):
    (tmp_path / "one.py").write_text("import two")
    (tmp_path / "two.py").write_text("import one")
    assert names(code_files("one.f", tmp_path), tmp_path) == ["one.py", "two.py"]
