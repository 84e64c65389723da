"""The templates are files, not modules: they must come along in a wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tunemill.stages.data.conversations.chat_template import TEMPLATES

ROOT = Path(__file__).parents[4]
PACKAGES = ("stages", "pipelines", "kernels", "resources")


def test_the_templates_are_in_the_wheel(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "tunemill" / name, ignore=ignored)
    for name in ("__init__.py", "py.typed"):
        shutil.copy(ROOT / "tunemill" / name, tmp_path / "tunemill")
    build = "from setuptools import build_meta; build_meta.build_wheel('wheel')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name for name in names if name.endswith(".jinja")}
    written = {path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.jinja")}
    chat = {f"tunemill/stages/data/conversations/templates/{name}" for name in written}
    assert shipped == chat | {"tunemill/pipelines/report/report.html.jinja"}
    assert {"tunemill/kernels/in_models/apply.py", "tunemill/kernels/functions/swiglu.py"} <= set(names)
