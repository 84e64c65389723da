"""The rules of the house: no circles, rooms of one's own, no stage known by name, one place for what is shared.

docs/architecture.md says why. Each rule is a function that lists what breaks it, so that a test can show it something
broken.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict

import pytest
from test_layout import FOLDERS, ROOT, SOURCES, file_of, identifier, imported_files

from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.named import EVALUATIONS, is_method, method, stage_named
from tunemill.stages.registry import METHODS, STAGES

PIPELINES = [path for path in SOURCES if path.is_relative_to(ROOT / "pipelines")]
STAGE_FILES = [path for path in SOURCES if path.is_relative_to(ROOT / "stages")]
# The rooms of `pipelines/`, each of which may import those before it.
ROOMS = ("config", "graph", "run", "report", "assets", "commands")
STAGE_ROOMS = {file_of(stage.body.split(":")[0]).parent: stage.name for stage in STAGES}
# What lists stages: all, and those that are found by a method's name.
LISTS = {ROOT / "stages" / "registry.py", ROOT / "stages" / "named.py"}
# What several stages share, by chapter.
SHARED_ROOMS = (
    "data/rows", "data/engines", "data/conversations", "data/sources", "models", "models/chat", "models/vllm",
    "training", "training/keys", "training/adapters", "training/kernels", "training/optimizers", "training/schedules",
    "training/online",
    "evaluation",
    "evaluation/metrics", "evaluation/statistics", "evaluation/harness",
)  # fmt: skip
# The graph's table, which has a file for each group of nodes: `places.py` joins them.
TABLE = {
    "pipelines/graph/places.py", "pipelines/graph/evaluation_places.py", "pipelines/graph/harness_places.py",
    "pipelines/graph/published_places.py", "pipelines/graph/verb_places.py",
}  # fmt: skip
# The table, the names of finished models, and the keys that decide which nodes there are, and what is said of them.
KNOW_NAMES = {
    *TABLE - {"pipelines/graph/harness_places.py"}, "pipelines/graph/model_places.py",
    "pipelines/config/graph_config.py", "pipelines/config/harness_keys.py", "pipelines/config/evaluations.py",
    "pipelines/graph/evaluation_problems.py",
}  # fmt: skip
# Words that are a stage's name or key and mean something else there: of tables for people, events, JSON schemas.
WORDS = {"dataset", "datasets", "name", "path", "tokens", "type", "group", "roles"}


def circles(graph):
    """Sets of files of which each can be reached from each."""
    reached = {start: reachable(graph, start) for start in graph}
    found = {frozenset(other for other in reached[file] if file in reached[other]) for file in graph}
    return [sorted(map(identifier, circle)) for circle in found if circle]


def reachable(graph, start):
    found, pending = set(), list(graph[start])
    while pending:
        file = pending.pop()
        if file not in found:
            found.add(file)
            pending += graph.get(file, ())
    return found


def test_no_files_import_each_other_in_a_circle():
    assert circles({path: imported_files(path) for path in SOURCES}) == []


def test_a_circle_would_be_seen():
    a, b, c = SOURCES[:3]
    assert circles({a: {b}, b: {c}, c: {a}}) == [sorted(map(identifier, (a, b, c)))]
    assert circles({a: {a}, b: set(), c: {b}}) == [[identifier(a)]]
    assert circles({a: {b, c}, b: {c}, c: set()}) == []


def room_of(path):
    """The stage's folder that a file lies in, else None."""
    return next((folder for folder in STAGE_ROOMS if path.is_relative_to(folder)), None)


def foreign(path, imported):
    """Files that a file of `stages/` imports though they are neither its own nor shared."""
    own = room_of(path)
    shared = {ROOT / "stages" / room for room in (*SHARED_ROOMS, ".")}
    for file in imported:
        if not file.is_relative_to(ROOT / "stages"):
            continue
        is_own = own is not None and file.is_relative_to(own)
        is_shared = file.parent in shared and room_of(file) is None and file not in LISTS
        if not is_own and not is_shared:
            yield identifier(file)


@pytest.mark.parametrize("path", STAGE_FILES, ids=identifier)
def test_a_stage_keeps_to_its_own_room_and_the_shared_ones(path):
    imported = imported_files(path)
    if path == ROOT / "stages" / "registry.py":
        declarations = {folder / "stage.py" for folder in STAGE_ROOMS}
        assert declarations <= imported, "every stage is listed"
    if path in LISTS:
        return
    assert list(foreign(path, imported)) == []


def test_a_stage_that_borrows_from_another_would_be_seen():
    stages = ROOT / "stages"
    body = stages / "evaluation" / "answers" / "body.py"
    assert list(foreign(body, {stages / "training" / "sft" / "config.py"})) == [
        "stages/training/sft/config.py"
    ]
    assert list(foreign(body, {stages / "registry.py"})) == ["stages/registry.py"]
    assert list(foreign(stages / "training" / "loop_body.py", {stages / "training" / "sft" / "body.py"}))
    assert not list(
        foreign(body, {stages / "models" / "files.py", stages / "evaluation" / "answers" / "config.py"})
    )


def test_nothing_but_the_registry_and_the_graphs_table_lists_stages():
    importers = {
        identifier(path)
        for path in SOURCES
        if any(file.name == "stage.py" for file in imported_files(path)) and path.name != "stage.py"
    }
    assert importers == {*map(identifier, LISTS), *TABLE}


