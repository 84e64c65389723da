"""The pages that say how to add something fit the code as it is now; following them is slow, this is not."""

import ast
import re
import subprocess
import sys

import pytest
from support.pages import ROOT, blocks_of, edited

# Each with how many lines its code may have.
PAGES = {
    "adding-a-key.md": None,
    "adding-a-stage.md": 49,
    "adding-a-method.md": None,
    "adding-a-template.md": None,
}
# The tests that any new key, stage, method or template may break.
MAY_BREAK = {
    "tests/docs/test_readme.py::test_the_page_of_keys_is_current",
    "tests/pipelines/graph/test_fingerprint.py::test_every_fingerprint_is_recorded",
    "tests/pipelines/graph/test_keys.py",
    "tests/test_house.py",
}


@pytest.mark.parametrize("page", PAGES)
def test_its_changes_fit_the_code_and_leave_it_as_lint_wants_it(page):
    texts = edited(blocks_of(page))
    assert texts
    for file, text in texts.items():
        if file.endswith(".py"):
            name = f"--stdin-filename={ROOT / file}"
            for command in (["check", name, "-"], ["format", "--check", name, "-"]):
                done = subprocess.run(
                    [sys.executable, "-m", "ruff", *command],
                    cwd=ROOT, input=text, capture_output=True, text=True,
                )  # fmt: skip
                assert done.returncode == 0, f"{file}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_what_it_imports_and_runs_is_there(page):
    blocks = blocks_of(page)
    texts = edited(blocks)

    def text_of(file):
        return texts[file] if file in texts else (ROOT / file).read_text()

    for file, text in texts.items():
        for node in ast.walk(ast.parse(text)) if file.endswith(".py") else ():
            if isinstance(node, ast.ImportFrom) and node.module.startswith("tunemill."):
                module = text_of(node.module.removeprefix("tunemill.").replace(".", "/") + ".py")
                for name in (one.name for one in node.names):
                    assert re.search(rf"^(def |class |)(\w+, )*{name}\b", module, re.M), (
                        f"{node.module}: {name}"
                    )
    run = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", "".join(b.text for b in blocks if b.language == "sh"))
    assert run
    for file, test in run:
        assert f"def {test or 'test_'}" in text_of(file), f"{file}: {test}"


@pytest.mark.parametrize(("page", "most"), PAGES.items())
def test_it_is_short_and_runs_what_any_new_thing_may_break(page, most):
    blocks = blocks_of(page)
    assert len((ROOT / "docs" / page).read_text().splitlines()) < 80
    assert most is None or sum(len(block.text.splitlines()) for block in blocks) <= most
    run = {word for block in blocks if block.language == "sh" for word in block.text.split()}
    assert run >= MAY_BREAK


def test_every_page_that_is_followed_is_looked_at():
    tests = {
        f"{file.stem.removeprefix('test_').replace('_', '-')}.md"
        for file in ROOT.glob("tests/docs/test_adding_a_*.py")
    }
    assert tests == {*PAGES, "adding-a-plugin.md"}
