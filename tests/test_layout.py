"""What must not creep in: import cycles between folders, heavy imports, long files, shadowed packages."""

import ast
import re
import subprocess
import sys
import time
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("pipelines", "stages", "kernels", "resources")
ALLOWED = {
    "pipelines": {"pipelines", "stages", "resources"},
    "stages": {"stages", "kernels"},
    "kernels": {"kernels"},
    "resources": {"resources"},
}
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
EVERYTHING = [
    path
    for folder in (*FOLDERS, "tests", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def identifier(path):
    return str(path.relative_to(ROOT))


def imported_modules(path):
    """Everything that a file imports, wherever in it: below `TYPE_CHECKING` and in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def file_of(module):
    file = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return file if module.startswith("tunemill.") and file.is_file() else None


def imported_files(path):
    return {file for module in imported_modules(path) if (file := file_of(module))}


@pytest.mark.parametrize("path", SOURCES, ids=identifier)
def test_imports_go_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    for file in imported_files(path):
        # What stages and store must know alike stands in files of its own.
        shared = file in (ROOT / "resources" / "protocols.py", ROOT / "resources" / "hub_errors.py")
        allowed = shared or file.relative_to(ROOT).parts[0] in ALLOWED[folder]
        assert allowed, f"{identifier(path)} imports {identifier(file)}"


@pytest.mark.parametrize("path", EVERYTHING, ids=identifier)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 500, identifier(path)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{identifier(path)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", SOURCES, ids=identifier)
def test_every_module_and_public_function_says_what_it_does(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{identifier(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{identifier(path)}: {node.name} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=identifier)
def test_stages_read_no_environment_and_nobody_catches_everything(path):
    text = path.read_text()
    if path.is_relative_to(ROOT / "stages"):
        # A thread pool that is told its size through the environment is written to, not read.
        assert (
            "os.environ" not in text.replace('os.environ["RAYON_NUM_THREADS"] =', "") and "getenv" not in text
        )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            names = (
                {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {""}
            )
            assert not names & {"", "Exception", "BaseException"}, f"{identifier(path)}:{node.lineno}"


def test_top_folders_stay_namespace_folders():
    for folder in FOLDERS:
        assert not (ROOT / folder / "__init__.py").exists()
        link = ROOT / "tunemill" / folder
        assert link.is_symlink() and link.readlink() == Path("..", folder)


def test_the_kernels_package_of_the_registry_is_not_shadowed():
    code = "import kernels; print(kernels.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "site-packages" in found.stdout


def test_definitions_load_fast_and_without_torch(monkeypatch):
    """Fast beside `import dagster`, which they cannot do without: how fast that is depends on the machine's load."""
    heavy = "{'torch', 'transformers', 'datasets', 'trl', 'peft', 'pyarrow', 'matplotlib'}"
    code = f"import sys, tunemill.pipelines.assets.definitions; assert not {heavy} & set(sys.modules)"
    # One pipeline: each more takes its own time.
    monkeypatch.setenv("TUNEMILL_PIPELINES", str(ROOT / "examples" / "quickstart"))
    ours = min(seconds_of(code) for _ in range(3))
    dagsters = min(seconds_of("import dagster") for _ in range(3))
    assert ours < 2 * dagsters + 0.3, (ours, dagsters)


def seconds_of(code):
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - started


def test_checking_a_config_imports_neither_torch_nor_dagster():
    code = (
        "import sys; from tunemill.pipelines.cli import main;"
        "code = main(['check', 'examples/quickstart/pipeline.yml']);"
        "heavy = {'torch', 'transformers', 'dagster', 'pyarrow'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_dependency_is_imported():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w-]+", text).group() for text in declared}
    packages = {module.partition(".")[0] for path in SOURCES for module in imported_modules(path)}
    imported = {
        name.lower().replace("_", "-")
        for package, names in packages_distributions().items()
        if package in packages
        for name in names
    }
    # `tunemill ui` starts it.
    assert names - imported == {"dagster-webserver"}