@pytest.mark.parametrize("path", PIPELINES, ids=identifier)
def test_rooms_of_the_pipeline_import_those_before_them(path):
    room = path.relative_to(ROOT / "pipelines").parts[0]
    if room == "cli.py":
        return
    for file in imported_files(path):
        if file.is_relative_to(ROOT / "pipelines"):
            other = file.relative_to(ROOT / "pipelines").parts[0]
            assert ROOMS.index(other) <= ROOMS.index(room), f"{identifier(path)} imports {identifier(file)}"


def names_in(text):
    """String constants that are a stage's name, or are compared and are a stage's field."""
    names = {stage.name for stage in STAGES} | set(METHODS)
    fields = {field for stage in STAGES for field in stage.config.model_fields}
    tree = ast.parse(text)
    compared = {
        constant
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.MatchValue)
        for constant in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node.value in WORDS:
            continue
        if node.value in names or (node in compared and node.value in fields):
            yield node.value


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.parts[len(ROOT.parts)] in ("pipelines", "resources")],
    ids=identifier,
)
def test_the_pipeline_knows_no_stage_by_name(path):
    found = list(names_in(path.read_text()))
    if identifier(path) in KNOW_NAMES:
        assert found, "remove it from KNOW_NAMES"
        return
    # `check` says of the base model whose result it is.
    of_the_base_model = ("pipelines/graph/load.py", "pipelines/graph/clashes.py")
    assert set(found) <= ({"base_model"} if identifier(path) in of_the_base_model else set())


def test_a_name_would_be_seen():
    assert list(names_in('if stage == "tokenized": pass')) == ["tokenized"]
    assert list(names_in('if key == "learning_rate": pass')) == ["learning_rate"]
    assert list(names_in('x = {"sft": 1}')) == ["sft"]
    assert list(names_in('print("learning_rate")')) == []


def constants(path):
    """Top-level constants of a file that say something: texts, and collections of them, as they are written."""
    for node in ast.parse(path.read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if (
            not isinstance(target, ast.Name)
            or not re.fullmatch(r"_?[A-Z][A-Z0-9_]*", target.id)
            or value is None
        ):
            continue
        texts = [item.value for item in ast.walk(value) if isinstance(item, ast.Constant)]
        written = ast.dump(value)
        if any(isinstance(text, str) and len(text) > 3 for text in texts):
            yield written, target.id


def test_what_two_sides_share_stands_once():
    places = defaultdict(list)
    for path in SOURCES:
        for written, name in constants(path):
            places[written].append(f"{identifier(path)}: {name}")
    assert [found for found in places.values() if len(found) > 1] == []


def test_each_method_of_training_has_a_room_and_one_place_builds_a_trainer():
    assert {stage.config.__name__.lower() for stage in METHODS.values()} == {
        f"{name}config".replace("_", "") for name in METHODS
    }
    for name, stage in METHODS.items():
        assert file_of(stage.body.split(":")[0]).parent == ROOT / "stages" / "training" / name
        assert method(name) is stage and is_method(name) and stage_named(name) is stage
    builders = [identifier(path) for path in SOURCES if re.search(r"= \w*Trainer\(", path.read_text())]
    trained = [identifier(path) for path in SOURCES if re.search(r"trainer\.train\(", path.read_text())]
    assert builders == trained == ["stages/training/loop_body.py"]


def test_what_is_evaluated_can_be_trained_and_every_evaluation_is_a_stage():
    assert EVALUATIONS.keys() <= METHODS.keys()
    assert all(
        stage in STAGES and issubclass(stage.output, EvaluationReport) for stage in EVALUATIONS.values()
    )


def test_from_an_asset_to_backward_there_are_three_files():
    """The asset hands over to a launcher; behind it stand a method's body, the loop, and its Trainer."""
    body = ROOT / "stages" / "training" / "sft" / "body.py"
    loop = ROOT / "stages" / "training" / "loop_body.py"
    assert loop in imported_files(body) and "train(config" in body.read_text()
    trainer = ROOT / "stages" / "training" / "trainer_body.py"
    assert trainer in imported_files(loop) and "trainer.train(" in loop.read_text()
    assert "super().compute_loss(" in trainer.read_text()


def test_the_folders_are_those_of_the_house():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(FOLDERS)
    assert {path.parent.name for path in PIPELINES} == {*ROOMS, "pipelines"}
    kernels = (
        path.relative_to(ROOT / "kernels") for path in SOURCES if path.is_relative_to(ROOT / "kernels")
    )
    assert {path.parts[0] for path in kernels} == {"functions", "in_models"}
    chapters = {path.relative_to(ROOT / "stages").parts[0] for path in STAGE_FILES}
    assert {chapter for chapter in chapters if not chapter.endswith(".py")} == {
        "data", "models", "training", "evaluation",
    }  # fmt: skip


@pytest.mark.slow
def test_no_file_has_exhaustive_tests_alone():
    """They are other variants of what is proven without them, and CI leaves them out."""
    files = {
        str(file.relative_to(ROOT))
        for file in ROOT.glob("tests/**/test_*.py")
        if "pytest.mark.exhaustive" in file.read_text()
    }
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "not exhaustive", *sorted(files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    kept = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert kept == files, sorted(files - kept)
