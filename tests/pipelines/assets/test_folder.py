"""A folder of YAMLs: whatever lies in it, every pipeline is a group or an error of its own name."""

import os
import re
import shutil
import warnings
from dataclasses import replace

import dagster as dg
import pytest
from support.project import make_project

from tunemill.pipelines.assets.component import PipelinesComponent
from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.assets.jobs import JOBS_UP_TO
from tunemill.resources.errors import StoreError
from tunemill.resources.launcher import in_this_process

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("folder") / "project")


@pytest.fixture
def project(template, tmp_path):
    shutil.copytree(template.folder, tmp_path / "project")
    return type(template)(tmp_path / "project", tmp_path / "project" / ".tunemill")


def shown(project):
    """The groups of a folder, and what its error assets say, as Dagster has them after a whole load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        definitions = build_definitions(project.folder, project.state, in_this_process)
    definitions.get_repository_def().load_all_definitions()
    groups, errors = set(), {}
    for asset in definitions.assets:
        (spec,) = [asset] if isinstance(asset, dg.AssetSpec) else asset.specs
        if spec.group_name == "config_errors":
            errors[spec.key.to_user_string()] = spec.description
        else:
            groups.add(spec.group_name)
    return groups, errors


def write(project, name, contents, encoding="utf-8"):
    path = project.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode(encoding))


def test_of_two_pipelines_of_one_name_the_upper_one_is_shown(project):
    write(project, "a/pipeline.yml", project.yaml.read_text())
    write(project, "again.yml", project.yaml.read_text() + "pipeline: {name: pipeline}\n")
    groups, errors = shown(project)
    # `again.yml` lies as deep as `pipeline.yml` and comes before it.
    assert groups == {"pipeline"} and set(errors) == {"pipeline/config_error", "a_pipeline/config_error"}
    for message in errors.values():
        assert "name 'pipeline' is taken by" in message and "again.yml" in message


def test_names_that_become_one_are_told_apart(project):
    write(project, "é.yml", project.yaml.read_text())
    write(project, "ñ.yml", project.yaml.read_text())
    groups, errors = shown(project)
    assert groups == {"pipeline", "_"} and len(errors) == 1
    assert "taken by" in next(iter(errors.values()))


def test_broken_files_whose_plain_names_are_alike_have_names_of_their_own(project):
    names = ("a/b.yml", "a_b.yml", "a-b.yml", "a.b.yml", "a_b.yaml")
    for name in names:
        write(project, name, project.yaml.read_text() + "learnin_rate: 3\n")
    groups, errors = shown(project)
    assert groups == {"pipeline"}
    assert set(errors) == {f"{name}/config_error" for name in ("a_b", "a_b_2", "a_b_3", "a_b_4", "a_b_5")}
    for name in names:
        assert sum(str(project.folder / name) in message for message in errors.values()) == 1


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("base_model: x\n\tdatasets: []\n", "indent with spaces"),
        ("just: {a broken: [file\n", "not valid YAML"),
        (b"base_model: caf\xe9\n", "save the file as UTF-8"),
        ("base_model: x\nx: 1\n".encode("utf-16")[:-1], "UTF-16"),
        ("base_model: x\nx: \0\n", "is not allowed"),
        ("base_model: x\nx: !!bool abc\n", "asks for true or false"),
        ("base_model: x\nx: !!timestamp x\n", "has no meaning here"),
        ("base_model: x\n!!str [a]: b\n", "a key must be text"),
        ("base_model: x\n" + BOMB, "aliases make more than"),
        ("base_model: " + "[" * 5000, "nested more than"),
        ("base_model: x\n" + "x: 1\n" * 60_000, "larger than 256 KiB"),
        ("base_model: x\n---\nbase_model: x\n", "another document"),
        ("base_model: x\npipeline: [a]\n", "mapping of keys to values"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_why(project, contents, message):
    write(project, "odd.yml", contents)
    groups, errors = shown(project)
    assert groups == {"pipeline"}
    assert list(errors) == ["odd/config_error"] and message in errors["odd/config_error"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_with_a_mark_of_its_encoding_is_a_pipeline(project, encoding):
    write(project, "other.yml", project.yaml.read_text(), encoding)
    assert shown(project) == ({"pipeline", "other"}, {})


@pytest.mark.parametrize(
    "contents", ["just: notes\n", "a: !Ref b\n", "on: [push]\n", "- 1\n", "", "a: 1\n---\nb: 2\n"]
)
def test_other_yaml_is_passed_over(project, contents):
    write(project, "other.yml", contents)
    (project.folder / "folder.yml").mkdir()
    write(project, ".hidden/x.yml", "[")
    assert shown(project) == ({"pipeline"}, {})


def test_a_pipe_or_a_link_to_nowhere_is_an_error_and_nobody_waits(project):
    os.mkfifo(project.folder / "pipe.yml")
    (project.folder / "link.yml").symlink_to("nowhere")
    (project.folder / "round.yml").symlink_to("round.yml")
    groups, errors = shown(project)
    assert groups == {"pipeline"}
    assert set(errors) == {f"{name}/config_error" for name in ("pipe", "link", "round")}
    assert "no regular file" in errors["pipe/config_error"]


def test_a_file_name_that_is_no_text_is_shown(project):
    (project.folder / os.fsdecode(b"\xff.yml")).write_text("[")
    groups, errors = shown(project)
    assert groups == {"pipeline"} and "\\udcff.yml" in errors["_/config_error"]


def test_pipelines_that_wait_for_each_other_are_errors(project):
    names = {"one": "two", "two": "three", "three": "one", "after": "one"}
    for name, needed in names.items():
        config = project.yaml.read_text().replace("base_model: model", f"base_model: asset://{needed}/merged")
        write(project, f"{name}.yml", config.replace("reinit_weights: true\n", ""))
    groups, errors = shown(project)
    assert groups == {"pipeline", "after"}
    assert set(errors) == {f"{name}/config_error" for name in ("one", "two", "three")}
    assert "cut the circle" in errors["two/config_error"]


def test_steps_that_dagster_would_call_alike_are_an_error(project):
    dataset = project.yaml.read_text().replace("data/sums.jsonl", "data/a__tokenizer.jsonl")
    write(project, "pipeline__dataset_a.yml", project.yaml.read_text())
    write(project, "pipeline.yml", dataset)
    groups, errors = shown(project)
    message = errors["pipeline__dataset_a/config_error"]
    assert groups == {"pipeline"} and "'pipeline__dataset_a__tokenizer'" in message


def test_a_pipeline_with_a_source_that_cannot_be_is_no_danger(project):
    write(
        project,
        "long.yml",
        project.yaml.read_text().replace("base_model: model", f"base_model: {'a' * 5000}"),
    )
    groups, errors = shown(project)
    assert groups == {"pipeline"} and "longer than" in errors["long/config_error"]


def test_what_is_wrong_with_a_yaml_is_told_without_frames(project):
    write(project, "broken.yml", "base_model: [")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        definitions = build_definitions(project.folder, project.state, in_this_process)
    key = dg.AssetKey(["broken", "config_error"])
    outcome = dg.materialize(
        definitions.assets, selection=dg.AssetSelection.assets(key), raise_on_error=False
    )
    (event,) = (event for event in outcome.all_events if event.is_step_failure)
    assert "not valid YAML" in event.step_failure_data.error.message
    assert event.step_failure_data.error.stack == []


def jobs(project):
    definitions = build_definitions(project.folder, project.state, in_this_process)
    return {job.name for job in definitions.jobs}


def test_of_many_pipelines_only_the_jobs_that_something_starts_are_there(project):
    kinds = {"bring_up_to_date", "compute_again", "evaluate", "evaluate_again"}
    text = project.yaml.read_text()
    for number in range(2, JOBS_UP_TO):
        write(project, f"p{number}.yml", text)
    write(project, "nightly.yml", text + 'pipeline: {schedule: {cron: "0 3 * * *"}}\n')
    names = {"pipeline", "nightly", *(f"p{number}" for number in range(2, JOBS_UP_TO))}
    assert jobs(project) == {f"{name}_{kind}" for name in names for kind in kinds}
    write(project, "watched.yml", text + "pipeline: {watch: true, automation: stopped}\n")
    assert jobs(project) == {"nightly_bring_up_to_date", "watched_bring_up_to_date"}


def selected_by_the_page(project, words):
    """The assets that the selection behind these words on the page of `pipeline` takes, and the jobs that it names."""
    definitions = build_definitions(project.folder, project.state, in_this_process)
    graph = definitions.resolve_asset_graph()
    page = graph.get(dg.AssetKey(["pipeline", "summary"])).description
    (selection,) = re.findall(f"^- {words}: `(.*)`$", page, re.M)
    found = dg.AssetSelection.from_string(selection).resolve(graph)
    return {key.path[-1] for key in found}, re.findall("^- `(.*?)`", page, re.M)


def test_the_page_says_what_to_press_and_without_jobs_what_to_select(project):
    repository = build_definitions(project.folder, project.state, in_this_process).get_repository_def()
    evaluate = repository.get_job("pipeline_evaluate").asset_layer.executable_asset_keys
    page = repository.asset_graph.get(dg.AssetKey(["pipeline", "summary"])).description
    assert set(re.findall("^- `(.*?)`", page, re.M)) == jobs(project)
    for number in range(2, JOBS_UP_TO + 2):
        write(project, f"p{number}.yml", project.yaml.read_text())
    assert jobs(project) == set()
    names, pressed = selected_by_the_page(project, "the evaluations alone")
    assert names == {key.path[-1] for key in evaluate} and pressed == []
    assert selected_by_the_page(project, "everything that is not in place")[0] >= {
        "trained",
        "merged",
        *names,
    }


def test_two_components_of_one_project_get_on_with_each_other(project):
    root, text = project.folder, project.yaml.read_text().replace("base_model: model", "base_model: ../model")
    text = text.replace("path: data/", "path: ../data/")
    for folder in ("a", "b"):
        write(project, f"{folder}/of_{folder}.yml", text)
        write(project, f"{folder}/broken.yml", "base_model: [")
    context = replace(dg.ComponentTree.for_test().load_context, project_root=root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        both = [PipelinesComponent(folder=folder).build_defs(context) for folder in ("a", "b")]
    repository = dg.Definitions.merge(*both).get_repository_def()
    repository.load_all_definitions()
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "tunemill_sources__a",
        "tunemill_sources__b",
    }
    names = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert {"of_a/trained", "of_b/trained", "a_broken/config_error", "b_broken/config_error"} <= names


def test_a_state_elsewhere_is_refused(project):
    with pytest.raises(StoreError, match="must be on this machine"):
        build_definitions(project.folder, "s3://bucket/team", in_this_process)
