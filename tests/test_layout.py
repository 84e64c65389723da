"""What must not creep in: import cycles between folders, heavy imports, long files, shadowed packages."""

import ast
import re
import subprocess
import sys
import time
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

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


@cache
def text_of(path):
    return path.read_text()


@cache
def tree_of(path):
    return ast.parse(text_of(path))


def imported_modules(path):
    """Everything that a file imports, wherever in it: below `TYPE_CHECKING` and in functions too."""
    for node in ast.walk(tree_of(path)):
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


def test_imports_go_one_way():
    # What stages and store must know alike stands in files of its own.
    shared = (ROOT / "resources" / "protocols.py", ROOT / "resources" / "hub_errors.py")
    for path in SOURCES:
        allowed = ALLOWED[path.relative_to(ROOT).parts[0]]
        for file in imported_files(path):
            one_way = file in shared or file.relative_to(ROOT).parts[0] in allowed
            assert one_way, f"{identifier(path)} imports {identifier(file)}"


def test_files_and_functions_stay_short():
    for path in EVERYTHING:
        assert len(text_of(path).splitlines()) <= 500, identifier(path)
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 80, f"{identifier(path)}:{node.lineno} {node.name}"


def test_every_module_and_public_function_says_what_it_does():
    for path in SOURCES:
        tree = tree_of(path)
        assert ast.get_docstring(tree), f"{identifier(path)} has no docstring"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{identifier(path)}: {node.name} has no docstring"


def test_stages_read_no_environment():
    for path in SOURCES:
        if path.is_relative_to(ROOT / "stages"):
            # A thread pool that is told its size through the environment is written to, not read.
            text = text_of(path).replace('os.environ["RAYON_NUM_THREADS"] =', "")
            assert "os.environ" not in text and "getenv" not in text, identifier(path)


def test_nobody_catches_everything():
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler):
                kind = node.type
                names = {n.id for n in ast.walk(kind) if isinstance(n, ast.Name)} if kind else {""}
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
