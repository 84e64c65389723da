"""`tunemill docs`, `fetch` and `config-schema`: what comes with the package is found without a network."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from test_layout import ROOT

from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.docs import ALSO, sections, text_on
from tunemill.pipelines.commands.package_files import pages
from tunemill.stages.errors import UserError

PAGES = {
    "one": "# One\nfirst\n\n## Apples\nred\n\n### Sour apples\ngreen\n\n## Pears\n```sh\n# apples\n```\n",
    "two": "# Two\nsome key_of_two here\n",
}


def test_every_page_can_be_asked_for(capsys):
    assert main(["docs", "--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | {"readme"} == set(listed)
    assert main(["docs", "merging"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "merging.md").read_text()
    assert set(ALSO.values()) <= set(listed)


def test_a_topic_is_a_page_a_heading_or_a_word():
    assert text_on("one", PAGES) == PAGES["one"] == text_on("ONE.md", PAGES)
    assert text_on("apples", PAGES) == "<!-- one -->\n## Apples\nred\n\n### Sour apples\ngreen\n"
    assert text_on("one#sour-apples", PAGES) == "<!-- one -->\n### Sour apples\ngreen\n"
    assert text_on("key-of-two", PAGES).splitlines()[1:] == ["two#Two: some key_of_two here"]
    with pytest.raises(UserError, match="did you mean two"):
        text_on("twoo", PAGES)
    with pytest.raises(UserError):
        text_on("two#apples", PAGES)


def test_a_comment_in_a_block_of_code_is_no_heading():
    assert [title for _, title, _ in sections(PAGES["one"])] == ["", "One", "Apples", "Sour apples", "Pears"]


def test_examples_are_copied_once_and_never_over_changes(tmp_path, capsys):
    target = tmp_path / "mine"
    assert main(["fetch", "examples", "--dest", str(target)]) == 0
    assert main(["check", str(target / "quickstart" / "pipeline.yml")]) == 0
    yaml = target / "quickstart" / "pipeline.yml"
    assert not list(target.rglob("outputs"))
    yaml.write_text("changed")
    (target / "quickstart" / "refine.yml").unlink()
    assert main(["fetch", "examples", "--dest", str(target)]) == 1
    assert "different; nothing was copied" in capsys.readouterr().err and yaml.read_text() == "changed"
    assert not (target / "quickstart" / "refine.yml").exists()
    assert main(["fetch", "examples", "--dest", str(target), "--force", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert sorted(written) == ["quickstart/pipeline.yml", "quickstart/refine.yml"]


def test_settings_of_deepspeed_are_fetched(tmp_path, capsys):
    target = tmp_path / "configs"
    assert main(["fetch", "deepspeed_configs", "--dest", str(target), "--json"]) == 0
    assert "zero3_bf16.json" in json.loads(capsys.readouterr().out)["written"]
    assert json.loads((target / "zero2.json").read_text())["zero_optimization"]["stage"] == 2


def test_the_schema_of_one_key(capsys):
    def field(name):
        code = main(["config-schema", "--field", name])
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    assert "adapter" in field("adapter")["description"]
    assert field("quantization.weight_dtype")["default"] == "int8"
    assert field("datasets[].type")["$defs"].keys() == {"UserDefinedType"}
    assert field("datasets.split") and field("pipeline.evaluate")["description"]
    assert "did you mean learning_rate" in field("learningrate")


@pytest.mark.slow
def test_a_wheel_has_pages_and_examples(tmp_path):
    """Built of what git has, unpacked as pip would, asked from elsewhere."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    source = tmp_path / "source"
    for name in listed.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        target = source / name
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        else:
            target.write_bytes((ROOT / name).read_bytes())
    (source / "examples" / "quickstart" / "outputs").mkdir()
    (source / "examples" / "quickstart" / "outputs" / "left.json").write_text("{}")
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "outputs" in name]

    def tunemill(*arguments):
        return subprocess.run(
            [sys.executable, "-P", "-m", "tunemill.pipelines.cli", *arguments],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True,
        )  # fmt: skip

    listed = tunemill("docs", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(pages())
    assert tunemill("docs", "readme").stdout.strip() == (ROOT / "README.md").read_text().strip()
    fetched = tunemill("fetch", "examples", "--json")
    assert fetched.returncode == 0, fetched.stderr
    examples = {path for path in (ROOT / "examples").rglob("*") if path.is_file()}
    tracked = {ROOT / name for name in subprocess.run(
        ["git", "ls-files", "examples"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()}  # fmt: skip
    assert {ROOT / "examples" / name for name in json.loads(fetched.stdout)["written"]} == examples & tracked
